#include "net/endpoint.h"

#include <arpa/inet.h>

#include <cstring>

namespace sluice {

std::uint16_t Endpoint::port() const {
  // sin_port and sin6_port lie at the same place, but saying so costs nothing.
  if (v4()) return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
  return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
}

void Endpoint::setPort(std::uint16_t port) {
  if (v4()) {
    reinterpret_cast<sockaddr_in*>(&storage)->sin_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port = htons(port);
  }
}

std::string Endpoint::address() const {
  char text[INET6_ADDRSTRLEN] = "";
  const void* bytes = v4() ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr)
                           : static_cast<const void*>(&reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr);
  if (inet_ntop(v4() ? AF_INET : AF_INET6, bytes, text, sizeof text) == nullptr) return {};
  return text;
}

bool Endpoint::operator==(const Endpoint& other) const {
  if (family() != other.family()) return false;
  if (v4()) {
    const auto& left = reinterpret_cast<const sockaddr_in&>(storage);
    const auto& right = reinterpret_cast<const sockaddr_in&>(other.storage);
    return left.sin_port == right.sin_port && left.sin_addr.s_addr == right.sin_addr.s_addr;
  }
  const auto& left = reinterpret_cast<const sockaddr_in6&>(storage);
  const auto& right = reinterpret_cast<const sockaddr_in6&>(other.storage);
  // Not the flow label: it is no part of whom one talks to.
  return left.sin6_port == right.sin6_port && left.sin6_scope_id == right.sin6_scope_id &&
         std::memcmp(&left.sin6_addr, &right.sin6_addr, sizeof left.sin6_addr) == 0;
}

}  // namespace sluice
