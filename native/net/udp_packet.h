// Whole IP packets for what no socket can say: an answer from an address and port that a local program holds, and errors of ICMP.
// Pure. RFC 768, 791, 792, 1071, 4443, 8200.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "net/endpoint.h"
#include "net/udp_message.h"

namespace sluice {

inline constexpr std::size_t kMaxPacket = 65'535 + 40;

// The packet of one datagram; returns its size, 0 when it is larger than the family allows. `out` holds kMaxPacket.
std::size_t buildUdpPacket(std::byte* out, const Endpoint& from, const Endpoint& to, std::uint8_t tos, std::span<const std::byte> payload);

// The pieces of such a packet, each at most `most` bytes (at least 576), given one after another to `each` until it says false. `identification`
// must differ between packets in flight.
bool eachFragment(std::span<const std::byte> packet, std::size_t most, std::uint32_t identification, bool (*each)(void*, std::span<const std::byte>), void* with);

// What an error says of the datagram it is about: `from` sent it to `to`.
struct Quoted {
  const Endpoint& from;
  const Endpoint& to;
  std::size_t length;                    // payload bytes of the whole datagram
  std::span<const std::byte> payload;    // as many of them as are known; cut where ICMP ends
};

// The packet of that error from `source` to the quoted sender; returns its size, at most 1,280.
std::size_t buildIcmpError(std::byte* out, const Endpoint& source, const UdpError& error, const Quoted& quoted);

// "Nobody listens there."
UdpError portUnreachable(int family);
UdpError hostUnreachable(int family);

}  // namespace sluice
