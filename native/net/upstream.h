// The relay's own connections: to servers, and to proxies a person chose.
#pragma once

#include <cstdint>
#include <string>

#include "net/endpoint.h"

namespace sluice {

struct UpstreamRequest {
  const Endpoint& client;
  const Endpoint& server;
  bool local = false;        // the client is a program of this machine
  bool ownServer = false;    // the server is an address of this machine
  bool spoof = true;         // rules bring answers to a client's address here
  std::uint32_t mark = 0;
  bool keepPort = false;     // the server is to see the client's port, too, if it is free; never a reason to fail
  // Of the client's SYN, where it was seen; 0: not known. The server then sees what it would have seen.
  std::uint8_t tos = 0, hops = 0;
  std::uint16_t mss = 0;
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

// The same for a flow of UDP: connected at once, its errors told with what ICMP said.
Upstream openUdpUpstream(const UpstreamRequest& request);

// Begins a connection to a proxy a person chose: from whatever address the route gives, so that its answers come back here.
Upstream openProxy(const Endpoint& proxy, std::uint32_t mark);
Upstream openProxy(const std::string& path);  // of a unix socket

}  // namespace sluice
