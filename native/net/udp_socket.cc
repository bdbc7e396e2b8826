#include "net/udp_socket.h"

#include <time.h>
#include <linux/errqueue.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <cerrno>

#include "net/descriptor_room.h"
#include "net/socket_options.h"

namespace sluice {
namespace {

constexpr int kRecvOrigDestination4 = 20, kRecvOrigDestination6 = 74;  // IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR: linux/in.h, linux/in6.h
constexpr int kMemInfo = 55;                                           // SO_MEMINFO, asm-generic/socket.h
constexpr int kUdpGro = 104;                                           // UDP_GRO, linux/udp.h
constexpr int kListenerBuffer = 8 << 20, kFlowBuffer = 4 << 20;        // bytes; a limit, not a reservation

void enlarge(int fd, int bytes) {
  if (!setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, bytes)) setOption(fd, SOL_SOCKET, SO_RCVBUF, bytes);
}

bool tellTos(int fd, int family) {
  return family == AF_INET ? setOption(fd, SOL_IP, IP_RECVTOS, 1) : setOption(fd, SOL_IPV6, IPV6_RECVTCLASS, 1);
}

// Of a flow's sockets, both sides. Errors come with what ICMP said; large sends and receives are asked for where the kernel has them.
bool prepare(int fd, int family) {
  if (!(family == AF_INET ? setOption(fd, SOL_IP, IP_RECVERR, 1) : setOption(fd, SOL_IPV6, IPV6_RECVERR, 1))) return false;
  if (!tellTos(fd, family)) return false;
  setOption(fd, SOL_UDP, kUdpGro, 1);
  enlarge(fd, kFlowBuffer);
  setOption(fd, SOL_SOCKET, SO_SNDBUF, kFlowBuffer);
  return true;
}

Descriptor datagramSocket(int family) { return Descriptor{::socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)}; }
Descriptor flowSocket(int family) { return flowDescriptor(datagramSocket(family).release()); }

}  // namespace

UdpListeners makeUdpListeners(bool ipv6, std::size_t threads) {
  UdpListeners listeners(threads);
  for (auto& pair : listeners) {
    for (const int family : {AF_INET, AF_INET6}) {
      if (family == AF_INET6 && !ipv6) continue;
      Descriptor fd = datagramSocket(family);
      if (!fd) continue;
      enlarge(fd.get(), kListenerBuffer);
      pair[family == AF_INET ? 0 : 1] = std::move(fd);
    }
  }
  return listeners;
}

bool udpPortFree(std::uint16_t port, bool ipv6) {
  for (const int family : {AF_INET, AF_INET6}) {
    if (family == AF_INET6 && !ipv6) continue;
    const Descriptor fd = datagramSocket(family);
    if (family == AF_INET6) setOption(fd.get(), SOL_IPV6, IPV6_V6ONLY, 1);
    const Endpoint address = loopback(family, port);
    if (fd && ::bind(fd.get(), address.raw(), address.size()) != 0 && errno == EADDRINUSE) return false;
  }
  return true;
}

int bindUdpListeners(UdpListeners& listeners, std::uint16_t port, bool ipv6) {
  bool first = true;
  for (auto& pair : listeners) {
    for (const int family : {AF_INET, AF_INET6}) {
      Descriptor& fd = pair[family == AF_INET ? 0 : 1];
      if (family == AF_INET6 && !ipv6) fd.reset();
      if (!fd) continue;
      if (family == AF_INET6 && !setOption(fd.get(), SOL_IPV6, IPV6_V6ONLY, 1)) return errno;
      // As for TCP: the first of a port binds without SO_REUSEPORT, and before it becomes transparent.
      if (!first && !setOption(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) return errno;
      const Endpoint address = loopback(family, port);
      if (::bind(fd.get(), address.raw(), address.size()) != 0) return errno;
      if (first && !setOption(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) return errno;
      if (!setTransparent(fd.get(), family)) return errno;
      const bool told = family == AF_INET ? setOption(fd.get(), SOL_IP, kRecvOrigDestination4, 1) : setOption(fd.get(), SOL_IPV6, kRecvOrigDestination6, 1);
      if (!told || !tellTos(fd.get(), family)) return errno;
    }
    first = false;
  }
  return 0;
}

Descriptor makeUdpFlowSocket(int family) {
  Descriptor fd = flowSocket(family);
  if (fd && !prepare(fd.get(), family)) fd.reset();
  return fd;
}

Descriptor openUdpClientSide(const Endpoint& client, const Endpoint& server, std::uint32_t mark, int& error) {
  const int family = server.family();
  Descriptor fd = flowSocket(family);
  // SO_REUSEADDR: flows of many clients are bound to one server's address.
  const bool good = fd && setOption(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1) && setTransparent(fd.get(), family) && prepare(fd.get(), family) &&
                    (mark == 0 || setOption(fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(mark))) &&
                    ::bind(fd.get(), server.raw(), server.size()) == 0 && ::connect(fd.get(), client.raw(), client.size()) == 0;
  if (!good) {
    error = errno;
    fd.reset();
  }
  return fd;
}

Descriptor openRawSender(int family, std::uint32_t mark) {
  Descriptor fd{::socket(family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_RAW)};
  if (fd && mark != 0 && !setOption(fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(mark))) fd.reset();
  return fd;
}

std::uint64_t droppedByKernel(int fd) {
  std::uint32_t info[SK_MEMINFO_VARS] = {};
  socklen_t length = sizeof info;
  if (::getsockopt(fd, SOL_SOCKET, kMemInfo, info, &length) != 0 || length <= SK_MEMINFO_DROPS * sizeof info[0]) return 0;
  return info[SK_MEMINFO_DROPS];
}

}  // namespace sluice
