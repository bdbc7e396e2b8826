// A SYN that waits for its server: what a client sees of a destination is what it would have seen without the relay.

#include "relay_lab.h"

using namespace lab;

namespace {

struct Addresses {
  const char* client;
  const char* server;
  const char* beyond;  // behind the server's machine, which knows no way there and says so
};
constexpr Addresses kFour{"198.51.100.2", "203.0.113.2", "203.0.113.200"};
constexpr Addresses kSix{"2001:db8:1::2", "2001:db8:2::2", "2001:db8:3::1"};

RelaySettings holding() {
  RelaySettings settings;
  settings.hold = true;
  settings.threads = 2;
  return settings;
}

// errno of connect(2), 0 when it went well.
int tryConnect(const Endpoint& server) {
  const Descriptor fd = socketFor(server);
  return connect(fd.get(), server.raw(), server.size()) == 0 ? 0 : errno;
}
int tryFrom(const Namespace& where, const Endpoint& server) {
  int error = 0;
  where.inside([&] { error = tryConnect(server); });
  return error;
}

void talk(const Descriptor& listener, const Descriptor& client) {
  const Descriptor accepted = acceptFrom(listener);
  const std::string up = noise(1U << 20U, 1), down = noise(1U << 20U, 2);
  std::thread serving([&] {
    CHECK(readExactly(accepted, up.size()) == up);
    writeAll(accepted, down);
    CHECK_EQ(shutdown(accepted.get(), SHUT_WR), 0);
    CHECK_EQ(readToEnd(accepted), "");
  });
  writeAll(client, up);
  CHECK(readExactly(client, down.size()) == down);
  CHECK_EQ(readToEnd(client), "");  // the server ends first, by the order of events and not by chance
  CHECK_EQ(shutdown(client.get(), SHUT_WR), 0);
  serving.join();
}

void forwarded(const Gateway& gateway, const Addresses& addresses) {
  Relay relay(holding());
  CHECK(*relay.ready().member("holds")->boolean());
  Descriptor listener, client;
  gateway.server->inside([&] { listener = listenAt(at(addresses.server, 8080)); });
  gateway.client->inside([&] { client = connectTo(at(addresses.server, 8080)); });
  talk(listener, client);
  relay.awaitActive(0);
  const auto record = relay.finish();
  checkClosed(record, "finished", "server");
  CHECK_EQ(facts(record, "open").size(), 1U);
  CHECK_EQ(Relay::text(facts(record, "open")[0], "scope"), "forwarded");
  CHECK_EQ(Relay::text(*facts(record, "connected")[0].member("upstream"), "address"), addresses.client);
  CHECK_EQ(payload(record, true), noise(1U << 20U, 1));
}

void notThere(const Gateway& gateway, const Endpoint& server, const std::string& reason, const std::string& by) {
  Relay relay(holding());
  Endpoint direct = server;
  direct.setPort(7080);  // no rule takes it
  const int wanted = tryFrom(*gateway.client, direct);
  CHECK(wanted != 0);
  CHECK_EQ(tryFrom(*gateway.client, server), wanted);
  relay.awaitActive(0);
  const auto record = relay.finish();
  checkClosed(record, reason, by);
  CHECK_EQ(facts(record, "connected").size(), 0U);
}

// Many at once, some to a closed port: nobody's answer goes to another.
void crowd(const Gateway& gateway) {
  Relay relay(holding());
  Descriptor listener;
  gateway.server->inside([&] { listener = listenAt(at("203.0.113.2", 8081)); });
  gateway.client->inside([&] {
    std::vector<Descriptor> open;
    for (int i = 0; i < 200; ++i) {
      const bool there = i % 3 != 0;
      Descriptor fd = socketFor(at("203.0.113.2", 0));
      const Endpoint server = at("203.0.113.2", there ? 8081 : 8082);
      CHECK_EQ(connect(fd.get(), server.raw(), server.size()) == 0 ? 0 : errno, there ? 0 : ECONNREFUSED);
      if (there) open.push_back(std::move(fd));
    }
    for (std::size_t i = 0; i < open.size(); ++i) {
      const Descriptor accepted = acceptFrom(listener);
      writeAll(accepted, "hello");
    }
  });
  relay.awaitActive(0);
  const auto record = relay.finish();
  CHECK_EQ(facts(record, "open").size(), 200U);
  CHECK_EQ(facts(record, "close").size(), 200U);
  CHECK_EQ(facts(record, "connected").size(), 133U);
}

// A client that goes away while its server is silent leaves nothing behind; closing the gate answers the one that waits.
void silent(const Gateway& gateway) {
  Relay relay(holding());
  Descriptor client;
  gateway.client->inside([&] {
    client.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const Endpoint nobody = at("203.0.113.98", 8080);
    CHECK_EQ(connect(client.get(), nobody.raw(), nobody.size()), -1);
    CHECK_EQ(errno, EINPROGRESS);
  });
  relay.awaitActive(1);
  relay.send(R"({"type":"reset"})");
  pollfd waiting{client.get(), POLLOUT, 0};
  CHECK_EQ(poll(&waiting, 1, kPatience * 1000), 1);
  int error = 0;
  socklen_t length = sizeof error;
  CHECK_EQ(getsockopt(client.get(), SOL_SOCKET, SO_ERROR, &error, &length), 0);
  CHECK_EQ(error, ECONNREFUSED);
  relay.awaitActive(0);
  checkClosed(relay.finish(), "gate-closed", "gate");
}

// Nobody ever answers, not even that there is nobody: the client gives up by itself, and the record says what its server was.
void neverAnswers(const Gateway& gateway) {
  const auto once = [] { std::ofstream("/proc/sys/net/ipv4/tcp_syn_retries") << "1"; };  // of both families: given up after 3 s
  once();
  gateway.client->inside(once);
  Relay relay(holding());
  gateway.client->inside([] {
    std::thread other([] { CHECK_EQ(tryConnect(at("2001:db8:2::98", 8080)), ETIMEDOUT); });
    CHECK_EQ(tryConnect(at("203.0.113.98", 8080)), ETIMEDOUT);
    other.join();
  });
  relay.awaitActive(0);
  const auto record = relay.finish();
  const auto closed = facts(record, "close");
  CHECK_EQ(closed.size(), 2U);
  for (const Json& fact : closed) CHECK_EQ(Relay::text(fact, "reason"), "timed-out");
  CHECK_EQ(facts(record, "connected").size(), 0U);
}

void viaGateway() {
  const Gateway gateway(true);
  ip("route add 203.0.113.128/25 via 203.0.113.2");
  ip("-6 route add 2001:db8:3::/64 via 2001:db8:2::2");
  gateway.server->inside([] {
    for (const std::string file : {"ipv4/ip_forward", "ipv6/conf/all/forwarding"}) std::ofstream("/proc/sys/net/" + file) << "1";
    ip("route add unreachable 203.0.113.128/25");
    ip("-6 route add unreachable 2001:db8:3::/64");
  });
  for (const Addresses& addresses : {kFour, kSix}) {
    forwarded(gateway, addresses);
    notThere(gateway, at(addresses.server, 8099), "refused", "server");
    notThere(gateway, at(addresses.beyond, 8080), "unreachable", "none");
  }
  crowd(gateway);
  // Machines that are there and say nothing: looked for in vain, they would be known for missing after three seconds.
  ip("neigh replace 203.0.113.98 lladdr 02:00:00:00:00:98 dev sv0");
  ip("-6 neigh replace 2001:db8:2::98 lladdr 02:00:00:00:00:98 dev sv0");
  silent(gateway);
  neverAnswers(gateway);
}

// How many of two flows, one of them refused, had their program named.
std::size_t ownFlows(const std::string& address) {
  RelaySettings settings = holding();
  settings.attribute = true;
  Relay relay(settings);
  const Descriptor listener = listenAt(at(address, 8080));
  {
    const Descriptor client = connectTo(at(address, 8080));
    talk(listener, client);
  }
  CHECK_EQ(tryConnect(at(address, 8099)), ECONNREFUSED);
  relay.awaitActive(0);
  const auto record = relay.finish();
  CHECK_EQ(facts(record, "close").size(), 2U);
  for (const Json& fact : facts(record, "open")) CHECK_EQ(Relay::text(fact, "scope"), "local");
  const auto named = facts(record, "process");
  for (const Json& fact : named) CHECK_EQ(Relay::number(fact, "pid"), getpid());
  return named.size();
}

void ofThisMachine() {
  std::thread([] {
    becomeMachine(true, true);
    for (const std::string address : {"203.0.113.2", "2001:db8:2::2", "127.0.0.1", "::1"}) {
      // The program was in connect(2) when it was looked for: known for both, the refused one too. But the witness has 50 ms, which a busy machine may not give it every time.
      const std::int64_t until = milliseconds() + kPatience * 1000;
      while (ownFlows(address) != 2) CHECK(milliseconds() < until);
    }
  }).join();
}

// Another holds the log's group: the relay says so and works as without.
void groupTaken() {
  std::thread([] {
    becomeMachine();
    const Relay first(holding());
    CHECK(*first.ready().member("holds")->boolean());
    RelaySettings settings = holding();
    settings.port = 50090;
    const Relay second(settings);
    CHECK(!*second.ready().member("holds")->boolean());
  }).join();
}

}  // namespace

int main() {
  viaGateway();
  ofThisMachine();
  groupTaken();
  return passed();
}
