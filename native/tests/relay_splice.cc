// Flows go through the kernel's pipes once they stream, past the record or into it: nothing of them may change but the speed, and what was not kept is
// stated to the byte.
#include "relay_lab.h"

using namespace lab;

namespace {

const Endpoint kServer4 = at("203.0.113.2", 8080);
const Endpoint kServer6 = at("2001:db8:2::2", 8080);
constexpr std::size_t kMuch = 24U << 20U;

RelaySettings unkept(unsigned threads = 1) {
  RelaySettings settings;
  settings.payload = false;
  settings.threads = threads;
  return settings;
}

struct Pair {
  Descriptor client, server;
};
Pair joined(const Descriptor& listener, const Endpoint& server) {
  Pair pair;
  pair.client = connectTo(server);
  pair.server = acceptFrom(listener);
  return pair;
}

// Pipes the relay has: that the path under test was taken at all.
int pipes(const Relay& relay) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(relay.pid()) + "/fd")) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry.path(), gone).string().starts_with("pipe:")) ++count;
  }
  return count;
}

std::int64_t gaps(const std::vector<capture_reader::Item>& record, const std::string& direction, const std::string& reason) {
  std::int64_t bytes = 0;
  for (const Json& gap : facts(record, "gap")) {
    CHECK_EQ(Relay::text(gap, "reason"), reason);
    if (Relay::text(gap, "direction") == direction) bytes += Relay::number(gap, "bytes");
  }
  return bytes;
}

// Both ways at once, each half ended by itself, the other going on.
void bothWays(const Endpoint& address, unsigned threads) {
  Relay relay(unkept(threads));
  const int before = pipes(relay);
  const Descriptor listener = listenAt(address);
  const std::string up = noise(kMuch, 1), down = noise(2 * kMuch + 12345, 2);
  const Pair flow = joined(listener, address);
  std::string gotUp, gotDown;
  std::thread first([&] {
    writeAll(flow.client, up);
    shutdown(flow.client.get(), SHUT_WR);
  });
  std::thread second([&] { gotUp = readToEnd(flow.server); });
  std::thread third([&] { gotDown = readToEnd(flow.client); });
  second.join();  // the client's half has ended before the server's data begins
  CHECK(gotUp == up);
  writeAll(flow.server, down);
  shutdown(flow.server.get(), SHUT_WR);
  first.join();
  third.join();
  CHECK(gotDown == down);
  relay.awaitActive(0);
  CHECK(pipes(relay) > before);
  const auto record = relay.finish();
  checkClosed(record, "finished", "client");
  CHECK_EQ(payload(record, true) + payload(record, false), "");
  CHECK_EQ(gaps(record, "up", "no-payload"), static_cast<std::int64_t>(up.size()));
  CHECK_EQ(gaps(record, "down", "no-payload"), static_cast<std::int64_t>(down.size()));
  const Json closed = facts(record, "close")[0];
  CHECK_EQ(Relay::number(closed, "bytesUp"), static_cast<std::int64_t>(up.size()));
  CHECK_EQ(Relay::number(closed, "bytesDown"), static_cast<std::int64_t>(down.size()));
}

// All is kept, so the pages go two ways: on, in pieces, as the reader stalls now and then, and into the record, whole but for what the disk was too slow for.
void kept() {
  RelaySettings settings;
  Relay relay(settings);
  const int before = pipes(relay);
  const Descriptor listener = listenAt(kServer4);
  const Pair flow = joined(listener, kServer4);
  const std::string up = noise(kMuch + 77, 9);
  std::thread writing([&] {
    writeAll(flow.client, up);
    shutdown(flow.client.get(), SHUT_WR);
  });
  std::string got(up.size(), '\0');
  for (std::size_t at = 0; at < got.size();) {
    if (at % 3 == 0) std::this_thread::yield();
    const ssize_t part = recv(flow.server.get(), got.data() + at, std::min<std::size_t>(100'000, got.size() - at), 0);
    CHECK(part > 0);
    at += static_cast<std::size_t>(part);
  }
  writing.join();
  CHECK(got == up);
  shutdown(flow.server.get(), SHUT_WR);
  CHECK_EQ(readToEnd(flow.client) + readToEnd(flow.server), "");
  relay.awaitActive(0);
  CHECK(pipes(relay) > before);
  const auto record = relay.finish();
  checkClosed(record, "finished", "client");
  std::size_t recorded = 0;
  for (const auto& item : record) {
    if (item.isFact || item.wireshark || !item.packet.up) continue;
    const std::string& bytes = item.packet.payload;
    if (!bytes.empty()) CHECK(up.compare(item.packet.sequence - 1, bytes.size(), bytes) == 0);
    recorded += bytes.size();
  }
  CHECK_EQ(gaps(record, "up", "slow"), static_cast<std::int64_t>(up.size() - recorded));
  CHECK_EQ(Relay::number(facts(record, "close")[0], "bytesUp"), static_cast<std::int64_t>(up.size()));
}

// The cap falls into the middle of a flow: kept up to it, exactly, and counted to the last byte beyond.
void capped() {
  RelaySettings settings;
  constexpr std::size_t kCap = 100'001;
  settings.maxBytesPerFlow = std::to_string(kCap);
  Relay relay(settings);
  const int before = pipes(relay);
  const Descriptor listener = listenAt(kServer4);
  const Pair flow = joined(listener, kServer4);
  const std::string up = noise(kMuch + 1, 3);
  std::thread writing([&] {
    writeAll(flow.client, up);
    shutdown(flow.client.get(), SHUT_WR);
  });
  CHECK(readToEnd(flow.server) == up);
  writing.join();
  writeAll(flow.server, "beyond, too");
  shutdown(flow.server.get(), SHUT_WR);
  CHECK_EQ(readToEnd(flow.client), "beyond, too");
  relay.awaitActive(0);
  CHECK(pipes(relay) > before);
  const auto record = relay.finish();
  CHECK_EQ(payload(record, true), up.substr(0, kCap));
  CHECK_EQ(payload(record, false), "");
  CHECK_EQ(gaps(record, "up", "flow-cap"), static_cast<std::int64_t>(up.size() - kCap));
  CHECK_EQ(gaps(record, "down", "flow-cap"), 11);
  const Json closed = facts(record, "close")[0];
  CHECK_EQ(Relay::number(closed, "bytesUp"), static_cast<std::int64_t>(up.size()));
  CHECK_EQ(Relay::number(closed, "bytesDown"), 11);
}

// A reader that stops: bounded, and thawed all of it arrives.
void stalled() {
  Relay relay(unkept());
  const int before = pipes(relay);
  const Descriptor listener = listenAt(kServer4);
  const Pair flow = joined(listener, kServer4);
  const std::string block = noise(1U << 20U, 4);
  fcntl(flow.client.get(), F_SETFL, O_NONBLOCK);
  std::string written;
  pollfd room{flow.client.get(), POLLOUT, 0};
  for (int pause = 0; pause < 3; ++pause) {
    // Full when nothing was taken for a while: there is no event for "never". What is read below must have been, however long the relay does not get its turn.
    const std::size_t least = static_cast<std::size_t>(pause + 1) * 2'000'000;
    while (poll(&room, 1, written.size() < least ? kPatience * 1000 : 300) == 1) {
      const ssize_t sent = send(flow.client.get(), block.data(), block.size(), MSG_NOSIGNAL);
      if (sent > 0) written.append(block, 0, static_cast<std::size_t>(sent));
      CHECK(written.size() < (64U << 20U));
    }
    if (pause < 2) CHECK(readExactly(flow.server, 2'000'000) == written.substr(static_cast<std::size_t>(pause) * 2'000'000, 2'000'000));
  }
  fcntl(flow.client.get(), F_SETFL, 0);  // the end is waited for
  shutdown(flow.client.get(), SHUT_WR);
  CHECK(readToEnd(flow.server) == written.substr(4'000'000));
  CHECK(pipes(relay) > before);
  shutdown(flow.server.get(), SHUT_WR);
  CHECK_EQ(readToEnd(flow.client), "");
  relay.awaitActive(0);
  const auto record = relay.finish();
  CHECK_EQ(gaps(record, "up", "no-payload"), static_cast<std::int64_t>(written.size()));
}

// A reset in the middle of streaming reaches the other side, from either one, and the pipe that still held bytes serves nobody afterwards.
void reset(bool byClient) {
  Relay relay(unkept());
  const Descriptor listener = listenAt(kServer4);
  for (int round = 0; round < 5; ++round) {
    Pair flow = joined(listener, kServer4);
    Descriptor& reader = byClient ? flow.client : flow.server;
    Descriptor& writer = byClient ? flow.server : flow.client;
    std::thread writing([&] {
      const std::string block = noise(1U << 20U, 5);
      for (;;) {
        const ssize_t sent = send(writer.get(), block.data(), block.size(), MSG_NOSIGNAL);
        if (sent < 0) {
          CHECK(errno == ECONNRESET || errno == EPIPE);
          return;
        }
      }
    });
    readExactly(reader, 8U << 20U);
    resetOnClose(reader);
    reader.reset();
    writing.join();
    relay.awaitActive(0);
  }
  // The next flow's bytes are its own.
  const std::string body = noise(kMuch, 6);
  const Pair flow = joined(listener, kServer4);
  std::thread writing([&] {
    writeAll(flow.client, body);
    shutdown(flow.client.get(), SHUT_WR);
  });
  CHECK(readToEnd(flow.server) == body);
  writing.join();
  shutdown(flow.server.get(), SHUT_WR);
  CHECK_EQ(readToEnd(flow.client), "");
  relay.awaitActive(0);
  for (const Json& closed : facts(relay.finish(), "close")) {
    if (Relay::number(closed, "id") == 6) CHECK_EQ(Relay::text(closed, "reason"), "finished");
    else CHECK_EQ(Relay::text(closed, "reason"), byClient ? "client-reset" : "server-reset");
  }
}

// Urgent data in the middle of a stream: splice(2) stops in front of its mark for good.
void urgent() {
  Relay relay(unkept());
  const Descriptor listener = listenAt(kServer4);
  const Pair flow = joined(listener, kServer4);
  const int one = 1;
  setsockopt(flow.server.get(), SOL_SOCKET, SO_OOBINLINE, &one, sizeof one);
  const std::string body = noise(kMuch, 7);
  std::thread writing([&] {
    writeAll(flow.client, std::string_view(body).substr(0, kMuch / 2));
    CHECK_EQ(send(flow.client.get(), "!", 1, MSG_OOB), 1);
    writeAll(flow.client, std::string_view(body).substr(kMuch / 2));
    shutdown(flow.client.get(), SHUT_WR);
  });
  const std::string got = readToEnd(flow.server);
  writing.join();
  CHECK(got == body.substr(0, kMuch / 2) + "!" + body.substr(kMuch / 2));
  relay.finish();
}

// More streams at once than there are pipes: the others are copied, and none is mixed up with another.
void many() {
  Relay relay(unkept(2));
  const int before = pipes(relay);  // what it has of this test's own
  const Descriptor listener = listenAt(kServer4);
  constexpr std::size_t kFlows = 80, kEach = 2U << 20U;
  std::vector<std::thread> threads;
  for (std::uint64_t index = 0; index < kFlows; ++index) {
    threads.emplace_back([index] {
      const Descriptor client = connectTo(kServer4);
      writeAll(client, noise(kEach, 100 + index));
      shutdown(client.get(), SHUT_WR);
      CHECK(readToEnd(client) == noise(kEach, 100 + index));
    });
  }
  std::vector<std::thread> echoing;
  for (std::size_t index = 0; index < kFlows; ++index) {
    echoing.emplace_back([server = acceptFrom(listener)] {
      const std::string body = readToEnd(server);
      writeAll(server, body);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::thread& thread : echoing) thread.join();
  relay.awaitActive(0);
  CHECK(pipes(relay) - before <= 2 * 48);
  const auto record = relay.finish();
  CHECK_EQ(gaps(record, "up", "no-payload"), static_cast<std::int64_t>(kFlows * kEach));
  CHECK_EQ(gaps(record, "down", "no-payload"), static_cast<std::int64_t>(kFlows * kEach));
}

}  // namespace

int main() {
  becomeMachine();
  bothWays(kServer4, 1);
  bothWays(kServer6, 2);
  kept();
  capped();
  stalled();
  reset(true);
  reset(false);
  urgent();
  many();
  return passed();
}
