// Asking the kernel for one socket of TCP or UDP: NETLINK_SOCK_DIAG, inet_diag_req_v2 without NLM_F_DUMP (linux/inet_diag.h, sock_diag(7)).
// The exact question costs microseconds however many sockets there are, and needs no privilege.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "net/endpoint.h"

namespace sluice {

struct SocketFacts { std::uint32_t inode, uid; };  // inode 0: the program has closed it already

// The IPv4 endpoint inside an IPv4-mapped one (RFC 4291, 2.5.5.2), else the same: the kernel files such a socket under AF_INET.
Endpoint unmapped(const Endpoint& endpoint);

// `server` with port 0: who listens at `client`.
// UDP is looked up as a packet would be that the server sends to the client: the other way round the relay's own socket is found.
std::string encodeDiagRequest(const Endpoint& client, const Endpoint& server, std::uint32_t sequence, bool udp = false);

// The answer to it. None: an error, another socket (the kernel falls back to a listener on the same port), or not a reply to `sequence`.
std::optional<SocketFacts> decodeDiagReply(std::span<const std::byte> reply, const Endpoint& client, const Endpoint& server, std::uint32_t sequence, bool udp = false);

}  // namespace sluice
