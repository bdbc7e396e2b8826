#include "net/udp_packet.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

#include "net/own_addresses.h"

namespace sluice {
namespace {

constexpr std::size_t kHeader4 = 20, kHeader6 = 40, kUdp = 8, kIcmp = 8, kFragment6 = 8;
constexpr std::size_t kMaxError4 = 576, kMaxError6 = 1280;  // RFC 1812, 4.3.2.3; RFC 4443, 2.4
constexpr std::uint16_t kDontFragment = 0x4000, kMore = 0x2000;

template <typename Value>
std::byte* put(std::byte* out, Value value) {
  std::memcpy(out, &value, sizeof value);
  return out + sizeof value;
}

std::size_t headerOf(bool v4) { return v4 ? kHeader4 : kHeader6; }

std::byte* putAddress(std::byte* out, const Endpoint& endpoint) {
  const AddressBytes bytes = addressBytes(endpoint);
  const std::size_t skip = endpoint.v4() ? 12 : 0;
  std::memcpy(out, bytes.data() + skip, bytes.size() - skip);
  return out + bytes.size() - skip;
}

std::uint64_t sum(std::span<const std::byte> bytes, std::uint64_t so = 0) {
  std::size_t at = 0;
  for (; at + 2 <= bytes.size(); at += 2) {
    std::uint16_t word;
    std::memcpy(&word, bytes.data() + at, sizeof word);
    so += word;
  }
  if (at < bytes.size()) so += static_cast<std::uint8_t>(bytes[at]);  // little-endian: the last byte and a zero behind it
  return so;
}
std::uint16_t folded(std::uint64_t so) {
  while (so >> 16U != 0) so = (so & 0xFFFFU) + (so >> 16U);
  return static_cast<std::uint16_t>(~so);
}

// IPv4's is finished with its checksum; both with `length` bytes behind them.
std::byte* putHeader(std::byte* out, const Endpoint& from, const Endpoint& to, std::uint8_t protocol, std::uint8_t tos, std::size_t length) {
  std::byte* at = out;
  if (from.v4()) {
    at = put(at, std::uint8_t{0x45});
    at = put(at, tos);
    at = put(at, htons(static_cast<std::uint16_t>(kHeader4 + length)));
    at = put(at, std::uint16_t{0});
    at = put(at, htons(kDontFragment));
    at = put(at, std::uint8_t{64});
    at = put(at, protocol);
    at = put(at, std::uint16_t{0});
    at = putAddress(putAddress(at, from), to);
    put(out + 10, folded(sum({out, kHeader4})));
  } else {
    at = put(at, htonl(0x60000000U | std::uint32_t{tos} << 20U));
    at = put(at, htons(static_cast<std::uint16_t>(length)));
    at = put(at, protocol);
    at = put(at, std::uint8_t{64});
    at = putAddress(putAddress(at, from), to);
  }
  return at;
}

// RFC 768 and 8200, 8.1: addresses, length and protocol are summed as well.
std::uint16_t checksumWith(const Endpoint& from, const Endpoint& to, std::uint8_t protocol, std::span<const std::byte> body) {
  std::byte pseudo[40];
  std::byte* at = putAddress(putAddress(pseudo, from), to);
  at = put(at, htonl(static_cast<std::uint32_t>(body.size())));
  at = put(at, htonl(protocol));
  return folded(sum(body, sum({pseudo, static_cast<std::size_t>(at - pseudo)})));
}

std::byte* putUdp(std::byte* out, const Endpoint& from, const Endpoint& to, std::size_t payload) {
  std::byte* at = put(out, htons(from.port()));
  at = put(at, htons(to.port()));
  at = put(at, htons(static_cast<std::uint16_t>(kUdp + payload)));
  return put(at, std::uint16_t{0});
}

}  // namespace

std::size_t buildUdpPacket(std::byte* out, const Endpoint& from, const Endpoint& to, std::uint8_t tos, std::span<const std::byte> payload) {
  const bool v4 = from.v4();
  if (kUdp + payload.size() > (v4 ? 65'535 - kHeader4 : 65'535)) return 0;
  std::byte* const udp = putHeader(out, from, to, IPPROTO_UDP, tos, kUdp + payload.size());
  std::byte* const body = putUdp(udp, from, to, payload.size());
  if (!payload.empty()) std::memcpy(body, payload.data(), payload.size());
  const std::uint16_t checksum = checksumWith(from, to, IPPROTO_UDP, {udp, kUdp + payload.size()});
  put(udp + 6, checksum == 0 ? std::uint16_t{0xFFFF} : checksum);
  return headerOf(v4) + kUdp + payload.size();
}

bool eachFragment(std::span<const std::byte> packet, std::size_t most, std::uint32_t identification, bool (*each)(void*, std::span<const std::byte>), void* with) {
  const bool v4 = static_cast<std::uint8_t>(packet[0]) >> 4U == 4;
  const std::size_t header = headerOf(v4) + (v4 ? 0 : kFragment6);
  const std::span<const std::byte> body = packet.subspan(headerOf(v4));
  std::byte piece[2048];
  const std::size_t room = (std::min(most, sizeof piece) - header) & ~std::size_t{7};
  for (std::size_t at = 0; at < body.size(); at += room) {
    const std::size_t size = std::min(room, body.size() - at);
    const bool more = at + size < body.size();
    std::memcpy(piece, packet.data(), headerOf(v4));
    if (v4) {
      put(piece + 2, htons(static_cast<std::uint16_t>(header + size)));
      put(piece + 4, static_cast<std::uint16_t>(identification));
      put(piece + 6, htons(static_cast<std::uint16_t>((more ? kMore : 0) | at / 8)));
      put(piece + 10, std::uint16_t{0});
      put(piece + 10, folded(sum({piece, kHeader4})));
    } else {
      put(piece + 4, htons(static_cast<std::uint16_t>(kFragment6 + size)));
      put(piece + kHeader6, piece[6]);  // the fragment's next header is the packet's
      put(piece + 6, std::uint8_t{IPPROTO_FRAGMENT});
      put(piece + kHeader6 + 1, std::uint8_t{0});
      put(piece + kHeader6 + 2, htons(static_cast<std::uint16_t>(at | (more ? 1U : 0U))));
      put(piece + kHeader6 + 4, identification);
    }
    std::memcpy(piece + header, body.data() + at, size);
    if (!each(with, {piece, header + size})) return false;
  }
  return true;
}

std::size_t buildIcmpError(std::byte* out, const Endpoint& source, const UdpError& error, const Quoted& quoted) {
  const bool v4 = quoted.from.v4();
  const std::size_t before = headerOf(v4) + kIcmp + headerOf(v4) + kUdp;
  const std::size_t length = std::min<std::size_t>(quoted.length, v4 ? 65'507 : 65'527);
  const std::size_t kept = std::min({quoted.payload.size(), length, (v4 ? kMaxError4 : kMaxError6) - before});
  const std::size_t body = before - headerOf(v4) + kept;
  const std::uint8_t protocol = v4 ? std::uint8_t{IPPROTO_ICMP} : std::uint8_t{IPPROTO_ICMPV6};
  std::byte* const icmp = putHeader(out, source, quoted.from, protocol, v4 ? 0xC0 : 0, body);  // RFC 1812, 4.3.2.5: internetwork control
  std::byte* at = put(icmp, error.type);
  at = put(at, error.code);
  at = put(at, std::uint16_t{0});
  at = put(at, htonl(error.info));  // only where it is the MTU; IPv4's is of 16 bits, at the same end
  at = putHeader(at, quoted.from, quoted.to, IPPROTO_UDP, 0, kUdp + length);
  at = putUdp(at, quoted.from, quoted.to, length);
  if (kept > 0) std::memcpy(at, quoted.payload.data(), kept);
  const std::span<const std::byte> whole(icmp, body);
  put(icmp + 2, v4 ? folded(sum(whole)) : checksumWith(source, quoted.from, protocol, whole));
  return headerOf(v4) + body;
}

UdpError portUnreachable(int family) {
  UdpError error;
  error.family = family;
  error.type = family == AF_INET ? 3 : 1;
  error.code = family == AF_INET ? 3 : 4;
  return error;
}

UdpError hostUnreachable(int family) {
  UdpError error;
  error.family = family;
  error.type = family == AF_INET ? 3 : 1;
  error.code = family == AF_INET ? 1 : 3;
  return error;
}

}  // namespace sluice
