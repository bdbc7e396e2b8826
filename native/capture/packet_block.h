// What every synthesised packet begins and ends with, whatever is inside. Inside capture/ only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "capture/pcapng.h"

namespace sluice::pcapng {

template <typename Value>
std::byte* put(std::byte* out, Value value) {
  std::memcpy(out, &value, sizeof value);
  return out + sizeof value;
}

// Bytes of an Enhanced Packet Block around `captured` bytes of packet.
constexpr std::size_t blockSize(std::size_t captured, bool named) {
  return 28 + padded(captured) + 12 + (named ? 12U : 0U) + 4;  // epb_flags and the end of options, epb_processid_threadid
}

struct PacketHead {
  const Endpoint* from;
  const Endpoint* to;
  std::uint8_t protocol;       // of IP
  std::int64_t nanoseconds;
  std::size_t size, captured;  // of the block, and of the packet with its IP header
};

// Both return where the next byte goes. endPacket() begins with the padding.
std::byte* beginPacket(std::byte* out, const PacketHead& head);
void endPacket(std::byte* at, std::size_t captured, Direction direction, std::uint32_t pid, std::size_t size);

}  // namespace sluice::pcapng
