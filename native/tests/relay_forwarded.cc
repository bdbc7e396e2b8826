// Flows through this machine: the server sees the client's address, the client the server's, and neither the relay's.
#include "relay_lab.h"

using namespace lab;

namespace {

struct Addresses {
  const char* client;
  const char* server;
  const char* beyond;       // behind the server's machine, which knows no way there and says so
};
constexpr Addresses kFour{"198.51.100.2", "203.0.113.2", "203.0.113.200"};
constexpr Addresses kSix{"2001:db8:1::2", "2001:db8:2::2", "2001:db8:3::1"};

Descriptor connectFrom(const Namespace& where, const Endpoint& server) {
  Descriptor fd;
  where.inside([&] { fd = connectTo(server); });
  return fd;
}

void conversation(const Gateway& gateway, const Addresses& addresses) {
  RelaySettings settings;
  settings.threads = 2;
  Relay relay(settings);
  const Endpoint server = at(addresses.server, 8080);
  Descriptor listener;
  gateway.server->inside([&] { listener = listenAt(server); });
  Descriptor client = connectFrom(*gateway.client, server);
  Endpoint seen;
  Descriptor accepted = acceptFrom(listener, &seen);
  CHECK_EQ(seen.address(), addresses.client);
  CHECK(seen.port() != localEnd(client).port());  // one conntrack tuple for two connections otherwise
  const std::string up = noise(3U << 20U, 1), down = noise(3U << 20U, 2);
  std::thread serving([&] {
    CHECK(readToEnd(accepted) == up);
    writeAll(accepted, down);
    accepted.reset();
  });
  writeAll(client, up);
  CHECK_EQ(shutdown(client.get(), SHUT_WR), 0);
  CHECK(readToEnd(client) == down);
  serving.join();
  relay.awaitActive(0);
  const auto record = relay.finish();
  checkClosed(record, "finished", "client");
  const auto open = facts(record, "open");
  CHECK_EQ(Relay::text(open[0], "scope"), "forwarded");
  CHECK_EQ(Relay::text(*open[0].member("client"), "address"), addresses.client);
  CHECK_EQ(Relay::number(*open[0].member("client"), "port"), localEnd(client).port());
  const auto connected = facts(record, "connected");
  CHECK_EQ(connected.size(), 1U);
  CHECK_EQ(Relay::text(*connected[0].member("upstream"), "address"), addresses.client);
  CHECK_EQ(Relay::number(*connected[0].member("upstream"), "port"), seen.port());
}

void resets(const Gateway& gateway, const Addresses& addresses) {
  Relay relay;
  const Endpoint server = at(addresses.server, 8080);
  Descriptor listener;
  gateway.server->inside([&] { listener = listenAt(server); });
  {
    Descriptor client = connectFrom(*gateway.client, server);
    const Descriptor accepted = acceptFrom(listener);
    resetOnClose(client);
    client.reset();
    CHECK_EQ(readToError(accepted), ECONNRESET);
  }
  {
    const Descriptor client = connectFrom(*gateway.client, server);
    Descriptor accepted = acceptFrom(listener);
    resetOnClose(accepted);
    accepted.reset();
    CHECK_EQ(readToError(client), ECONNRESET);
  }
  relay.awaitActive(0);
  const auto closed = facts(relay.finish(), "close");
  CHECK_EQ(closed.size(), 2U);
  CHECK_EQ(Relay::text(closed[0], "reason"), "client-reset");
  CHECK_EQ(Relay::text(closed[1], "reason"), "server-reset");
}

void notThere(const Gateway& gateway, const Endpoint& server, const std::string& reason, const std::string& by) {
  Relay relay;
  int told = 0;
  gateway.client->inside([&] { told = refusal(server); });
  CHECK_EQ(told, ECONNRESET);
  relay.awaitActive(0);
  const auto record = relay.finish();
  checkClosed(record, reason, by);
  CHECK_EQ(facts(record, "connected").size(), 0U);
}

// The client gives up while the server is still being looked for.
void clientLeavesEarly(const Gateway& gateway) {
  Relay relay;
  Descriptor client = connectFrom(*gateway.client, at("203.0.113.98", 8080));
  relay.awaitActive(1);
  resetOnClose(client);
  client.reset();
  relay.awaitActive(0);
  checkClosed(relay.finish(), "client-reset", "client");
}

// A service of the gateway itself: it sees its client, and its answers must not go there past the relay.
void ownService(const Gateway& gateway) {
  Relay relay;
  const Descriptor listener = listenAt(at("203.0.113.1", 8080));
  Descriptor client = connectFrom(*gateway.client, at("203.0.113.1", 8080));
  Endpoint seen;
  const Descriptor accepted = acceptFrom(listener, &seen);
  CHECK_EQ(seen.address(), "198.51.100.2");
  writeAll(client, "who is there");
  CHECK_EQ(readExactly(accepted, 12), "who is there");
  writeAll(accepted, "me");
  CHECK_EQ(readExactly(client, 2), "me");
  const auto opened = facts(relay.finish(), "open");
  CHECK_EQ(opened.size(), 1U);
  CHECK_EQ(Relay::text(opened[0], "scope"), "incoming");
}

// An address that arrives while the relay runs makes its flows local ones.
void addressArrives() {
  Relay relay;
  const Descriptor listener = listenAt(at("203.0.113.1", 8080));
  const auto talk = [&](const std::string& from) {
    Descriptor client = socketFor(at(from, 0));
    const Endpoint source = at(from, 0);
    CHECK_EQ(bind(client.get(), source.raw(), source.size()), 0);
    CHECK_EQ(connect(client.get(), at("203.0.113.1", 8080).raw(), sizeof(sockaddr_in)), 0);
    const Descriptor accepted = acceptFrom(listener);
    writeAll(client, "x");
    CHECK_EQ(readExactly(accepted, 1), "x");
  };
  talk("203.0.113.1");
  ip("addr add 198.51.100.77/32 dev lo");
  relay.ping();  // the announcement was read in the round before this answer
  talk("198.51.100.77");
  relay.awaitActive(0);
  for (const Json& fact : facts(relay.finish(), "open")) CHECK_EQ(Relay::text(fact, "scope"), "local");
}

}  // namespace

int main() {
  const Gateway gateway;
  ip("route add 203.0.113.128/25 via 203.0.113.2");
  ip("-6 route add 2001:db8:3::/64 via 2001:db8:2::2");
  gateway.server->inside([] {
    for (const std::string file : {"ipv4/ip_forward", "ipv6/conf/all/forwarding"}) std::ofstream("/proc/sys/net/" + file) << "1";
    ip("route add unreachable 203.0.113.128/25");
    ip("-6 route add unreachable 2001:db8:3::/64");
  });
  for (const Addresses& addresses : {kFour, kSix}) {
    conversation(gateway, addresses);
    resets(gateway, addresses);
    notThere(gateway, at(addresses.server, 8099), "refused", "server");
    notThere(gateway, at(addresses.beyond, 8080), "unreachable", "none");
  }
  // Machines that are there and say nothing: looked for in vain, they would be known for missing after three seconds.
  ip("neigh replace 203.0.113.98 lladdr 02:00:00:00:00:98 dev sv0");
  ip("-6 neigh replace 2001:db8:2::98 lladdr 02:00:00:00:00:98 dev sv0");
  clientLeavesEarly(gateway);
  // Nobody ever answers. Both families give up after 3 s by this.
  std::ofstream("/proc/sys/net/ipv4/tcp_syn_retries") << "1";
  for (const std::string address : {"203.0.113.98", "2001:db8:2::98"}) notThere(gateway, at(address, 8080), "timed-out", "none");
  ownService(gateway);
  addressArrives();
  return passed();
}
