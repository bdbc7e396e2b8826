#include "net/socket.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <span>

#include "net/socket_options.h"
#include "net/udp_socket.h"

namespace sluice {
namespace {

constexpr auto set = setOption;

constexpr int kBindToIndex = 62;  // SO_BINDTOIFINDEX, asm-generic/socket.h
constexpr int kKeepAliveSeconds = 60;
constexpr int kKeepAliveTries = 127;  // the most there can be (TCP_KEEPCNT, tcp(7)), 75 seconds apart: over two hours

Endpoint wildcard(int family, std::uint16_t port) {
  Endpoint endpoint;
  endpoint.storage.ss_family = static_cast<sa_family_t>(family);
  endpoint.setPort(port);
  return endpoint;
}

struct Listener {
  Descriptor socket;
  int error = 0;
  bool opaque = false;  // transparency was what failed
};

Listener openListener(int family, std::uint16_t port, const ListenWish& wish, bool first) {
  Listener result;
  const auto fail = [&]() -> Listener { return Listener{Descriptor{}, errno, false}; };
  Descriptor fd{::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  if (!fd || !set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1)) return fail();
  if (family == AF_INET6 && !set(fd.get(), SOL_IPV6, IPV6_V6ONLY, 1)) return fail();
  // The first of a port binds without SO_REUSEPORT, or two relays of one person would share their flows without knowing.
  if (!first && !set(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) return fail();
  // Bound before it becomes transparent: a transparent socket may be bound to ::1 where there is none.
  const Endpoint address = wish.reach == Reach::kEverywhere ? wildcard(family, port) : loopback(family, port);
  if (::bind(fd.get(), address.raw(), address.size()) != 0) return fail();
  if (first && !set(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) return fail();
  if (wish.mark != 0 && !set(fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(wish.mark))) return fail();
  if (wish.reach == Reach::kTransparent && !setTransparent(fd.get(), family)) return Listener{Descriptor{}, errno, true};
  set(fd.get(), IPPROTO_TCP, TCP_SAVE_SYN, 1);  // a courtesy to servers, as in net/upstream.cc
  // Accepted sockets inherit all of it, which saves a handful of calls a flow.
  if (!armAbrupt(fd.get()) || ::listen(fd.get(), 4096) != 0) return fail();
  result.socket = std::move(fd);
  return result;
}

bool absent(int error) { return error == EADDRNOTAVAIL || error == EAFNOSUPPORT || error == ENOPROTOOPT || error == EPROTONOSUPPORT; }

}  // namespace

bool armAbrupt(int fd) {
  const linger abrupt{1, 0};
  // A program's own keep-alives end at our kernel. So each side has them, often enough for the address translators on its way to remember a silent
  // flow (RFC 5382, 5: two hours; many forget after a few minutes), and as patient with a way that is cut as the kernel's defaults are.
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveSeconds);
  set(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveTries);
  return set(fd, IPPROTO_TCP, TCP_NODELAY, 1) && set(fd, SOL_SOCKET, SO_KEEPALIVE, 1) && set(fd, SOL_SOCKET, SO_OOBINLINE, 1) &&
         ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt) == 0;
}

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

Listeners openListeners(const ListenWish& wish) {
  Listeners result;
  result.failure = Listeners::Failure::kPortTaken;
  result.error = EADDRINUSE;
  for (unsigned candidate = wish.port; candidate <= wish.port + wish.tries && candidate <= 65535; ++candidate) {
    const auto number = static_cast<std::uint16_t>(candidate);
    result.sockets.clear();
    result.ipv6 = wish.ipv6;
    bool taken = wish.udp && !udpPortFree(number, wish.ipv6);
    for (std::size_t thread = 0; thread < wish.threads && !taken; ++thread) {
      auto& pair = result.sockets.emplace_back();
      for (const int family : {AF_INET, AF_INET6}) {
        if (family == AF_INET6 && !result.ipv6) continue;
        Listener listener = openListener(family, number, wish, thread == 0);
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

std::optional<Arrival> arrivalOf(int fd, bool redirected) {
  Arrival result;
  std::array<std::byte, 256> packet;
  socklen_t length = packet.size();
  if (::getsockopt(fd, IPPROTO_TCP, TCP_SAVED_SYN, packet.data(), &length) == 0) {
    if (const auto syn = readSyn(std::span(packet).first(length))) {
      result.look = syn->look;
      result.server = syn->server;
    }
  }
  Endpoint& server = result.server;
  // The packet does not say which link a link-local address is of; the socket does.
  if (!redirected && server.family() != AF_UNSPEC && !server.linkLocal()) return result;
  length = sizeof server.storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&server.storage), &length) != 0) return std::nullopt;
  if (!redirected) return result;
  constexpr int kOriginal = 80;  // SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST: linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h
  length = server.size();
  if (::getsockopt(fd, server.v4() ? SOL_IP : SOL_IPV6, kOriginal, &server.storage, &length) != 0) return std::nullopt;
  return result;
}

void leaveLink(int fd) { setOption(fd, SOL_SOCKET, kBindToIndex, 0); }

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
