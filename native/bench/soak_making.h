// What both ends of the soak's flows know: how bytes are made of a seed, and how it ends when one of them is wrong.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace soak {

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "sluice-soak: %s (errno: %s)\n", what.c_str(), std::strerror(errno));
  std::_Exit(1);
}

// Of this end of a connection.
inline std::uint16_t nearPort(int fd) {
  sockaddr_in6 near{};
  socklen_t length = sizeof near;
  getsockname(fd, reinterpret_cast<sockaddr*>(&near), &length);
  return ntohs(near.sin6_port);  // in the same place in both families
}

inline std::int64_t nowMs() { return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

inline std::uint64_t mix(std::uint64_t value) {  // splitmix64
  value += 0x9E3779B97F4A7C15U;
  value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27U)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31U);
}
// The byte of a stream at a place.
inline std::uint8_t byteAt(std::uint64_t stream, std::uint64_t place) { return static_cast<std::uint8_t>(mix(stream + place / 8) >> (8 * (place % 8))); }

inline sockaddr_in6 parse(const std::string& text, int port, socklen_t& size) {
  sockaddr_in6 six{};
  auto& four = reinterpret_cast<sockaddr_in&>(six);
  if (inet_pton(AF_INET, text.c_str(), &four.sin_addr) == 1) {
    four.sin_family = AF_INET;
    four.sin_port = htons(static_cast<std::uint16_t>(port));
    size = sizeof four;
  } else if (inet_pton(AF_INET6, text.c_str(), &six.sin6_addr) == 1) {
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(static_cast<std::uint16_t>(port));
    size = sizeof six;
  } else {
    fail("not an address: " + text);
  }
  return six;
}

}  // namespace soak
