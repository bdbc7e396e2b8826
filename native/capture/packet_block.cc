#include "capture/packet_block.h"

#include <arpa/inet.h>

namespace sluice::pcapng {

namespace {

constexpr std::uint32_t kEnhancedPacket = 6;

const in_addr& address4(const Endpoint& endpoint) { return reinterpret_cast<const sockaddr_in*>(&endpoint.storage)->sin_addr; }
const in6_addr& address6(const Endpoint& endpoint) { return reinterpret_cast<const sockaddr_in6*>(&endpoint.storage)->sin6_addr; }

std::uint16_t headerChecksum(const std::byte* header) {  // RFC 1071, over 20 bytes whose own field is zero
  std::uint32_t sum = 0;
  for (int index = 0; index < 10; ++index) {
    std::uint16_t word;
    std::memcpy(&word, header + 2 * index, sizeof word);
    sum += word;
  }
  sum = (sum & 0xFFFFU) + (sum >> 16U);
  sum += sum >> 16U;
  return static_cast<std::uint16_t>(~sum);
}

}  // namespace

std::byte* beginPacket(std::byte* out, const PacketHead& head) {
  const auto stamp = static_cast<std::uint64_t>(head.nanoseconds);
  std::byte* at = out;
  at = put(at, kEnhancedPacket);
  at = put(at, static_cast<std::uint32_t>(head.size));
  at = put(at, std::uint32_t{0});  // interface
  at = put(at, static_cast<std::uint32_t>(stamp >> 32U));
  at = put(at, static_cast<std::uint32_t>(stamp));
  at = put(at, static_cast<std::uint32_t>(head.captured));
  at = put(at, static_cast<std::uint32_t>(head.captured));

  if (head.from->v4()) {
    std::byte* const header = at;
    at = put(at, std::uint8_t{0x45});
    at = put(at, std::uint8_t{0});
    at = put(at, htons(static_cast<std::uint16_t>(head.captured)));
    at = put(at, std::uint16_t{0});      // identification: never a fragment, RFC 6864
    at = put(at, htons(0x4000));         // don't fragment
    at = put(at, std::uint8_t{64});
    at = put(at, head.protocol);
    at = put(at, std::uint16_t{0});
    at = put(at, address4(*head.from).s_addr);
    at = put(at, address4(*head.to).s_addr);
    put(header + 10, headerChecksum(header));
  } else {
    at = put(at, htonl(0x60000000U));
    at = put(at, htons(static_cast<std::uint16_t>(head.captured - 40)));
    at = put(at, head.protocol);
    at = put(at, std::uint8_t{64});
    at = put(at, address6(*head.from));
    at = put(at, address6(*head.to));
  }
  return at;
}

void endPacket(std::byte* at, std::size_t captured, Direction direction, std::uint32_t pid, std::size_t size) {
  const std::size_t padding = padded(captured) - captured;
  std::memset(at, 0, padding);
  at += padding;
  at = put(at, std::uint16_t{2});        // epb_flags
  at = put(at, std::uint16_t{4});
  at = put(at, std::uint32_t{direction == Direction::kUp ? 2U : 1U});
  if (pid != 0) {
    at = put(at, std::uint16_t{8});      // epb_processid_threadid
    at = put(at, std::uint16_t{8});
    at = put(at, pid);
    at = put(at, std::uint32_t{0});
  }
  at = put(at, std::uint32_t{0});        // end of options
  put(at, static_cast<std::uint32_t>(size));
}

}  // namespace sluice::pcapng
