// Which port the relay's own end of a forwarded connection asks for.
//
// Towards the server the relay bears its client's address, so a port the client takes for another connection to that server at the same moment would be one
// conntrack tuple for two connections, and the SYN that comes second is dropped: a second lost. Linux deals ports out in rows, those of the parity of the range's low end
// first, and where the client is a container the row is even one and the same for it and us, so that chance comes in runs. From the other parity there is none of it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "net/endpoint.h"

namespace sluice {

class OwnPorts {
 public:
  // Deals between these, both included.
  OwnPorts(std::uint16_t low, std::uint16_t high);
  // The next one for a connection between these addresses, 0 where there is none to deal. In a row for each of some hundred groups of destinations, so that none comes again
  // soon; where a row begins is nobody's to guess (RFC 6056, 3.3.4). Any thread.
  std::uint16_t next(const Endpoint& client, const Endpoint& server);

 private:
  std::uint16_t first_ = 0;
  std::uint32_t count_ = 0;
  std::array<std::atomic<std::uint32_t>, 256> rows_;
};

// Of this network namespace's range, as it was at the first call (ip-sysctl, ip_local_port_range).
OwnPorts& ownPorts();

}  // namespace sluice
