// What the kernel measured of one TCP connection.
#pragma once

#include <cstdint>
#include <optional>

namespace sluice {

struct TcpLeg {
  std::uint32_t rtt = 0;          // smoothed round trip, microseconds
  std::uint32_t minRtt = 0;       // the shortest seen lately, microseconds; 0: the kernel has none
  std::uint32_t retransmits = 0;  // segments this end sent again
  std::uint32_t mss = 0;          // of what this end sends, bytes
};

// Of a connection that was established, ended or not; nothing where no round trip has been measured. TCP_INFO, tcp(7).
std::optional<TcpLeg> measure(int fd);

}  // namespace sluice
