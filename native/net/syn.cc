#include "net/syn.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace sluice {
namespace {

constexpr std::size_t kTcpHeader = 20, kIpv4Header = 20, kIpv6Header = 40;
constexpr std::uint8_t kTcp = 6;
constexpr std::uint8_t kFin = 0x01, kSyn = 0x02, kRst = 0x04, kAck = 0x10;

std::uint8_t byteAt(std::span<const std::byte> bytes, std::size_t at) { return static_cast<std::uint8_t>(bytes[at]); }
std::uint16_t wordAt(std::span<const std::byte> bytes, std::size_t at) {
  return static_cast<std::uint16_t>(byteAt(bytes, at) << 8U | byteAt(bytes, at + 1));
}
void putWord(std::span<std::byte> bytes, std::size_t at, std::uint16_t value) {
  bytes[at] = static_cast<std::byte>(value >> 8U);
  bytes[at + 1] = static_cast<std::byte>(value);
}
void putLong(std::span<std::byte> bytes, std::size_t at, std::uint32_t value) {
  putWord(bytes, at, static_cast<std::uint16_t>(value >> 16U));
  putWord(bytes, at + 2, static_cast<std::uint16_t>(value));
}

// RFC 1071, not yet complemented.
std::uint32_t sum(std::span<const std::byte> bytes, std::uint32_t start = 0) {
  std::uint32_t total = start;
  for (std::size_t at = 0; at + 1 < bytes.size(); at += 2) total += wordAt(bytes, at);
  if (bytes.size() % 2 != 0) total += static_cast<std::uint32_t>(byteAt(bytes, bytes.size() - 1)) << 8U;
  return total;
}
std::uint16_t folded(std::uint32_t total) {
  while (total > 0xffffU) total = (total & 0xffffU) + (total >> 16U);
  return static_cast<std::uint16_t>(~total);
}

bool isV4(std::span<const std::byte> packet) { return byteAt(packet, 0) >> 4U == 4; }
std::size_t headerOf(std::span<const std::byte> packet) { return isV4(packet) ? (byteAt(packet, 0) & 0x0fU) * std::size_t{4} : kIpv6Header; }

// Lengths and checksums of a packet whose headers are all there and whose payload is exactly the rest.
void finish(std::span<std::byte> packet) {
  const std::size_t header = headerOf(packet);
  const std::size_t segment = packet.size() - header;
  std::uint32_t pseudo = kTcp + static_cast<std::uint32_t>(segment);
  if (isV4(packet)) {
    putWord(packet, 2, static_cast<std::uint16_t>(packet.size()));
    putWord(packet, 10, 0);
    putWord(packet, 10, folded(sum(packet.first(header))));
    pseudo = sum(packet.subspan(12, 8), pseudo);
  } else {
    putWord(packet, 4, static_cast<std::uint16_t>(segment));
    pseudo = sum(packet.subspan(8, 32), pseudo);
  }
  putWord(packet, header + 16, 0);
  putWord(packet, header + 16, folded(sum(packet.subspan(header), pseudo)));
}

Endpoint endpointAt(std::span<const std::byte> packet, std::size_t address, std::size_t port) {
  Endpoint endpoint;
  if (isV4(packet)) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(endpoint.storage);
    v4.sin_family = AF_INET;
    std::memcpy(&v4.sin_addr, packet.data() + address, 4);
  } else {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(endpoint.storage);
    v6.sin6_family = AF_INET6;
    std::memcpy(&v6.sin6_addr, packet.data() + address, 16);
  }
  endpoint.setPort(wordAt(packet, port));
  return endpoint;
}

std::uint16_t mssOf(std::span<const std::byte> options) {
  for (std::size_t at = 0; at < options.size();) {
    const std::uint8_t kind = byteAt(options, at);
    if (kind == 0) break;
    if (kind == 1) {
      ++at;
      continue;
    }
    if (at + 1 >= options.size()) break;
    const std::uint8_t length = byteAt(options, at + 1);
    if (length < 2 || at + length > options.size()) break;
    if (kind == 2 && length == 4) return wordAt(options, at + 2);
    at += length;
  }
  return 0;
}

// How long its headers are: IP's, and TCP's.
struct Extent {
  std::size_t header, tcp;
};

std::optional<Extent> extentOf(std::span<const std::byte> packet) {
  if (packet.empty()) return std::nullopt;
  const std::uint8_t version = byteAt(packet, 0) >> 4U;
  if (version == 4) {
    if (packet.size() < kIpv4Header || headerOf(packet) < kIpv4Header || byteAt(packet, 9) != kTcp) return std::nullopt;
    if ((wordAt(packet, 6) & 0x3fffU) != 0) return std::nullopt;  // more fragments, or not the first
  } else if (version != 6 || packet.size() < kIpv6Header || byteAt(packet, 6) != kTcp) {
    return std::nullopt;
  }
  const std::size_t header = headerOf(packet);
  if (packet.size() < header + kTcpHeader) return std::nullopt;
  const std::size_t tcp = (byteAt(packet, header + 12) >> 4U) * std::size_t{4};
  if (tcp < kTcpHeader || packet.size() < header + tcp) return std::nullopt;
  if ((byteAt(packet, header + 13) & (kFin | kSyn | kRst | kAck)) != kSyn) return std::nullopt;
  return Extent{header, tcp};
}

SynFacts factsOf(std::span<const std::byte> packet, const Extent& extent) {
  const bool v4 = isV4(packet);
  SynFacts facts;
  facts.client = endpointAt(packet, v4 ? 12 : 8, extent.header);
  facts.server = endpointAt(packet, v4 ? 16 : 24, extent.header + 2);
  facts.look.mss = mssOf(packet.subspan(extent.header + kTcpHeader, extent.tcp - kTcpHeader));
  facts.look.tos = v4 ? byteAt(packet, 1) : static_cast<std::uint8_t>(wordAt(packet, 0) >> 4U);
  facts.look.hops = byteAt(packet, v4 ? 8 : 7);
  return facts;
}

}  // namespace

std::optional<SynFacts> readSyn(std::span<const std::byte> packet) {
  const auto extent = extentOf(packet);
  return extent ? std::optional(factsOf(packet, *extent)) : std::nullopt;
}

std::optional<Syn> parseSyn(std::span<const std::byte> packet) {
  const auto extent = extentOf(packet);
  if (!extent) return std::nullopt;
  const auto [header, tcp] = *extent;
  Syn syn;
  static_cast<SynFacts&>(syn) = factsOf(packet, *extent);
  syn.sequence = static_cast<std::uint32_t>(wordAt(packet, header + 4)) << 16U | wordAt(packet, header + 6);
  syn.packet.assign(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(header + tcp));
  finish(syn.packet);
  return syn;
}

std::vector<std::byte> buildReset(const Syn& syn) {
  const bool v4 = syn.client.v4();
  const std::size_t header = v4 ? kIpv4Header : kIpv6Header;
  std::vector<std::byte> packet(header + kTcpHeader);
  const std::span<const std::byte> asked(syn.packet);
  const std::size_t theirs = headerOf(asked);
  if (v4) {
    packet[0] = std::byte{0x45};
    packet[6] = std::byte{0x40};  // don't fragment
    packet[8] = std::byte{64};
    packet[9] = std::byte{kTcp};
    std::memcpy(packet.data() + 12, asked.data() + 16, 4);
    std::memcpy(packet.data() + 16, asked.data() + 12, 4);
  } else {
    packet[0] = std::byte{0x60};
    packet[6] = std::byte{kTcp};
    packet[7] = std::byte{64};
    std::memcpy(packet.data() + 8, asked.data() + 24, 16);
    std::memcpy(packet.data() + 24, asked.data() + 8, 16);
  }
  std::memcpy(packet.data() + header, asked.data() + theirs + 2, 2);
  std::memcpy(packet.data() + header + 2, asked.data() + theirs, 2);
  putLong(packet, header + 8, syn.sequence + 1);
  packet[header + 12] = std::byte{0x50};
  packet[header + 13] = std::byte{kRst | kAck};
  finish(packet);
  return packet;
}

std::vector<std::byte> buildUnreachable(const Syn& syn, std::uint8_t code) {
  constexpr std::size_t kIcmpHeader = 8;
  const bool v4 = syn.client.v4();
  std::vector<std::byte> message(kIcmpHeader + syn.packet.size());
  message[0] = std::byte{v4 ? std::uint8_t{3} : std::uint8_t{1}};
  message[1] = std::byte{code};
  std::copy(syn.packet.begin(), syn.packet.end(), message.begin() + kIcmpHeader);
  if (v4) putWord(message, 2, folded(sum(message)));
  return message;
}

}  // namespace sluice
