// An address and a port, of either family, as the kernel gives it.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>

namespace sluice {

struct Endpoint {
  sockaddr_storage storage{};

  [[nodiscard]] int family() const { return storage.ss_family; }
  [[nodiscard]] bool v4() const { return family() == AF_INET; }
  [[nodiscard]] std::uint16_t port() const;           // host order
  void setPort(std::uint16_t port);                   // host order
  [[nodiscard]] const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] socklen_t size() const { return v4() ? sizeof(sockaddr_in) : sizeof(sockaddr_in6); }
  [[nodiscard]] std::string address() const;          // "203.0.113.2", "2001:db8::2", without scope id or brackets
  bool operator==(const Endpoint& other) const;       // family, address, port (and scope id)
};

enum class Direction : std::uint8_t { kUp = 0, kDown = 1 };  // up: client to server

}  // namespace sluice
