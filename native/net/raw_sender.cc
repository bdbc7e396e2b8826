#include "net/raw_sender.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <optional>
#include <span>

namespace sluice {
namespace {

Descriptor open(int family, int type, int protocol, std::uint32_t mark) {
  Descriptor fd{::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol)};
  if (fd && mark != 0 && ::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) fd.reset();
  return fd;
}

// The port of a raw address is no port: 0.
void send(const Descriptor& fd, std::span<const std::byte> bytes, const Endpoint& to) {
  Endpoint bare = to;
  bare.setPort(0);
  [[maybe_unused]] const auto sent = ::sendto(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL, bare.raw(), bare.size());  // lost like any packet
}

struct Codes {
  std::uint8_t v4, v6;
};

// What the kernel made of an ICMP error, the other way round: net/ipv4/icmp.c (icmp_err_convert), net/ipv6/icmp.c (tab_unreach).
std::optional<Codes> codesOf(int error) {
  switch (error) {
    case ENETUNREACH: return Codes{0, 0};
    case EHOSTUNREACH: case EHOSTDOWN: case ENETDOWN: return Codes{1, 3};
    case EACCES: case EPERM: return Codes{13, 1};
    case ENOPROTOOPT: return Codes{2, 4};
    default: return std::nullopt;
  }
}

}  // namespace

RawSender::RawSender(std::uint32_t releasedMark, std::uint32_t uplinkMark)
    : raw4_(open(AF_INET, SOCK_RAW, IPPROTO_RAW, uplinkMark)), raw6_(open(AF_INET6, SOCK_RAW, IPPROTO_RAW, uplinkMark)),
      released4_(open(AF_INET, SOCK_RAW, IPPROTO_RAW, releasedMark)), released6_(open(AF_INET6, SOCK_RAW, IPPROTO_RAW, releasedMark)),
      loopback_(open(AF_PACKET, SOCK_DGRAM, 0, releasedMark)), icmp4_(open(AF_INET, SOCK_RAW, IPPROTO_ICMP, uplinkMark)),
      icmp6_(open(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6, uplinkMark)) {
  // Nobody reads what comes in on these, and nothing needs to wait there.
  const int least = 0;
  for (const Descriptor* fd : {&raw4_, &raw6_, &released4_, &released6_, &icmp4_, &icmp6_}) {
    if (*fd) ::setsockopt(fd->get(), SOL_SOCKET, SO_RCVBUF, &least, sizeof least);
  }
}

bool RawSender::good() const { return raw4_ && released4_ && loopback_ && icmp4_; }

void RawSender::release(const Syn& syn, bool local) const {
  if (local) return send(syn.client.v4() ? released4_ : released6_, syn.packet, syn.server);
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(syn.client.v4() ? ETH_P_IP : ETH_P_IPV6);
  to.sll_ifindex = 1;  // lo, in every network namespace
  to.sll_halen = ETH_ALEN;
  [[maybe_unused]] const auto sent =
      ::sendto(loopback_.get(), syn.packet.data(), syn.packet.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to), sizeof to);
}

void RawSender::reset(const Syn& syn) const { send(raw(syn), buildReset(syn), syn.client); }

bool RawSender::unreachable(const Syn& syn, int error) const {
  const auto codes = codesOf(error);
  if (!codes) return false;
  // From this machine's own address, as any router says it.
  send(syn.client.v4() ? icmp4_ : icmp6_, buildUnreachable(syn, syn.client.v4() ? codes->v4 : codes->v6), syn.client);
  return true;
}

}  // namespace sluice
