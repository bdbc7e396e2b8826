// Which port the relay's own end of a forwarded flow gets.
//
// Towards the server the relay bears its client's address, so a port the client takes for another connection to that server at the same moment would be one
// conntrack tuple for two connections, and the SYN that comes second is dropped: a second lost. Linux deals ports out in rows, those of the parity of the range's low end
// first, and where the client is a container the row is even one and the same for it and us, so that chance comes in runs. From the other parity there is none of it.
//
// UDP clients choose at random, and there it is worse: conntrack takes the client's datagram for one of the relay's own flow, so it passes the gate and the answer goes to whose flow that is. So
// ports below the range are bound, which no usual client chooses.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "net/endpoint.h"

namespace sluice {

class OwnPorts {
 public:
  struct Range { std::uint16_t low, high; };                  // both included
  static OwnPorts otherParity(Range ephemeral) { return {static_cast<std::uint16_t>(ephemeral.low + 1), ephemeral.low < ephemeral.high ? (std::uint32_t{ephemeral.high} - ephemeral.low - 1) / 2 + 1 : 0, 2}; }
  static OwnPorts below(Range ephemeral);                     // at most 16,384 of them, from 2048 up
  // The next one for a connection between these addresses, 0 where there is none to deal. In a row for each of some hundred groups of destinations, so that none comes again
  // soon; where a row begins is nobody's to guess (RFC 6056, 3.3.4). Any thread.
  std::uint16_t next(const Endpoint& client, const Endpoint& server);

 private:
  OwnPorts(std::uint16_t first, std::uint32_t count, std::uint16_t step);

  std::uint16_t first_;
  std::uint32_t count_;
  std::uint16_t step_;
  std::array<std::atomic<std::uint32_t>, 256> rows_;
};

// Of this network namespace's range, as it was at the first call (ip-sysctl, ip_local_port_range).
OwnPorts& ownTcpPorts();
OwnPorts& ownUdpPorts();

}  // namespace sluice
