#include "net/upstream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "net/descriptor_room.h"
#include "net/own_ports.h"
#include "net/socket_options.h"
#include "net/udp_message.h"
#include "net/udp_socket.h"

namespace sluice {
namespace {

// A connection looks like its client's: each is a courtesy, so a kernel that refuses one is let be.
void imitate(int fd, const UpstreamRequest& request) {
  const bool v4 = request.server.v4();
  const auto [tos, hops, mss] = request.look;
  if (tos != 0) setOption(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_TOS : IPV6_TCLASS, tos);
  // A router takes one hop away. What arrived with the last one is not ours to judge: the kernel's router part would have dropped it.
  const int left = request.local || request.ownServer ? hops : hops - 1;
  if (left > 0) setOption(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_TTL : IPV6_UNICAST_HOPS, left);
  if (mss >= 88 && mss <= 32767) setOption(fd, IPPROTO_TCP, TCP_MAXSEG, mss);  // what Linux accepts; loopback's own is larger
}

// That one and no other, if it is free. A kernel before 6.3 chooses by itself.
void askForPort(int fd, std::uint16_t port) {
  if (port != 0) setOption(fd, SOL_IP, kLocalPortRange, static_cast<int>(std::uint32_t{port} << 16U | port));
}

// Makes a socket, binds it and connects it. `make` gives one of the transport, not yet marked; -1 with errno else.
// With a port of our own (net/own_ports.h): asked for of connect(), or, `binds` times, tried in bind(). `fits`: whether a port that the kernel chose will do.
template <typename Make, typename Prepare, typename Fits>
Upstream reach(const UpstreamRequest& request, bool deal, int binds, Make make, Prepare prepare, Fits fits) {
  const int family = request.server.family();
  const bool spoof = request.spoof && !request.local;
  // Towards a service here the client's port is the relay's other connection's.
  bool exact = spoof && request.keepPort && !request.ownServer;
  std::vector<Upstream> unfit;  // keep their ports away from the next try; where there is no other, the first one has to do
  const auto done = [&](Upstream result) {
    if (result.fd < 0 && !unfit.empty()) std::swap(result, unfit.front());
    for (const Upstream& other : unfit) {
      if (other.fd >= 0) ::close(other.fd);
    }
    return result;
  };
  for (int attempt = 0;; ++attempt) {
    Upstream result;
    const auto fail = [&] {
      result.error = errno;
      return done(result);
    };
    Descriptor fd = make(family);
    if (!fd) return fail();
    if (request.mark != 0 && !setOption(fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(request.mark))) return fail();
    if (spoof || request.local) {
      // Without a port now, connect() chooses one that is free for this destination, not one that is free for all.
      if (spoof && !setTransparent(fd.get(), family)) return fail();
      // With SO_REUSEADDR one port may lead to several servers.
      exact ? setOption(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1) : setOption(fd.get(), SOL_IP, kBindAddressNoPort, 1);
      if (spoof && deal && !exact) askForPort(fd.get(), ownTcpPorts().next(request.client, request.server));
      Endpoint source = request.client;
      if (!exact) source.setPort(spoof && binds > 0 ? ownUdpPorts().next(request.client, request.server) : std::uint16_t{0});
      // A local program's address may have gone meanwhile; the route's own choice is right then.
      if (::bind(fd.get(), source.raw(), source.size()) != 0 && spoof) {
        if (!std::exchange(exact, false) && --binds < 0) return fail();
        continue;  // somebody here has that port
      }
    }
    prepare(fd.get());
    if (::connect(fd.get(), request.server.raw(), request.server.size()) == 0) {
      result.connected = true;
    } else if (errno != EINPROGRESS) {
      if (!std::exchange(exact, false) && !(errno == EADDRNOTAVAIL && spoof && std::exchange(deal, false))) return fail();
      continue;  // the same connection is still there, or ended lately; what else it may be shows at the next try
    }
    socklen_t length = sizeof result.local.storage;
    if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&result.local.storage), &length) != 0) return fail();
    result.fd = fd.release();
    const bool fit = exact || (spoof ? result.local.port() != request.client.port() : fits(result.local));
    if (fit || attempt >= 5) return done(result);
    unfit.push_back(result);
  }
}

Descriptor makeStream(int family) {
  Descriptor fd = flowDescriptor(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd && !armAbrupt(fd.get())) fd.reset();
  return fd;
}

}  // namespace

Upstream openUpstream(const UpstreamRequest& request) {
  return reach(request, true, 0, makeStream, [&](int fd) {
    imitate(fd, request);
    if (!request.server.v4()) setOption(fd, SOL_IPV6, IPV6_RECVTCLASS, 1);
    if (request.lateAck) setOption(fd, IPPROTO_TCP, TCP_QUICKACK, 0);
  }, [](const Endpoint&) { return true; });
}

void ackNow(int fd) { setOption(fd, IPPROTO_TCP, TCP_QUICKACK, 1); }

void answerInKind(int upstream, int client) {
  constexpr int kOptionsOfLast = 6;  // IPV6_2292PKTOPTIONS, linux/in6.h: what recvmsg(2) would say of the packet that came last
  alignas(cmsghdr) std::byte control[128];
  socklen_t length = sizeof control;
  if (::getsockopt(upstream, SOL_IPV6, kOptionsOfLast, control, &length) != 0) return;
  // Asked no longer: the kernel would keep a copy of every packet for it.
  setOption(upstream, SOL_IPV6, IPV6_RECVTCLASS, 0);
  const std::uint8_t tos = parseUdpControl({control, length}).tos;
  if (tos != 0) setOption(client, SOL_IPV6, IPV6_TCLASS, tos);
}

Upstream openUdpUpstream(const UpstreamRequest& request, const std::function<bool(const Endpoint&)>& fits) {
  return reach(request, false, 4, makeUdpFlowSocket, [](int) {}, fits);
}

Upstream openProxy(const Endpoint& proxy, std::uint32_t mark) {
  Upstream result;
  Descriptor fd = flowDescriptor(::socket(proxy.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  socklen_t length = sizeof result.local.storage;
  if (!fd || !armAbrupt(fd.get()) || (mark != 0 && !setOption(fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(mark)))) {
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
  Descriptor fd = flowDescriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
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

}  // namespace sluice
