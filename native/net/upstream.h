// The relay's own connections: to servers, and to proxies a person chose.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "net/endpoint.h"
#include "net/syn.h"

namespace sluice {

struct UpstreamRequest {
  const Endpoint& client;
  const Endpoint& server;
  bool local = false;        // the client is a program of this machine
  bool ownServer = false;    // the server is an address of this machine
  bool spoof = true;         // rules bring answers to a client's address here
  std::uint32_t mark = 0;
  bool keepPort = false;     // the server is to see the client's port, too, if it is free; never a reason to fail
  SynLook look{};            // of the client's SYN, where it was seen: the server then sees what it would have seen
  bool lateAck = false;      // TCP: the handshake's last ACK leaves with the first bytes, or at ackNow()
};

struct Upstream {
  int fd = -1;               // non-blocking, registered nowhere yet; -1 on failure
  bool connected = false;    // the handshake ended already (loopback)
  int error = 0;             // errno of a failure
  Endpoint local;            // its own end
};

// Begins the connection to the original destination. A forwarded flow leaves with the client's address and a port of its own (the client's port too
// would be one conntrack tuple for two connections: `keepPort` is for those whose client's side is in a zone of its own); a local one with the address the program had.
Upstream openUpstream(const UpstreamRequest& request);

// What `lateAck` held back leaves, if it has not yet.
void ackNow(int fd);

// The client of a connection over IPv6 is answered with the traffic class that the server answered with. To be called once, when openUpstream()'s is connected.
// Not over IPv4: there the kernel tells a socket what class came in only for the connections it accepted (ip(7) knows no such option for TCP;
// net/ipv4/tcp_ipv4.c sets rcv_tos in tcp_v4_syn_recv_sock() and nowhere else).
void answerInKind(int upstream, int client);

// The same for a flow of UDP: connected at once, its errors told with what ICMP said. `fits`: whether an end that the kernel chose will do; where none does, one that does not is taken.
Upstream openUdpUpstream(const UpstreamRequest& request, const std::function<bool(const Endpoint&)>& fits);

// Begins a connection to a proxy a person chose: from whatever address the route gives, so that its answers come back here.
Upstream openProxy(const Endpoint& proxy, std::uint32_t mark);
Upstream openProxy(const std::string& path);  // of a unix socket

}  // namespace sluice
