// What is said is handed on at once, however little it is, and nobody waits for somebody else's reader.
#include <sys/syscall.h>

#include <array>
#include <atomic>

#include "relay_lab.h"

using namespace lab;

namespace {

constexpr int kWords = 200;

// A copy of a descriptor of another process; empty where that is gone.
Descriptor borrow(const Descriptor& process, int fd) { return Descriptor{static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), fd, 0))}; }

// How many connections of TCP the relay has, each of which must not wait for more to send (tcp(7), TCP_NODELAY).
int promptConnections(pid_t relay) {
  const Descriptor process{static_cast<int>(syscall(SYS_pidfd_open, relay, 0))};
  CHECK(process);
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(relay) + "/fd")) {
    const Descriptor fd = borrow(process, std::stoi(entry.path().filename()));
    tcp_info info{};
    socklen_t length = sizeof info;
    if (!fd || getsockopt(fd.get(), IPPROTO_TCP, TCP_INFO, &info, &length) != 0 || info.tcpi_state != 1) continue;  // 1: established, net/tcp_states.h
    int prompt = 0;
    length = sizeof prompt;
    CHECK_EQ(getsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &prompt, &length), 0);
    CHECK_EQ(prompt, 1);
    ++count;
  }
  return count;
}

// Segments with data that came in: tcpi_data_segs_in of linux/tcp.h, whose tcp_info goes on where that of netinet/tcp.h ends.
std::uint32_t segmentsIn(const Descriptor& fd) {
  constexpr std::size_t kPlace = 152;
  std::array<std::byte, 512> info{};
  socklen_t length = info.size();
  CHECK_EQ(getsockopt(fd.get(), IPPROTO_TCP, TCP_INFO, info.data(), &length), 0);
  CHECK(length >= kPlace + sizeof(std::uint32_t));
  std::uint32_t count = 0;
  std::memcpy(&count, info.data() + kPlace, sizeof count);
  return count;
}

void pingPong(const Descriptor& client, const Descriptor& server) {
  for (int i = 0; i < kWords; ++i) {
    const std::string word(1, static_cast<char>('a' + i % 26));
    writeAll(client, word);
    CHECK_EQ(readExactly(server, 1), word);
    writeAll(server, word);
    CHECK_EQ(readExactly(client, 1), word);
  }
}

void finish(Relay& relay, Descriptor& client, const Descriptor& server) {
  client.reset();
  CHECK_EQ(readToEnd(server), "");
  relay.ping();
}

void small(Relay& relay, const std::function<Descriptor()>& listen, const std::function<Descriptor()>& connect) {
  const Descriptor listener = listen();
  Descriptor client = connect(), server = acceptFrom(listener);
  pingPong(client, server);
  CHECK_EQ(promptConnections(relay.pid()), 2);
  CHECK_EQ(segmentsIn(server), std::uint32_t{kWords});
  CHECK_EQ(segmentsIn(client), std::uint32_t{kWords});
  finish(relay, client, server);
  server.reset();
  relay.awaitActive(0);
}

// One thread, and a reader that stops for as long as another flow has all it wants to say.
void stalled(const Endpoint& address) {
  constexpr int kChunks = 96;  // MiB: more than all buffers on the way hold
  Relay relay;
  const Descriptor listener = listenAt(address, 1 << 16);
  const std::string chunk = noise(1U << 20U, 7);
  Descriptor slow = connectTo(address);
  const Descriptor stopped = acceptFrom(listener);
  std::atomic<bool> written = false;
  std::thread writing([&] {
    for (int i = 0; i < kChunks; ++i) writeAll(slow, chunk);
    written = true;
    CHECK_EQ(shutdown(slow.get(), SHUT_WR), 0);
  });
  CHECK(readExactly(stopped, 1U << 16U) == chunk.substr(0, 1U << 16U));  // it is under way
  Descriptor quick = connectTo(address);
  Descriptor server = acceptFrom(listener);
  pingPong(quick, server);
  const std::string much = noise(4U << 20U, 8);
  std::thread serving([&] { writeAll(server, much); });
  CHECK(readExactly(quick, much.size()) == much);
  serving.join();
  finish(relay, quick, server);
  server.reset();
  relay.awaitActive(1);
  CHECK(!written);
  CHECK(readExactly(stopped, chunk.size() - (1U << 16U)) == chunk.substr(1U << 16U));
  for (int i = 1; i < kChunks; ++i) CHECK(readExactly(stopped, chunk.size()) == chunk);
  CHECK_EQ(readToEnd(stopped), "");
  CHECK_EQ(shutdown(stopped.get(), SHUT_WR), 0);
  CHECK_EQ(readToEnd(slow), "");
  writing.join();
  relay.awaitActive(0);
  CHECK_EQ(facts(relay.finish(), "close").size(), 2U);
}

}  // namespace

int main() {
  std::thread([] {
    const Gateway gateway;
    Relay relay;
    for (const char* server : {"203.0.113.2", "2001:db8:2::2"}) {
      const Endpoint address = at(server, 8080);
      const auto in = [](const Namespace& where, const std::function<Descriptor()>& make) {
        Descriptor fd;
        where.inside([&] { fd = make(); });
        return fd;
      };
      small(relay, [&] { return in(*gateway.server, [&] { return listenAt(address); }); }, [&] { return in(*gateway.client, [&] { return connectTo(address); }); });
    }
    relay.finish();
  }).join();
  becomeMachine();
  for (const char* server : {"203.0.113.2", "2001:db8:2::2"}) {
    const Endpoint address = at(server, 8080);
    Relay relay;
    small(relay, [&] { return listenAt(address); }, [&] { return connectTo(address); });
    relay.finish();
    stalled(address);
  }
  return passed();
}
