#include "net/socket.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "net/socket_options.h"
#include "net/udp_socket.h"

namespace sluice {
namespace {

constexpr auto set = setOption;

// A process that dies must look like a reset and never like a clean end of data, so linger is armed as long as a socket lives. It is
// not taken back: an orderly end closes a socket whose both directions the kernel has ended already, and such a close sends nothing.
bool arm(int fd) {
  const linger abrupt{1, 0};
  return set(fd, IPPROTO_TCP, TCP_NODELAY, 1) && set(fd, SOL_SOCKET, SO_KEEPALIVE, 1) && set(fd, SOL_SOCKET, SO_OOBINLINE, 1) &&
         ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt) == 0;
}

struct Listener {
  Descriptor socket;
  int error = 0;
  bool opaque = false;  // transparency was what failed
};

Listener openListener(int family, std::uint16_t port, bool first) {
  Listener result;
  const auto fail = [&]() -> Listener { return Listener{Descriptor{}, errno, false}; };
  Descriptor fd{::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  if (!fd || !set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1)) return fail();
  if (family == AF_INET6 && !set(fd.get(), SOL_IPV6, IPV6_V6ONLY, 1)) return fail();
  // The first of a port binds without SO_REUSEPORT, or two relays of one person would share their flows without knowing.
  if (!first && !set(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) return fail();
  // Bound before it becomes transparent: a transparent socket may be bound to ::1 where there is none.
  const Endpoint address = loopback(family, port);
  if (::bind(fd.get(), address.raw(), address.size()) != 0) return fail();
  if (first && !set(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) return fail();
  if (!setTransparent(fd.get(), family)) return Listener{Descriptor{}, errno, true};
  // Accepted sockets inherit all of it, which saves a handful of calls a flow.
  if (!arm(fd.get()) || ::listen(fd.get(), 4096) != 0) return fail();
  result.socket = std::move(fd);
  return result;
}

bool absent(int error) { return error == EADDRNOTAVAIL || error == EAFNOSUPPORT || error == ENOPROTOOPT || error == EPROTONOSUPPORT; }

}  // namespace

Endpoint loopback(int family, std::uint16_t port) {
  Endpoint endpoint;
  if (family == AF_INET) {
    auto& address = reinterpret_cast<sockaddr_in&>(endpoint.storage);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
  } else {
    auto& address = reinterpret_cast<sockaddr_in6&>(endpoint.storage);
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    address.sin6_port = htons(port);
  }
  return endpoint;
}

Listeners openListeners(std::uint16_t port, unsigned tries, bool ipv6, std::size_t threads, bool udp) {
  Listeners result;
  result.failure = Listeners::Failure::kPortTaken;
  result.error = EADDRINUSE;
  for (unsigned candidate = port; candidate <= port + tries && candidate <= 65535; ++candidate) {
    const auto number = static_cast<std::uint16_t>(candidate);
    result.sockets.clear();
    result.ipv6 = ipv6;
    bool taken = udp && !udpPortFree(number, ipv6);
    for (std::size_t thread = 0; thread < threads && !taken; ++thread) {
      auto& pair = result.sockets.emplace_back();
      for (const int family : {AF_INET, AF_INET6}) {
        if (family == AF_INET6 && !result.ipv6) continue;
        Listener listener = openListener(family, number, thread == 0);
        if (listener.socket) {
          pair[family == AF_INET ? 0 : 1] = std::move(listener.socket);
        } else if (listener.error == EADDRINUSE) {
          taken = true;
          break;
        } else if (family == AF_INET6 && thread == 0 && absent(listener.error)) {
          result.ipv6 = false;
        } else {
          result.sockets.clear();
          result.failure = listener.opaque ? Listeners::Failure::kNoTransparent : Listeners::Failure::kOther;
          result.error = listener.error;
          return result;
        }
      }
    }
    if (taken) continue;
    result.port = number;
    result.failure = Listeners::Failure::kNone;
    result.error = 0;
    return result;
  }
  result.sockets.clear();
  return result;
}

namespace {

// A connection looks like its client's: each is a courtesy, so a kernel that refuses one is let be.
void imitate(int fd, const UpstreamRequest& request, bool forwarded) {
  const bool v4 = request.server.v4();
  if (request.tos != 0) set(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_TOS : IPV6_TCLASS, request.tos);
  if (!forwarded) return;
  // A router takes one hop away. What arrived with the last one is not ours to judge: the kernel's router part would have dropped it.
  if (request.hops > 1) set(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_TTL : IPV6_UNICAST_HOPS, request.hops - 1);
  if (request.mss >= 88 && request.mss <= 32767) set(fd, IPPROTO_TCP, TCP_MAXSEG, request.mss);  // what Linux accepts
}

}  // namespace

Upstream openUpstream(const UpstreamRequest& request) {
  const int family = request.server.family();
  const bool spoof = !request.local && !request.ownServer;
  Endpoint source = request.client;
  source.setPort(0);
  Descriptor refused;  // keeps its port away from the next try
  for (int attempt = 0;; ++attempt) {
    Upstream result;
    const auto fail = [&]() -> Upstream& {
      result.error = errno;
      return result;
    };
    Descriptor fd{::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (!fd || !arm(fd.get())) return fail();
    if (request.mark != 0 && !set(fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(request.mark))) return fail();
    if (spoof || request.local) {
      // Without a port now, connect() chooses one that is free for this destination, not one that is free for all.
      if (spoof && !setTransparent(fd.get(), family)) return fail();
      set(fd.get(), SOL_IP, kBindAddressNoPort, 1);
      // A local program's address may have gone meanwhile; the route's own choice is right then.
      if (::bind(fd.get(), source.raw(), source.size()) != 0 && spoof) return fail();
    }
    imitate(fd.get(), request, !request.local);
    if (::connect(fd.get(), request.server.raw(), request.server.size()) == 0) {
      result.connected = true;
    } else if (errno != EINPROGRESS) {
      return fail();
    }
    socklen_t length = sizeof result.local.storage;
    if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&result.local.storage), &length) != 0) return fail();
    if (spoof && attempt < 4 && result.local.port() == request.client.port()) {
      refused = std::move(fd);
      continue;
    }
    result.fd = fd.release();
    return result;
  }
}

Upstream openProxy(const Endpoint& proxy, std::uint32_t mark) {
  Upstream result;
  Descriptor fd{::socket(proxy.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  socklen_t length = sizeof result.local.storage;
  if (!fd || !arm(fd.get()) || (mark != 0 && !set(fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(mark)))) {
    result.error = errno;
  } else if (::connect(fd.get(), proxy.raw(), proxy.size()) != 0 && errno != EINPROGRESS) {
    result.error = errno;
  } else if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&result.local.storage), &length) != 0) {
    result.error = errno;
  } else {
    result.fd = fd.release();
  }
  return result;
}

Upstream openProxy(const std::string& path) {
  Upstream result;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  Descriptor fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  if (path.size() >= sizeof address.sun_path) {
    result.error = ENAMETOOLONG;
    return result;
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  // A full backlog says EAGAIN at once and never tells when it is not.
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    result.error = errno == EAGAIN ? ECONNREFUSED : errno;
    return result;
  }
  result.connected = true;
  result.fd = fd.release();
  return result;
}

int undelivered(int fd) {
  int bytes = 0;
  return ::ioctl(fd, SIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

int takeError(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

}  // namespace sluice
