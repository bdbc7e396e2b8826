// Ports of this machine that a flow of UDP has just let go of.
//
// Towards the server of a local program's flow the relay has the program's address and whatever port the kernel deals it, at random. If a flow had it lately towards the same server, at either of
// its ends here, then what that server still had to say to it would reach the next one. TCP has TIME_WAIT against this, UDP nothing; so such a port is left alone for a while.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "net/endpoint.h"

namespace sluice {

// Of all threads. A port has one place, for the server that was spoken to from it last.
class RestingPorts {
 public:
  static constexpr std::uint32_t kRest = 30;  // seconds: as long as conntrack remembers a datagram that nobody answered

  void ended(std::uint16_t port, const Endpoint& server);
  [[nodiscard]] bool rests(std::uint16_t port, const Endpoint& server) const;

 private:
  std::array<std::atomic<std::uint64_t>, 65536> last_{};  // UpstreamSet::serverTag() and the second; 0: never. Only what is written takes memory.
};

RestingPorts& restingUdpPorts();

}  // namespace sluice
