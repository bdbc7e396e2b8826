// What a server can tell of its client from the packet that opens a connection, and a client of its server's class of service: as without the relay, whether that
// packet was held or not.
#include "net/syn.h"
#include "relay_lab.h"

using namespace lab;

namespace {

constexpr int kTos = 0x48, kAnswer = 0x88, kHops = 33, kSegment = 700;

void set(const Descriptor& fd, int level, int option, int value) { CHECK_EQ(setsockopt(fd.get(), level, option, &value, sizeof value), 0); }
void setTos(const Descriptor& fd, bool v4, int tos) { v4 ? set(fd, SOL_IP, IP_TOS, tos) : set(fd, SOL_IPV6, IPV6_TCLASS, tos); }

Descriptor watchful(const Endpoint& server) {
  Descriptor listener = listenAt(server);
  set(listener, IPPROTO_TCP, TCP_SAVE_SYN, 1);
  return listener;
}

Descriptor peculiar(const Endpoint& server) {
  const bool v4 = server.v4();
  Descriptor client = socketFor(server);
  setTos(client, v4, kTos);
  v4 ? set(client, SOL_IP, IP_TTL, kHops) : set(client, SOL_IPV6, IPV6_UNICAST_HOPS, kHops);
  set(client, IPPROTO_TCP, TCP_MAXSEG, kSegment);
  if (!v4) set(client, SOL_IPV6, IPV6_RECVTCLASS, 1);
  CHECK_EQ(connect(client.get(), server.raw(), server.size()), 0);
  return client;
}

sluice::SynLook lookOf(const Descriptor& accepted) {
  std::byte syn[256];
  socklen_t length = sizeof syn;
  CHECK_EQ(getsockopt(accepted.get(), IPPROTO_TCP, TCP_SAVED_SYN, syn, &length), 0);
  const auto facts = sluice::readSyn({syn, length});
  CHECK(facts.has_value());
  return facts->look;
}

// The traffic class of what a socket of IPv6 received last: IPV6_2292PKTOPTIONS.
int lastClass(const Descriptor& fd) {
  alignas(cmsghdr) char control[128];
  socklen_t length = sizeof control;
  CHECK_EQ(getsockopt(fd.get(), SOL_IPV6, 6, control, &length), 0);
  msghdr header{};
  header.msg_control = control;
  header.msg_controllen = length;
  for (cmsghdr* at = CMSG_FIRSTHDR(&header); at != nullptr; at = CMSG_NXTHDR(&header, at)) {
    if (at->cmsg_level != SOL_IPV6 || at->cmsg_type != IPV6_TCLASS) continue;
    int tos = 0;
    std::memcpy(&tos, CMSG_DATA(at), sizeof tos);
    return tos;
  }
  check::fail(__FILE__, __LINE__, "the kernel says no traffic class");
}

void talk(const Descriptor& client, const Descriptor& accepted, bool v4) {
  writeAll(client, "question");
  CHECK_EQ(readExactly(accepted, 8), "question");
  writeAll(accepted, "answer");
  CHECK_EQ(readExactly(client, 6), "answer");
  if (!v4) CHECK_EQ(lastClass(client), kAnswer);
}

RelaySettings settings(bool hold) {
  RelaySettings wish;
  wish.hold = hold;
  wish.threads = 2;
  return wish;
}

void checkLook(const Descriptor& accepted, int hops) {
  const auto look = lookOf(accepted);
  CHECK_EQ(int{look.tos}, kTos);
  CHECK_EQ(int{look.hops}, hops);
  CHECK_EQ(int{look.mss}, kSegment);
}

void forwarded(const Gateway& gateway, const Endpoint& server, bool hold) {
  Relay relay(settings(hold));
  Descriptor listener, client;
  gateway.server->inside([&] { listener = watchful(server); });
  setTos(listener, server.v4(), kAnswer);
  gateway.client->inside([&] { client = peculiar(server); });
  const Descriptor accepted = acceptFrom(listener);
  checkLook(accepted, kHops - 1);
  talk(client, accepted, server.v4());
  relay.finish();
}

void local(const Endpoint& server, bool hold) {
  Relay relay(settings(hold));
  const Descriptor listener = watchful(server);
  setTos(listener, server.v4(), kAnswer);
  const Descriptor client = peculiar(server);
  const Descriptor accepted = acceptFrom(listener);
  checkLook(accepted, kHops);
  talk(client, accepted, server.v4());
  relay.finish();
}

}  // namespace

int main() {
  for (const bool hold : {false, true}) {
    std::thread([hold] {
      const Gateway gateway(hold);
      for (const char* server : {"203.0.113.2", "2001:db8:2::2"}) forwarded(gateway, at(server, 8080), hold);
    }).join();
    std::thread([hold] {
      becomeMachine(true, hold);
      for (const char* server : {"203.0.113.2", "2001:db8:2::2", "127.0.0.1", "::1"}) local(at(server, 8080), hold);
    }).join();
  }
  return passed();
}
