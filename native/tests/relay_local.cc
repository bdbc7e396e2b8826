// Flows of this machine's own programs: what goes in at one end comes out at the other, and so does every kind of end.
#include <iterator>

#include "relay_lab.h"

using namespace lab;

namespace {

const Endpoint kServer4 = at("203.0.113.2", 8080);
const Endpoint kServer6 = at("2001:db8:2::2", 8080);

struct Pair {
  Descriptor client, server;
};
Pair joined(const Descriptor& listener, const Endpoint& server) {
  Pair pair;
  pair.client = connectTo(server);
  pair.server = acceptFrom(listener);
  return pair;
}

// Segments that this machine's TCP has sent again so far, whoever's (RFC 4022).
std::int64_t sentAgain() {
  std::ifstream file("/proc/thread-self/net/snmp");
  std::vector<std::vector<std::string>> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("Tcp:")) continue;
    std::istringstream in(line);
    lines.emplace_back(std::istream_iterator<std::string>(in), std::istream_iterator<std::string>());
  }
  CHECK_EQ(lines.size(), 2U);
  const auto name = std::find(lines[0].begin(), lines[0].end(), "RetransSegs");
  CHECK(name != lines[0].end());
  return std::stoll(lines[1].at(static_cast<std::size_t>(name - lines[0].begin())));
}

void echo(const Endpoint& address) {
  Relay relay;
  const Descriptor listener = listenAt(address);
  {
    Pair flow = joined(listener, address);
    writeAll(flow.client, "question");
    CHECK_EQ(readExactly(flow.server, 8), "question");
    writeAll(flow.server, "the answer");
    CHECK_EQ(readExactly(flow.client, 10), "the answer");
    CHECK_EQ(relay.active(), 1);
    flow.client.reset();
    CHECK_EQ(readToEnd(flow.server), "");
  }
  relay.awaitActive(0);
  const auto record = relay.finish();
  checkClosed(record, "finished", "client");
  const auto open = facts(record, "open");
  CHECK_EQ(open.size(), 1U);
  CHECK_EQ(Relay::text(open[0], "scope"), "local");
  CHECK_EQ(Relay::text(*open[0].member("server"), "address"), address.address());
  CHECK_EQ(Relay::number(*open[0].member("server"), "port"), 8080);
  CHECK_EQ(Relay::text(*open[0].member("client"), "address"), address.address());
  CHECK_EQ(facts(record, "connected").size(), 1U);
  CHECK_EQ(payload(record, true), "question");
  CHECK_EQ(payload(record, false), "the answer");
  const Json closed = facts(record, "close")[0];
  // None, unless this machine was too busy to acknowledge in time.
  const std::int64_t again = sentAgain();
  for (const char* name : {"clientLeg", "serverLeg"}) {
    const Json* leg = closed.member(name);
    CHECK(leg != nullptr);
    CHECK(Relay::number(*leg, "rtt") > 0 && Relay::number(*leg, "rtt") < kPatience * 1'000'000);
    CHECK(Relay::number(*leg, "minRtt") <= Relay::number(*leg, "rtt"));
    CHECK(Relay::number(*leg, "retransmits") <= again);
    CHECK(Relay::number(*leg, "mss") >= 536);
  }
}

// The client ends its half first; the server's answer still comes whole, and its end after it.
void halfCloseByClient() {
  Relay relay;
  const Descriptor listener = listenAt(kServer4);
  const Pair flow = joined(listener, kServer4);
  writeAll(flow.client, "all I have");
  CHECK_EQ(shutdown(flow.client.get(), SHUT_WR), 0);
  CHECK_EQ(readToEnd(flow.server), "all I have");
  const std::string answer = noise(300000, 1);
  std::thread writing([&] {
    writeAll(flow.server, answer);
    shutdown(flow.server.get(), SHUT_WR);
  });
  CHECK(readToEnd(flow.client) == answer);
  writing.join();
  relay.awaitActive(0);
  const auto record = relay.finish();
  checkClosed(record, "finished", "client");
  CHECK(payload(record, false) == answer);
}

void halfCloseByServer() {
  Relay relay;
  const Descriptor listener = listenAt(kServer6);
  const Pair flow = joined(listener, kServer6);
  writeAll(flow.server, "hello, I am done");
  CHECK_EQ(shutdown(flow.server.get(), SHUT_WR), 0);
  CHECK_EQ(readToEnd(flow.client), "hello, I am done");
  const std::string upload = noise(300000, 2);
  std::thread writing([&] {
    writeAll(flow.client, upload);
    shutdown(flow.client.get(), SHUT_WR);
  });
  CHECK(readToEnd(flow.server) == upload);
  writing.join();
  relay.awaitActive(0);
  const auto record = relay.finish();
  checkClosed(record, "finished", "server");
  CHECK(payload(record, true) == upload);
}

void resetByClient() {
  Relay relay;
  const Descriptor listener = listenAt(kServer4);
  Pair flow = joined(listener, kServer4);
  writeAll(flow.client, "x");
  CHECK_EQ(readExactly(flow.server, 1), "x");
  resetOnClose(flow.client);
  flow.client.reset();
  CHECK_EQ(readToError(flow.server), ECONNRESET);
  relay.awaitActive(0);
  checkClosed(relay.finish(), "client-reset", "client");
}

void resetByServer() {
  Relay relay;
  const Descriptor listener = listenAt(kServer6);
  Pair flow = joined(listener, kServer6);
  writeAll(flow.server, "last words");
  resetOnClose(flow.server);
  flow.server.reset();
  // As without a relay, what came right before a reset may or may not be read; the reset must be.
  CHECK_EQ(readToError(flow.client), ECONNRESET);
  relay.awaitActive(0);
  const auto record = relay.finish();
  checkClosed(record, "server-reset", "server");
}

// A reset after an orderly half: nobody must take it for a clean end.
void resetAfterHalfClose() {
  Relay relay;
  const Descriptor listener = listenAt(kServer4);
  Pair flow = joined(listener, kServer4);
  CHECK_EQ(shutdown(flow.client.get(), SHUT_WR), 0);
  CHECK_EQ(readToEnd(flow.server), "");
  resetOnClose(flow.server);
  flow.server.reset();
  CHECK_EQ(readToError(flow.client), ECONNRESET);
  relay.awaitActive(0);
  checkClosed(relay.finish(), "server-reset", "server");
}

void refused(const Endpoint& nobody) {
  Relay relay;
  CHECK_EQ(refusal(nobody), ECONNRESET);  // the relay's handshake; the truth follows at once
  relay.awaitActive(0);
  const auto record = relay.finish();
  checkClosed(record, "refused", "server");
  CHECK_EQ(facts(record, "connected").size(), 0U);
  CHECK(facts(record, "close")[0].member("serverLeg") == nullptr);  // there never was one
}

void bigBothWays(unsigned threads) {
  RelaySettings settings;
  settings.threads = threads;
  Relay relay(settings);
  const Descriptor listener = listenAt(kServer4);
  const std::string up = noise(16U << 20U, 3), down = noise(16U << 20U, 4);
  const Pair flow = joined(listener, kServer4);
  std::thread first([&] {
    writeAll(flow.client, up);
    shutdown(flow.client.get(), SHUT_WR);
  });
  std::thread second([&] {
    writeAll(flow.server, down);
    shutdown(flow.server.get(), SHUT_WR);
  });
  std::string gotUp, gotDown;
  std::thread third([&] { gotUp = readToEnd(flow.server); });
  gotDown = readToEnd(flow.client);
  for (std::thread* thread : {&first, &second, &third}) thread->join();
  CHECK(gotUp == up);
  CHECK(gotDown == down);
  relay.awaitActive(0);
  const auto record = relay.finish();
  const auto closed = facts(record, "close");
  CHECK_EQ(closed.size(), 1U);
  CHECK_EQ(Relay::number(closed[0], "bytesUp"), static_cast<std::int64_t>(up.size()));
  CHECK_EQ(Relay::number(closed[0], "bytesDown"), static_cast<std::int64_t>(down.size()));
  if (facts(record, "gap").empty()) {  // a slow disk may leave gaps; what is there then is not the whole
    CHECK(payload(record, true) == up);
    CHECK(payload(record, false) == down);
  }
}

// Both ends have ended, and the slow reader has not read: the flow is active until the last byte was delivered.
void slowReaderIsDrained() {
  Relay relay;
  const Descriptor listener = listenAt(kServer4);
  Descriptor client = connectTo(kServer4, 4096);
  Descriptor server = acceptFrom(listener);
  const std::string answer = noise(150000, 5);
  CHECK_EQ(shutdown(client.get(), SHUT_WR), 0);
  CHECK_EQ(readToEnd(server), "");
  writeAll(server, answer);
  server.reset();
  while (Relay::number(relay.await("flows"), "bytes") < static_cast<std::int64_t>(answer.size())) {
  }
  std::string got;
  for (int step = 0; step < 10; ++step) {
    CHECK_EQ(relay.active(), 1);
    got += readExactly(client, 10000);
  }
  CHECK_EQ(relay.active(), 1);
  got += readToEnd(client);
  CHECK(got == answer);
  relay.awaitActive(0);
  checkClosed(relay.finish(), "finished", "client");
}

// Both sides of a silent flow are asked every minute whether they are there: no translator on the way forgets it.
void keepAlive() {
  Relay relay;
  const Descriptor listener = listenAt(kServer4);
  const Pair flow = joined(listener, kServer4);
  std::FILE* sockets = popen("ss -Htno state established", "r");
  CHECK(sockets != nullptr);
  int asked = 0;
  for (char line[512]; std::fgets(line, sizeof line, sockets) != nullptr;) {
    const std::string text(line);
    if (text.find("timer:(keepalive,") == std::string::npos) continue;
    ++asked;
    // In its words: 59sec, 1min; two hours would be 119min.
    const std::string left = text.substr(text.find("keepalive,") + 10);
    CHECK(left.find("sec,") < 4 || left.find("ms,") < 4 || left.starts_with("1min"));
  }
  CHECK_EQ(pclose(sockets), 0);
  CHECK_EQ(asked, 2);
  relay.finish();
}

// A peer that reads nothing stops the other one; the relay holds a buffer and no more.
void frozenPeer() {
  RelaySettings settings;
  settings.payload = false;
  Relay relay(settings);
  const Descriptor listener = listenAt(kServer4);
  std::vector<Pair> flows;
  for (int i = 0; i < 8; ++i) flows.push_back(joined(listener, kServer4));
  const std::int64_t before = ownKiB(relay.pid());
  const std::string block = noise(1U << 20U, 6);
  std::int64_t written = 0;
  for (const Pair& flow : flows) {
    fcntl(flow.client.get(), F_SETFL, O_NONBLOCK);
    // Full when nothing was taken for a while: there is no event for "never".
    pollfd room{flow.client.get(), POLLOUT, 0};
    std::int64_t taken = 0;
    while (poll(&room, 1, taken <= 100'000 ? kPatience * 1000 : 300) == 1) {
      const ssize_t sent = send(flow.client.get(), block.data(), block.size(), MSG_NOSIGNAL);
      if (sent > 0) taken += sent;
    }
    written += taken;
  }
  CHECK(written > 8 * 100000);
  CHECK_EQ(relay.active(), 8);
  const std::int64_t grown = ownKiB(relay.pid()) - before;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  (void)grown;  // shadow memory counts too
#else
  CHECK(grown < 8 * 64 + 1024);
#endif
  // And thawed, all of it arrives.
  std::int64_t arrived = 0;
  for (Pair& flow : flows) {
    CHECK_EQ(shutdown(flow.client.get(), SHUT_WR), 0);
    arrived += static_cast<std::int64_t>(readToEnd(flow.server).size());
    flow.server.reset();
  }
  CHECK_EQ(arrived, written);
  relay.awaitActive(0);
  relay.finish();
}

// The urgent byte is part of the stream, and what follows it is not forgotten.
void urgentInline() {
  Relay relay;
  const Descriptor listener = listenAt(kServer4);
  const Pair flow = joined(listener, kServer4);
  const int one = 1;
  setsockopt(flow.server.get(), SOL_SOCKET, SO_OOBINLINE, &one, sizeof one);
  setsockopt(flow.client.get(), SOL_SOCKET, SO_OOBINLINE, &one, sizeof one);
  for (int round = 0; round < 20; ++round) {
    writeAll(flow.client, "before");
    CHECK_EQ(send(flow.client.get(), "!", 1, MSG_OOB), 1);
    writeAll(flow.client, "after");
    CHECK_EQ(readExactly(flow.server, 12), "before!after");
    writeAll(flow.server, "before");
    CHECK_EQ(send(flow.server.get(), "!", 1, MSG_OOB), 1);
    writeAll(flow.server, "after");
    CHECK_EQ(readExactly(flow.client, 12), "before!after");
  }
}

/** Waits until there is urgent data, and takes it. */
char takeUrgent(const Descriptor& socket) {
  pollfd wait{socket.get(), POLLPRI, 0};
  CHECK_EQ(poll(&wait, 1, kPatience * 1000), 1);
  char byte = 0;
  CHECK_EQ(recv(socket.get(), &byte, 1, MSG_OOB), 1);
  return byte;
}

// Who asks for urgent data apart from the stream gets it so, as from its peer itself.
void urgentApart() {
  Relay relay;
  const Descriptor listener = listenAt(kServer4);
  const Pair flow = joined(listener, kServer4);
  for (int round = 0; round < 20; ++round) {
    for (const auto& [from, to] : {std::pair(&flow.client, &flow.server), std::pair(&flow.server, &flow.client)}) {
      writeAll(*from, "before");
      CHECK_EQ(send(from->get(), "!", 1, MSG_OOB), 1);
      CHECK_EQ(takeUrgent(*to), '!');
      writeAll(*from, "after");
      CHECK_EQ(readExactly(*to, 11), "beforeafter");
    }
  }
}

// Many short conversations at once over two threads; each one's bytes are its own.
void churn() {
  RelaySettings settings;
  settings.threads = 2;
  Relay relay(settings);
  const Descriptor listener = listenAt(kServer4);
  constexpr int kFlows = 500, kAtOnce = 4;
  std::thread serving([&] {
    for (int i = 0; i < kFlows; ++i) {
      const Descriptor server = acceptFrom(listener);
      const std::string size = readExactly(server, 6);
      const std::string body = readExactly(server, std::stoul(size));
      writeAll(server, body);
    }
  });
  std::vector<std::thread> asking;
  for (int worker = 0; worker < kAtOnce; ++worker) {
    asking.emplace_back([worker] {
      for (int i = 0; i < kFlows / kAtOnce; ++i) {
        const auto seed = static_cast<std::uint64_t>(worker * 1000 + i);
        const std::string body = noise(1 + (seed * 7919) % 20000, seed);
        char size[7];
        std::snprintf(size, sizeof size, "%06zu", body.size());
        const Descriptor client = connectTo(kServer4);
        writeAll(client, size + body);
        CHECK(readToEnd(client) == body);
      }
    });
  }
  for (std::thread& thread : asking) thread.join();
  serving.join();
  relay.awaitActive(0);
  CHECK_EQ(Relay::number(relay.ping(), "total"), kFlows);
  const auto record = relay.finish();
  CHECK_EQ(facts(record, "open").size(), static_cast<std::size_t>(kFlows));
  for (const Json& closed : facts(record, "close")) CHECK_EQ(Relay::text(closed, "reason"), "finished");
  CHECK_EQ(facts(record, "close").size(), static_cast<std::size_t>(kFlows));
}

}  // namespace

int main() {
  becomeMachine();
  echo(kServer4);
  echo(kServer6);
  halfCloseByClient();
  halfCloseByServer();
  resetByClient();
  resetByServer();
  resetAfterHalfClose();
  refused(at("203.0.113.2", 8081));
  refused(at("2001:db8:2::2", 8081));
  bigBothWays(1);
  bigBothWays(2);
  slowReaderIsDrained();
  keepAlive();
  frozenPeer();
  urgentInline();
  urgentApart();
  churn();
  return passed();
}
