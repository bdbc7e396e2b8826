// UDP through this machine: what comes out is what went in, datagram by datagram, and each side sees the other and never the relay.
#include "udp_lab.h"

using namespace lab;

namespace {

struct Addresses {
  const char* client;
  const char* server;
  const char* beyond;       // behind the server's machine, which knows no way there and says so
  const char* narrow;       // behind a link of it that carries 1,300 bytes
};
constexpr Addresses kFour{"198.51.100.2", "203.0.113.2", "203.0.113.200", "203.0.113.70"};
constexpr Addresses kSix{"2001:db8:1::2", "2001:db8:2::2", "2001:db8:3::1", "2001:db8:4::1"};

const std::vector<std::size_t> kSizes = {0, 1, 64, 512, 1200, 1452, 1453, 1472, 1473, 4000, 20000, 65507};

void conversation(const Gateway& gateway, const Addresses& addresses, unsigned threads, std::uint16_t port) {
  Relay relay(withUdp(threads));
  const Endpoint address = at(addresses.server, port);
  const Descriptor server = serveIn(*gateway.server, address);
  const Descriptor client = speakFrom(*gateway.client, address);
  Endpoint seen;
  std::uint64_t bytes = 0;
  for (const std::size_t size : kSizes) {
    const std::string up = noise(size, size + 1), down = noise(size, size + 2);
    say(client, up);
    CHECK(hear(server, &seen) == up);
    CHECK_EQ(seen.address(), addresses.client);
    CHECK(seen.port() != localEnd(client).port());
    sayTo(server, seen, down);
    CHECK(hear(client) == down);
    bytes += size;
  }
  CHECK_EQ(relay.active(), 1);
  setIdle(relay, 1);
  awaitFlows(relay, 0);  // nobody says anything for a second
  const auto record = relay.finish();
  checkClosed(record, "idle", "none");
  const auto open = facts(record, "open");
  CHECK_EQ(Relay::text(open[0], "proto"), "udp");
  CHECK_EQ(Relay::text(open[0], "scope"), "forwarded");
  CHECK_EQ(Relay::number(*open[0].member("client"), "port"), localEnd(client).port());
  CHECK_EQ(Relay::text(*open[0].member("server"), "address"), addresses.server);
  CHECK_EQ(Relay::number(*facts(record, "connected")[0].member("upstream"), "port"), seen.port());
  const auto account = onlyAccount(record);
  for (int way = 0; way < 2; ++way) {
    CHECK_EQ(account.closeDatagrams[way], kSizes.size());
    CHECK_EQ(account.closeBytes[way], bytes);
    CHECK_EQ(account.lost[way], 0U);
  }
}

// All of a burst to a flow that does not exist yet, in order, and back.
void burst(const Gateway& gateway, const Addresses& addresses, std::size_t size) {
  constexpr int kBurst = 500;  // a busy machine's kernel keeps a thousand packets (net.core.netdev_max_backlog) before anybody can read them
  Relay relay(withUdp(2));
  const Endpoint address = at(addresses.server, 8081);
  const Descriptor server = serveIn(*gateway.server, address);
  const Descriptor client = speakFrom(*gateway.client, address);
  const auto text = [&](int index) {
    std::string bytes = noise(size, static_cast<std::uint64_t>(index));
    std::memcpy(bytes.data(), &index, sizeof index);
    return bytes;
  };
  for (int i = 0; i < kBurst; ++i) say(client, text(i));
  Endpoint seen;
  for (int i = 0; i < kBurst; ++i) CHECK(hear(server, &seen) == text(i));
  for (int i = 0; i < kBurst; ++i) sayTo(server, seen, text(i));
  for (int i = 0; i < kBurst; ++i) CHECK(hear(client) == text(i));
  const auto account = onlyAccount(relay.finish());
  CHECK_EQ(account.reason, "gate-closed");
  for (int way = 0; way < 2; ++way) {
    CHECK_EQ(account.closeDatagrams[way], static_cast<std::uint64_t>(kBurst));
    CHECK_EQ(account.closeBytes[way], kBurst * size);
  }
}

// Equal and unequal sizes in quick succession: what may travel as one must come out as it went in.
void mixed(const Gateway& gateway, const Addresses& addresses) {
  Relay relay(withUdp());
  const Endpoint address = at(addresses.server, 8082);
  const Descriptor server = serveIn(*gateway.server, address);
  const Descriptor client = speakFrom(*gateway.client, address);
  std::vector<std::string> sent;
  for (int i = 0; i < 1200; ++i) {
    const std::size_t sizes[] = {64, 64, 64, 63, 64, 0, 0, 1200, 1200, 1200, 1, 1453, 1453, 3000, 3000, 9000};
    sent.push_back(noise(sizes[(static_cast<std::size_t>(i) * 7 / 5) % std::size(sizes)], static_cast<std::uint64_t>(i)));
  }
  for (std::size_t from = 0; from < sent.size(); from += 100) {
    for (std::size_t i = from; i < from + 100; ++i) say(client, sent[i]);
    for (std::size_t i = from; i < from + 100; ++i) CHECK(hear(server) == sent[i]);
  }
  const auto record = relay.finish();
  CHECK_EQ(onlyAccount(record).closeDatagrams[0], sent.size());
  std::size_t index = 0;
  for (const auto& item : record) {
    if (!item.isFact) CHECK(item.packet.payload == sent[index++]);
  }
  CHECK_EQ(index, sent.size());
}

// A client that lets the kernel cut its datagrams (UDP_SEGMENT) and a server that takes many at once (UDP_GRO).
void segments(const Gateway& gateway, const Addresses& addresses) {
  Relay relay(withUdp());
  const Endpoint address = at(addresses.server, 8083);
  const Descriptor server = serveIn(*gateway.server, address);
  const Descriptor client = speakFrom(*gateway.client, address);
  const int size = 1200;
  CHECK_EQ(setsockopt(client.get(), SOL_UDP, 103, &size, sizeof size), 0);
  say(client, "open");
  CHECK_EQ(hear(server), "open");
  const std::string large = noise(30'000, 1);
  say(client, large);
  std::string got;
  for (int i = 0; i < 25; ++i) {
    const std::string piece = hear(server);
    CHECK_EQ(piece.size(), 1200U);
    got += piece;
  }
  CHECK(got == large);
  CHECK_EQ(onlyAccount(relay.finish()).closeDatagrams[0], 26U);
}

void nobodyThere(const Gateway& gateway, const Addresses& addresses) {
  Relay relay(withUdp());
  const Descriptor client = speakFrom(*gateway.client, at(addresses.server, 8099));
  say(client, "anybody?");
  const IcmpSeen seen = awaitIcmp(client);
  CHECK_EQ(seen.error, ECONNREFUSED);
  CHECK_EQ(seen.offender, addresses.server);
  awaitFlows(relay, 0);  // long before its idle time
  checkClosed(relay.finish(), "refused", "server");
}

void noWay(const Gateway& gateway, const Addresses& addresses) {
  Relay relay(withUdp());
  const Descriptor client = speakFrom(*gateway.client, at(addresses.beyond, 8080));
  say(client, "anybody?");
  const IcmpSeen seen = awaitIcmp(client);
  CHECK(seen.error == EHOSTUNREACH || seen.error == ENETUNREACH);
  CHECK(seen.offender == addresses.server);
  awaitFlows(relay, 0);
  checkClosed(relay.finish(), "unreachable", "none");
}

// A link too narrow: the client hears of it as it would alone, with the size that passes.
void narrowLink(const Gateway& gateway, const Addresses& addresses) {
  Relay relay(withUdp());
  const Descriptor client = speakFrom(*gateway.client, at(addresses.narrow, 8080));
  const int always = 2;  // IP_PMTUDISC_DO
  CHECK_EQ(client ? setsockopt(client.get(), addresses.client == kFour.client ? SOL_IP : SOL_IPV6, addresses.client == kFour.client ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER,
                               &always, sizeof always) : -1, 0);
  say(client, noise(1400, 1));
  const IcmpSeen seen = awaitIcmp(client);
  CHECK_EQ(seen.error, EMSGSIZE);
  CHECK_EQ(seen.info, 1300U);
  relay.finish();
}

// The client has gone; the server that goes on answering is told.
void clientGone(const Gateway& gateway, const Addresses& addresses) {
  Relay relay(withUdp());
  const Endpoint address = at(addresses.server, 8084);
  const Descriptor server = serveIn(*gateway.server, address);
  Descriptor client = speakFrom(*gateway.client, address);
  say(client, "hello");
  Endpoint seen;
  CHECK_EQ(hear(server, &seen), "hello");
  client.reset();
  CHECK_EQ(connect(server.get(), seen.raw(), seen.size()), 0);
  say(server, "still there?");
  CHECK_EQ(errorOf(server), ECONNREFUSED);
  relay.finish();
}

// Ports to be refused: at once, as if nobody listened, and nothing reaches the server.
void refusing(const Gateway& gateway, const Addresses& addresses) {
  RelaySettings settings = withUdp();
  settings.refuse = 8443;
  Relay relay(settings);
  const Descriptor server = serveIn(*gateway.server, at(addresses.server, 8443));
  const Descriptor client = speakFrom(*gateway.client, at(addresses.server, 8443));
  const std::string hello = noise(1200, 1);
  say(client, hello);
  const IcmpSeen seen = awaitIcmp(client);
  CHECK_EQ(seen.error, ECONNREFUSED);
  CHECK_EQ(seen.offender, addresses.server);
  const auto record = relay.finish();
  checkClosed(record, "refused", "gate");
  CHECK_EQ(onlyAccount(record).closeDatagrams[0], 1U);
  CHECK(payload(record, true) == hello);
  char byte;
  CHECK(recv(server.get(), &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

// A program of this machine holds the port on all addresses and shares it with nobody: no socket can be bound to the server's address.
void portHeld(const Gateway& gateway, const Addresses& addresses) {
  const Descriptor resolver = serveAt(at(addresses.client == kFour.client ? "0.0.0.0" : "::", 53));
  Relay relay(withUdp());
  const Endpoint address = at(addresses.server, 53);
  const Descriptor server = serveIn(*gateway.server, address);
  const Descriptor client = speakFrom(*gateway.client, address);
  Endpoint seen, answered;
  for (const std::size_t size : kSizes) {
    const std::string up = noise(size, size + 1), down = noise(size, size + 2);
    say(client, up);
    CHECK(hear(server, &seen) == up);
    CHECK_EQ(seen.address(), addresses.client);
    sayTo(server, seen, down);
    CHECK(hear(client, &answered) == down);
    CHECK(answered == address);
  }
  const auto account = onlyAccount(relay.finish());
  for (int way = 0; way < 2; ++way) CHECK_EQ(account.closeDatagrams[way], kSizes.size());
  char byte;
  CHECK(recv(resolver.get(), &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

// The class of service goes with each datagram, both ways.
void service(const Gateway& gateway, const Addresses& addresses) {
  Relay relay(withUdp());
  const Endpoint address = at(addresses.server, 8085);
  checkService(serveIn(*gateway.server, address), speakFrom(*gateway.client, address));
  relay.finish();
}

// Draining: nothing new is taken, and what is relayed goes on through the relay.
void drains(const Gateway& gateway, const Addresses& addresses) {
  Relay relay(withUdp());
  const Endpoint address = at(addresses.server, 8086);
  const Descriptor server = serveIn(*gateway.server, address);
  const Descriptor old = speakFrom(*gateway.client, address);
  say(old, "before");
  Endpoint before, now;
  CHECK_EQ(hear(server, &before), "before");
  run({"nft", "flush", "chain", "inet", "lab", "fwd_port"});
  say(old, "after");
  CHECK_EQ(hear(server, &now), "after");
  CHECK(now == before);
  const Descriptor fresh = speakFrom(*gateway.client, address);
  say(fresh, "direct");
  CHECK_EQ(hear(server, &now), "direct");
  CHECK_EQ(now.port(), localEnd(fresh).port());
  run({"nft", "delete", "table", "inet", "lab"});
  applyTable();
  CHECK_EQ(onlyAccount(relay.finish()).closeDatagrams[0], 2U);
}

// Silence ends each kind in its own time: a name's flow, QUIC's (told by its long header, on whatever port), and the rest.
void idles(const Gateway& gateway, const Addresses& addresses) {
  Relay relay(withUdp());
  std::string quic = noise(1200, 7);
  std::memcpy(quic.data(), "\xC0\x00\x00\x00\x01\x08", 6);  // long header, Initial, version 1
  std::vector<Descriptor> open;
  const std::vector<std::pair<std::uint16_t, std::string>> flows{{8090, "other"}, {8091, quic}, {53, "name"}};
  for (const auto& [port, said] : flows) {
    const Endpoint address = at(addresses.server, port);
    open.push_back(serveIn(*gateway.server, address));
    const Descriptor& server = open.back();
    Descriptor client = speakFrom(*gateway.client, address);
    say(client, said);
    CHECK(hear(server) == said);
    open.push_back(std::move(client));
  }
  awaitFlows(relay, 3);
  setIdle(relay, 60, 60, 1);
  awaitFlows(relay, 2);
  setIdle(relay, 60, 1, 60);
  awaitFlows(relay, 1);
  setIdle(relay, 1, 60, 60);
  awaitFlows(relay, 0);
  std::vector<std::int64_t> ended;
  const auto record = relay.finish();
  for (const auto& close : facts(record, "close")) {
    CHECK_EQ(Relay::text(close, "reason"), "idle");
    ended.push_back(Relay::number(close, "id"));
  }
  CHECK((ended == std::vector<std::int64_t>{3, 2, 1}));
}

// What found no room in a flow's own socket is lost, and the record says how much: nothing of it is missing from the sum.
void overrun(const Gateway& gateway, const Addresses& addresses) {
  constexpr int kMany = 12000;
  Relay relay(withUdp());
  const Endpoint address = at(addresses.server, 8092);
  const Descriptor server = serveIn(*gateway.server, address);
  const Descriptor client = speakFrom(*gateway.client, address);
  say(client, "first");
  CHECK_EQ(hear(server), "first");  // from now on the flow has a socket of its own
  CHECK_EQ(kill(relay.pid(), SIGSTOP), 0);
  siginfo_t stopped{};
  CHECK_EQ(waitid(P_PID, static_cast<id_t>(relay.pid()), &stopped, WSTOPPED | WNOWAIT), 0);
  const std::string datagram = noise(1000, 3);
  for (int i = 0; i < kMany; ++i) say(client, datagram);
  CHECK_EQ(kill(relay.pid(), SIGCONT), 0);
  setIdle(relay, 1);
  awaitFlows(relay, 0);
  const auto account = onlyAccount(relay.finish());
  CHECK(account.lost[0] > 0);
  CHECK_EQ(account.closeDatagrams[0] + account.lost[0], kMany + 1U);
  CHECK_EQ(account.lost[1], 0U);
}

// A reader that stops holds up nobody else, and what it did not take is neither counted as relayed nor forgotten. In sum fewer packets than a busy machine's kernel keeps (see burst).
void slowReader(const Gateway& gateway, const Addresses& addresses) {
  constexpr int kMany = 600, kQuick = 50;
  Relay relay(withUdp());
  const Endpoint still = at(addresses.server, 8093), lively = at(addresses.server, 8094);
  const Descriptor slow = serveIn(*gateway.server, still), quick = serveIn(*gateway.server, lively);
  const Descriptor toSlow = speakTo(still), toQuick = speakTo(lively);
  const std::string block = noise(1200, 1);
  // The flow is there before the flood: what floods the listener before belongs to no flow yet.
  say(toSlow, block);
  CHECK(hear(slow) == block);
  for (int i = 1; i < kMany; ++i) say(toSlow, block);
  Endpoint seen;
  for (int i = 0; i < kQuick; ++i) {
    say(toQuick, "now");
    CHECK_EQ(hear(quick, &seen), "now");
    sayTo(quick, seen, "yes");
    CHECK_EQ(hear(toQuick), "yes");
  }
  for (const auto& [id, account] : capture_reader::accounts(relay.finish())) {
    if (id == 1) CHECK_EQ(account.closeDatagrams[0] + account.lost[0], std::uint64_t{kMany});
    else CHECK_EQ(account.closeDatagrams[0], std::uint64_t{kQuick});
  }
}

}  // namespace

int main() {
  const Gateway gateway;
  ip("route add 203.0.113.128/25 via 203.0.113.2");
  ip("-6 route add 2001:db8:3::/64 via 2001:db8:2::2");
  ip("route add 203.0.113.64/26 via 203.0.113.2");
  ip("-6 route add 2001:db8:4::/64 via 2001:db8:2::2");
  gateway.server->inside([] {
    for (const std::string file : {"ipv4/ip_forward", "ipv6/conf/all/forwarding"}) std::ofstream("/proc/sys/net/" + file) << "1";
    ip("route add unreachable 203.0.113.128/25");
    ip("-6 route add unreachable 2001:db8:3::/64");
    ip("link add narrow type veth peer name narrower");
    ip("link set narrower up");
    ip("link set narrow mtu 1300 up");
    ip("route add 203.0.113.64/26 dev narrow");
    ip("-6 route add 2001:db8:4::/64 dev narrow");
  });
  for (const Addresses& addresses : {kFour, kSix}) {
    conversation(gateway, addresses, 1, 8080);
    conversation(gateway, addresses, 2, 53);
    burst(gateway, addresses, 64);
    burst(gateway, addresses, 1200);
    mixed(gateway, addresses);
    segments(gateway, addresses);
    nobodyThere(gateway, addresses);
    noWay(gateway, addresses);
    narrowLink(gateway, addresses);
    clientGone(gateway, addresses);
    refusing(gateway, addresses);
    portHeld(gateway, addresses);
    service(gateway, addresses);
    drains(gateway, addresses);
    overrun(gateway, addresses);
    slowReader(gateway, addresses);
  }
  idles(gateway, kFour);
  return passed();
}
