#include "witness/diag.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>

#include <cstring>

namespace sluice {

namespace {

void fillAddress(const Endpoint& endpoint, __be32 (&words)[4]) {
  if (endpoint.v4()) {
    std::memcpy(words, &reinterpret_cast<const sockaddr_in&>(endpoint.storage).sin_addr, 4);
  } else {
    std::memcpy(words, &reinterpret_cast<const sockaddr_in6&>(endpoint.storage).sin6_addr, 16);
  }
}

// Whether the reply's address is that endpoint's. A socket of IPv6 that carries IPv4 is found under AF_INET and then described as
// what it is, with mapped addresses.
bool sameAddress(const Endpoint& endpoint, std::uint8_t family, const __be32 (&words)[4]) {
  __be32 own[4] = {0, 0, 0, 0};
  fillAddress(endpoint, own);
  if (family == endpoint.family()) return std::memcmp(own, words, endpoint.v4() ? 4 : 16) == 0;
  return endpoint.v4() && family == AF_INET6 && words[0] == 0 && words[1] == 0 && words[2] == htonl(0xFFFF) && words[3] == own[0];
}

}  // namespace

Endpoint unmapped(const Endpoint& endpoint) {
  if (endpoint.v4()) return endpoint;
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(endpoint.storage);
  if (!IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) return endpoint;
  Endpoint result;
  auto& v4 = reinterpret_cast<sockaddr_in&>(result.storage);
  v4.sin_family = AF_INET;
  v4.sin_port = v6.sin6_port;
  std::memcpy(&v4.sin_addr, v6.sin6_addr.s6_addr + 12, 4);
  return result;
}

std::string encodeDiagRequest(const Endpoint& client, const Endpoint& server, std::uint32_t sequence, bool udp) {
  struct {
    nlmsghdr header;
    inet_diag_req_v2 body;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.header.nlmsg_seq = sequence;
  request.body.sdiag_family = static_cast<std::uint8_t>(client.family());
  request.body.sdiag_protocol = udp ? IPPROTO_UDP : IPPROTO_TCP;
  request.body.idiag_states = ~0U;
  const Endpoint& source = udp ? server : client;
  const Endpoint& destination = udp ? client : server;
  request.body.id.idiag_sport = htons(source.port());
  request.body.id.idiag_dport = htons(destination.port());
  fillAddress(source, request.body.id.idiag_src);
  fillAddress(destination, request.body.id.idiag_dst);
  if (!client.v4()) request.body.id.idiag_if = reinterpret_cast<const sockaddr_in6&>(server.storage).sin6_scope_id;
  request.body.id.idiag_cookie[0] = request.body.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  return {reinterpret_cast<const char*>(&request), sizeof request};
}

std::optional<SocketFacts> decodeDiagReply(std::span<const std::byte> reply, const Endpoint& client, const Endpoint& server, std::uint32_t sequence, bool udp) {
  nlmsghdr header;
  inet_diag_msg body;
  if (reply.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, reply.data(), sizeof header);
  if (header.nlmsg_len > reply.size() || header.nlmsg_len < NLMSG_HDRLEN + sizeof body) return std::nullopt;
  if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY || header.nlmsg_seq != sequence) return std::nullopt;
  std::memcpy(&body, reply.data() + NLMSG_HDRLEN, sizeof body);
  if (udp) {
    // The program's own end; it need not be connected, nor bound to an address.
    const auto nowhere = [](const __be32 (&words)[4]) { return (words[0] | words[1] | words[2] | words[3]) == 0; };
    if (body.id.idiag_sport != htons(client.port())) return std::nullopt;
    if (body.id.idiag_dport != 0 && body.id.idiag_dport != htons(server.port())) return std::nullopt;
    if (!nowhere(body.id.idiag_src) && !sameAddress(client, body.idiag_family, body.id.idiag_src)) return std::nullopt;
    return SocketFacts{body.idiag_inode, body.idiag_uid};
  }
  // Port 0 is nobody's, so the kernel has found who listens, on that address or on all; else it has not found what was asked for.
  const bool listens = body.idiag_state == TCP_LISTEN;
  if (listens != (server.port() == 0)) return std::nullopt;
  if (listens) return body.id.idiag_sport == htons(client.port()) ? std::optional(SocketFacts{body.idiag_inode, body.idiag_uid}) : std::nullopt;
  if (body.id.idiag_sport != htons(client.port()) || body.id.idiag_dport != htons(server.port())) return std::nullopt;
  if (!sameAddress(client, body.idiag_family, body.id.idiag_src) || !sameAddress(server, body.idiag_family, body.id.idiag_dst)) return std::nullopt;
  return SocketFacts{body.idiag_inode, body.idiag_uid};
}

}  // namespace sluice
