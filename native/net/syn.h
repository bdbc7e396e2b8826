// The packet that opens a connection, as bytes: read, made again, answered. Pure; bytes are whatever somebody sent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "net/endpoint.h"

namespace sluice {

// What a server sees of how its client is set up.
struct SynLook {
  std::uint8_t tos = 0, hops = 0;          // TTL or hop limit, as it came in; 0: not known
  std::uint16_t mss = 0;                   // 0: the option is missing
};

struct SynFacts {
  Endpoint client, server;
  SynLook look;
};

struct Syn : SynFacts {
  std::uint32_t sequence = 0;
  std::vector<std::byte> packet;           // IP and TCP headers with their options, checksums right, without data (TCP Fast Open sends some; it is sent again)
};

// An IPv4 or IPv6 packet that begins a TCP connection: of SYN, ACK, FIN and RST only SYN. Nothing for anything else, a cut header, a fragment, or
// IPv6 extension headers. RFC 791, RFC 8200, RFC 9293.
std::optional<Syn> parseSyn(std::span<const std::byte> packet);

// The same of such a packet, without making anything of it.
std::optional<SynFacts> readSyn(std::span<const std::byte> packet);

// What a closed port answers: RST and ACK from the server, RFC 9293, 3.10.7.1.
std::vector<std::byte> buildReset(const Syn& syn);

// An ICMP (RFC 792) or ICMPv6 (RFC 4443) "destination unreachable" that quotes the SYN, without IP header. The ICMPv6 checksum is left to the kernel.
std::vector<std::byte> buildUnreachable(const Syn& syn, std::uint8_t code);

}  // namespace sluice
