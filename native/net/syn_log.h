// The SYNs that the rules hold back: each goes as a copy to an nfnetlink_log socket, and is dropped. Source: linux/netfilter/nfnetlink_log.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "net/descriptor.h"

namespace sluice {

struct LoggedPacket {
  std::span<const std::byte> bytes;
  std::uint32_t outgoing = 0;              // index of the interface by which it was about to leave; 0: it was coming in
};

// The packet in one message of the log; nothing when it holds none. Pure.
std::optional<LoggedPacket> loggedPacket(std::span<const std::byte> message);

// The next packet in what one read of the log gave, from `at` on, which moves behind it; nothing when there is no more. Pure.
std::optional<LoggedPacket> nextLogged(std::span<const std::byte> read, std::size_t& at);

class SynLog {
 public:
  SynLog() = default;
  // Binds to the group of this network namespace. To be called with CAP_NET_ADMIN; reading needs no right later. On failure the log is empty and
  // errno in `error` (EBUSY: somebody else has the group).
  static SynLog open(std::uint16_t group, int& error);

  [[nodiscard]] explicit operator bool() const { return static_cast<bool>(socket_); }
  [[nodiscard]] int descriptor() const { return socket_.get(); }
  // The next packet, valid until the next call. Nothing waits: nullopt. What the kernel had no room for is simply not there: its sender sends again.
  std::optional<LoggedPacket> next();

 private:
  Descriptor socket_;
  alignas(8) std::array<std::byte, 16384> buffer_;
  std::size_t at_ = 0, end_ = 0;
};

}  // namespace sluice
