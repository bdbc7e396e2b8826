// The one place where sockets of the relay are made, so that what makes them transparent, marked and honest about a sudden end
// is decided once.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "net/descriptor.h"
#include "net/endpoint.h"

namespace sluice {

struct Listeners {
  enum class Failure : std::uint8_t { kNone, kPortTaken, kNoTransparent, kOther };

  std::uint16_t port = 0;
  bool ipv6 = false;
  std::vector<std::array<Descriptor, 2>> sockets;  // a thread each: IPv4, IPv6 (empty without)
  Failure failure = Failure::kNone;
  int error = 0;                                   // errno behind `failure`
};

// Listens on 127.0.0.1 and, where wanted and there, ::1, both on the first of port, port+1 .. port+tries on which nobody else listens.
// Loopback and not the wildcard: a transparent wildcard listener takes every flow through the machine to its port number. `udp`: the port is
// to be free for UDP too (net/udp_socket.h listens there).
Listeners openListeners(std::uint16_t port, unsigned tries, bool ipv6, std::size_t threads, bool udp = false);

struct UpstreamRequest {
  const Endpoint& client;
  const Endpoint& server;
  bool local = false;        // the client is a program of this machine
  bool ownServer = false;    // the server is an address of this machine
  std::uint32_t mark = 0;
  // Of the client's SYN, where it was seen; 0: not known. The server then sees what it would have seen.
  std::uint8_t tos = 0, hops = 0;
  std::uint16_t mss = 0;
};

struct Upstream {
  int fd = -1;               // non-blocking, registered nowhere yet; -1 on failure
  bool connected = false;    // the handshake ended already (loopback)
  int error = 0;             // errno of a failure
  Endpoint local;            // its own end
};

// Begins the connection to the original destination. A forwarded flow leaves with the client's address and a port of its own (the
// client's port too would be one conntrack tuple for two connections); a local one with the address the program had.
Upstream openUpstream(const UpstreamRequest& request);

// Begins a connection to a proxy a person chose: from whatever address the route gives, so that its answers come back here.
Upstream openProxy(const Endpoint& proxy, std::uint32_t mark);
Upstream openProxy(const std::string& path);  // of a unix socket

// What the kernel has not delivered of what was written, its end of stream included. linux/sockios.h, tcp(7).
int undelivered(int fd);

// The error that waits on the socket, taken.
int takeError(int fd);

}  // namespace sluice
