// What the factories of sockets share. Inside net/ only.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>

#include "net/endpoint.h"

namespace sluice {

inline constexpr int kIpv6Transparent = 75;     // IPV6_TRANSPARENT, linux/in6.h
inline constexpr int kBindAddressNoPort = 24;   // IP_BIND_ADDRESS_NO_PORT, linux/in.h; for IPv6 sockets too, on level SOL_IP

inline constexpr int kLocalPortRange = 51;      // IP_LOCAL_PORT_RANGE, linux/in.h, on the same level; the low end in the low half

inline bool setOption(int fd, int level, int option, int value) { return ::setsockopt(fd, level, option, &value, sizeof value) == 0; }

inline bool setTransparent(int fd, int family) {
  return family == AF_INET ? setOption(fd, SOL_IP, IP_TRANSPARENT, 1) : setOption(fd, SOL_IPV6, kIpv6Transparent, 1);
}

// A process that dies must look like a reset and never like a clean end of data, so linger is armed as long as a socket of TCP lives. It is
// not taken back: an orderly end closes a socket whose both directions the kernel has ended already, and such a close sends nothing.
bool armAbrupt(int fd);

Endpoint loopback(int family, std::uint16_t port);

}  // namespace sluice
