#include "net/tcp_leg.h"

#include <linux/tcp.h>  // and not netinet/tcp.h, whose structure ends before the newer members
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>

namespace sluice {

std::optional<TcpLeg> measure(int fd) {
  tcp_info info{};
  socklen_t length = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0 || info.tcpi_rtt == 0) return std::nullopt;
  const bool minimum = length >= offsetof(tcp_info, tcpi_min_rtt) + sizeof info.tcpi_min_rtt && info.tcpi_min_rtt != ~0U;
  return TcpLeg{info.tcpi_rtt, minimum ? info.tcpi_min_rtt : 0, info.tcpi_total_retrans, info.tcpi_snd_mss};
}

}  // namespace sluice
