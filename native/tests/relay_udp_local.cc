// UDP of this machine's own programs: to itself, named, bounded, refused, ended; and never round and round.
#include "udp_lab.h"

using namespace lab;

namespace {

const Endpoint kServer4 = at("203.0.113.2", 8080), kServer6 = at("2001:db8:2::2", 8080);

// `shared`: whether the server lets the relay have a socket on its own address; else answers leave as whole packets.
void echo(const Endpoint& address, bool shared) {
  Relay relay(withUdp(2));
  const Descriptor server = serveAt(address, shared);
  {
    const Descriptor client = speakTo(address);
    // What a packet on lo cannot carry in one piece goes past every rule there: the kernel joins such pieces only behind them.
    const std::size_t largest = address.v4() ? 65507 : 65488;
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{1200}, std::size_t{9000}, largest}) {
      const std::string up = noise(size, size + 1), down = noise(size, size + 2);
      Endpoint seen, answered;
      say(client, up);
      CHECK(hear(server, &seen) == up);
      CHECK_EQ(seen.address(), address.address());
      CHECK(seen.port() != localEnd(client).port());
      sayTo(server, seen, down);
      CHECK(hear(client, &answered) == down);
      CHECK(answered == address);
    }
    CHECK_EQ(relay.active(), 1);
  }
  const auto record = relay.finish();
  const auto account = onlyAccount(record);
  CHECK_EQ(account.closeDatagrams[0], 5U);
  CHECK_EQ(account.closeDatagrams[1], 5U);
  CHECK_EQ(account.reason, "gate-closed");
  CHECK_EQ(Relay::text(facts(record, "open")[0], "scope"), "local");
}

// `shared` as above: by a socket of the relay's on the server's address, or as whole packets.
void service(const Endpoint& address, bool shared) {
  Relay relay(withUdp());
  const Descriptor server = serveAt(address, shared);
  checkService(server, speakTo(address));
  relay.finish();
}

void nobodyThere(const Endpoint& address) {
  Relay relay(withUdp());
  const Descriptor client = speakTo(address);
  say(client, "anybody?");
  CHECK_EQ(errorOf(client), ECONNREFUSED);
  awaitFlows(relay, 0);
  checkClosed(relay.finish(), "refused", "server");
}

void refusing(const Endpoint& address) {
  RelaySettings settings = withUdp();
  settings.refuse = address.port();
  Relay relay(settings);
  const Descriptor server = serveAt(address);
  const Descriptor client = speakTo(address);
  for (int i = 0; i < 3; ++i) {
    say(client, "hello");
    CHECK_EQ(errorOf(client), ECONNREFUSED);
  }
  const auto record = relay.finish();
  CHECK_EQ(facts(record, "close").size(), 3U);
  for (const Json& fact : facts(record, "close")) CHECK_EQ(Relay::text(fact, "reason"), "refused");
  char byte;
  CHECK(recv(server.get(), &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}

// Who asked, whether its socket is connected or not: known before the answer reaches it?
bool isNamed(const Endpoint& address, bool connected) {
  RelaySettings settings = withUdp();
  settings.attribute = true;
  Relay relay(settings);
  const Descriptor server = serveAt(address);
  const Descriptor client = connected ? speakTo(address) : datagramSocket(address.family());
  Endpoint seen;
  if (connected) say(client, "who am I");
  else sayTo(client, address, "who am I");
  CHECK_EQ(hear(server, &seen), "who am I");
  sayTo(server, seen, "you");
  CHECK_EQ(hear(client), "you");
  const auto record = relay.finish();
  const auto process = facts(record, "process");
  CHECK(process.size() <= 1);
  for (const Json& fact : process) CHECK_EQ(Relay::number(fact, "pid"), getpid());
  return process.size() == 1 && std::all_of(record.begin(), record.end(), [](const auto& item) {
    return item.isFact || item.wireshark || item.packet.up || item.packet.pid == static_cast<std::uint32_t>(getpid());
  });
}
void named(const Endpoint& address, bool connected) {
  // The witness has 50 ms, which a busy machine may not give it every time.
  const std::int64_t until = milliseconds() + kPatience * 1000;
  while (!isNamed(address, connected)) CHECK(milliseconds() < until);
}

// No room: the flow silent for longest ends, the new one is served; TCP's too.
void sheds() {
  RelaySettings settings = withUdp();
  settings.maxFlows = 4;
  Relay relay(settings);
  const Descriptor server = serveAt(kServer4);
  std::vector<Descriptor> clients;
  Endpoint seen;
  const auto ask = [&](const Descriptor& client) {
    say(client, "x");
    CHECK_EQ(hear(server, &seen), "x");
  };
  for (int i = 0; i < 6; ++i) {
    clients.push_back(speakTo(kServer4));
    ask(clients.back());
  }
  relay.awaitWarning("flows-shed");
  awaitFlows(relay, 4);
  const Descriptor listener = listenAt(kServer4);
  const Descriptor stream = connectTo(kServer4);
  const Descriptor accepted = acceptFrom(listener);
  writeAll(stream, "y");
  CHECK_EQ(readExactly(accepted, 1), "y");
  awaitFlows(relay, 3);
  ask(clients[0]);  // one that was shed is simply a new flow
  const auto record = relay.finish();
  const auto closed = facts(record, "close");
  CHECK_EQ(closed.size(), 8U);
  // In the order of their silence: ids 1, 2, 3, then 4 for the one that came again.
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK_EQ(Relay::text(closed[i], "reason"), "shed");
    CHECK_EQ(Relay::number(closed[i], "id"), static_cast<std::int64_t>(i + 1));
  }
}

// No descriptors: as above.
void fewDescriptors(unsigned threads) {
  const Endpoint address = at("203.0.113.2", static_cast<std::uint16_t>(8094 + threads));
  RelaySettings settings = withUdp(threads);
  settings.descriptors = 64;
  Relay relay(settings);
  const Descriptor server = serveAt(address, true);
  std::vector<Descriptor> clients;
  unsigned passed = 0;
  for (int i = 0; i < 100; ++i) {
    clients.push_back(speakTo(address));
    Endpoint seen;
    say(clients.back(), "x");
    CHECK_EQ(hear(server, &seen), "x");
    sayTo(server, seen, "y");
    CHECK_EQ(hear(clients.back()), "y");
    // A client on a port that a flow shed just now had upstream is let pass by the rules: conntrack still knows it as the relay's.
    if (seen.port() == localEnd(clients.back()).port()) ++passed;
  }
  CHECK(passed < 10);
  relay.awaitWarning("flows-shed");
  const auto record = relay.finish();
  CHECK_EQ(facts(record, "open").size(), 100U - passed);
  CHECK_EQ(facts(record, "close").size(), 100U - passed);
  for (const auto& [id, account] : capture_reader::accounts(record)) CHECK(account.closeDatagrams[0] == 1 && account.closeDatagrams[1] == 1);
}

// A server of its own each time: the kernel remembers the relay's own datagrams for half a minute, and a client that happens on the port one of
// them had would be taken for it and let pass.
void manyEndings(const std::string& order, std::uint16_t port) {
  const Endpoint address = at("203.0.113.2", port);
  constexpr std::size_t kFlows = 500;
  Relay relay(withUdp(2));
  const Descriptor server = serveAt(address, true);
  std::vector<Descriptor> clients;
  for (std::size_t i = 0; i < kFlows; ++i) {
    clients.push_back(speakTo(address));
    say(clients.back(), "x");
    CHECK_EQ(hear(server), "x");
  }
  awaitFlows(relay, static_cast<std::int64_t>(kFlows));  // not those that are active: that ends after five seconds of silence
  if (order == "end of input") relay.hangUp();
  else relay.send("{\"type\":\"" + order + "\"}");
  if (order == "reset") {
    CHECK_EQ(relay.active(), 0);
    say(clients[0], "again");
    CHECK_EQ(hear(server), "again");
    relay.hangUp();
  }
  CHECK_EQ(relay.waitStatus(), 0);
  const auto closed = facts(capture_reader::read(capture_reader::readFile(relay.capture())), "close");
  CHECK_EQ(closed.size(), kFlows + (order == "reset" ? 1 : 0));
  for (const Json& fact : closed) CHECK_EQ(Relay::text(fact, "reason"), "gate-closed");
}

// Each client's answers are its own, over two threads.
void crowd() {
  constexpr int kThreads = 4, kEach = 200;
  Relay relay(withUdp(2));
  const Descriptor server = serveAt(at("203.0.113.2", 8094), true);
  std::thread serving([&] {
    for (int i = 0; i < kThreads * kEach; ++i) {
      Endpoint from;
      const std::string asked = hear(server, &from);
      sayTo(server, from, asked + asked);
    }
  });
  std::vector<std::thread> asking;
  for (int thread = 0; thread < kThreads; ++thread) {
    asking.emplace_back([thread] {
      for (int i = 0; i < kEach; ++i) {
        const Descriptor client = speakTo(at("203.0.113.2", 8094));
        const std::string question = noise(1 + static_cast<std::size_t>(i) * 5, static_cast<std::uint64_t>(thread * 1000 + i));
        say(client, question);
        CHECK(hear(client) == question + question);
      }
    });
  }
  for (std::thread& thread : asking) thread.join();
  serving.join();
  // A client that happens on the port an earlier one had goes on with its flow: not the number of flows is known, but that each datagram is in one, once.
  std::uint64_t asked = 0, answered = 0;
  for (const auto& [id, account] : capture_reader::accounts(relay.finish())) {
    asked += account.closeDatagrams[0];
    answered += account.closeDatagrams[1];
    CHECK_EQ(account.lost[0] + account.lost[1], 0U);
  }
  CHECK_EQ(asked, std::uint64_t{kThreads * kEach});
  CHECK_EQ(answered, asked);
}

// What a server has to say to a flow reaches no later one: the relay takes no port towards it that a flow had lately or, with its program gone, still has. Where there is no other it does.
void lateAnswer(const Endpoint& server, bool gone) {
  const std::string path = "/proc/sys/net/ipv4/ip_local_port_range";
  std::string usual;
  std::getline(std::ifstream(path), usual);
  std::ofstream(path) << "40000 40003";
  Relay relay(withUdp());
  const Descriptor serving = serveAt(server, true);
  std::vector<Descriptor> clients;
  // Of ports of their own: all that the kernel deals are the relay's.
  const auto ask = [&] {
    Descriptor client = datagramSocket(server.family());
    Endpoint own = server, seen;
    own.setPort(static_cast<std::uint16_t>(gone && clients.empty() ? 40000 : 50000 + clients.size()));
    CHECK_EQ(bind(client.get(), own.raw(), own.size()), 0);
    CHECK_EQ(connect(client.get(), server.raw(), server.size()), 0);
    say(client, "x");
    CHECK_EQ(hear(serving, &seen), "x");
    clients.push_back(std::move(client));
    return seen;
  };
  const Endpoint first = ask();
  const Endpoint spent = gone ? localEnd(clients[0]) : first;
  if (gone) {
    clients[0].reset();
  } else {
    setIdle(relay, 1);
    awaitFlows(relay, 0);
    setIdle(relay, 60);
  }
  std::vector<Endpoint> later;
  for (int i = 0; i < (gone ? 2 : 3); ++i) {
    later.push_back(ask());
    CHECK(later.back().port() != spent.port());
  }
  sayTo(serving, first, "late");
  for (std::size_t i = 0; i < later.size(); ++i) {
    sayTo(serving, later[i], "yours");
    CHECK_EQ(hear(clients[i + 1]), "yours");
  }
  CHECK_EQ(ask().port(), spent.port());
  CHECK_EQ(Relay::number(relay.ping(), "total"), gone ? 4 : 5);
  relay.finish();
  std::ofstream(path) << usual;
}

// Speaking to the relay itself is speaking to nobody.
void direct() {
  Relay relay(withUdp());
  const Descriptor client = speakTo(at("127.0.0.1", 50080));
  say(client, "hello");
  CHECK_EQ(Relay::number(relay.ping(), "total"), 0);
  relay.finish();
}

void portTaken() {
  const Descriptor other = serveAt(at("::1", 50080));
  RelaySettings settings = withUdp(2);
  {
    Relay relay(settings, false);
    CHECK_EQ(Relay::text(relay.read(), "code"), "port-taken");
    CHECK_EQ(relay.waitStatus(), 1);
  }
  settings.portTries = 3;
  Relay relay(settings);
  CHECK_EQ(Relay::number(relay.ready(), "port"), 50081);
  Relay second(settings);  // two relays of one person do not share a port
  CHECK_EQ(Relay::number(second.ready(), "port"), 50082);
  relay.finish();
  second.finish();
}

}  // namespace

int main() {
  becomeMachine();
  for (const Endpoint& server : {kServer4, kServer6}) {
    echo(server, true);
    echo(server, false);
    service(server, true);
    service(server, false);
    nobodyThere(server);
    refusing(server);
    named(server, true);
    named(server, false);
  }
  echo(at("127.0.0.1", 8080), true);
  echo(at("::1", 8080), false);
  sheds();
  fewDescriptors(1);
  fewDescriptors(2);
  manyEndings("reset", 8091);
  manyEndings("quit", 8092);
  manyEndings("end of input", 8093);
  for (const std::string address : {"203.0.113.2", "2001:db8:2::2"}) {
    lateAnswer(at(address, 8097), false);
    lateAnswer(at(address, 8098), true);
  }
  crowd();
  direct();
  portTaken();
  return passed();
}
