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
  // fe80::/10: an address that means something together with its interface alone.
  [[nodiscard]] bool linkLocal() const { return family() == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr); }
  [[nodiscard]] std::uint32_t scope() const { return v4() ? 0 : reinterpret_cast<const sockaddr_in6&>(storage).sin6_scope_id; }  // index of that interface; 0: none
  void setScope(std::uint32_t interface) { reinterpret_cast<sockaddr_in6&>(storage).sin6_scope_id = interface; }                // IPv6 alone
  bool operator==(const Endpoint& other) const;       // family, address, port (and scope id)
};

enum class Direction : std::uint8_t { kUp = 0, kDown = 1 };  // up: client to server

}  // namespace sluice
