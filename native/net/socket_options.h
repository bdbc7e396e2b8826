// What the factories of sockets share. Inside net/ only.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>

#include "net/endpoint.h"

namespace sluice {

inline constexpr int kIpv6Transparent = 75;     // IPV6_TRANSPARENT, linux/in6.h
inline constexpr int kBindAddressNoPort = 24;   // IP_BIND_ADDRESS_NO_PORT, linux/in.h; for IPv6 sockets too, on level SOL_IP

inline bool setOption(int fd, int level, int option, int value) { return ::setsockopt(fd, level, option, &value, sizeof value) == 0; }

inline bool setTransparent(int fd, int family) {
  return family == AF_INET ? setOption(fd, SOL_IP, IP_TRANSPARENT, 1) : setOption(fd, SOL_IPV6, kIpv6Transparent, 1);
}

Endpoint loopback(int family, std::uint16_t port);

}  // namespace sluice
