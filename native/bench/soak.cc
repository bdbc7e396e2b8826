// Endurance of what stands between two ends: many flows at once, coming and going, every byte checked at both ends.
//
//   sluice-soak serve ADDRESS PORT
//   sluice-soak run ADDRESS PORT SECONDS FLOWS SEED
//   sluice-soak datagrams ADDRESS PORT SECONDS FLOWS SEED IDLE
//   sluice-soak short ADDRESS PORT COUNT FLOWS SEED
//
// A flow begins with 24 bytes from the client: a seed, how many bytes go up, how many come down. Each side sends its bytes, made of the seed, and checks what
// it receives against the same making, so that a byte lost, doubled, changed or of another flow is seen where it arrives. Then each side says with a last
// byte that all was right, and ends its half. What a flow does besides is drawn from the seed: sit idle in the middle, end a half early, stop reading for a
// while, or reset at some point, which the other side must see as a reset or a failure and never as a clean end in the middle. `run` keeps FLOWS of them
// going for SECONDS, then lets all end, and prints one line of JSON; it fails on the first wrong byte, and so does `serve`, which prints its sums when its input ends.
// `short` opens and ends COUNT flows of a few bytes as fast as they go, FLOWS at a time. `datagrams` does with flows of UDP what `run` does (soak_datagrams.h); IDLE seconds of silence may end one on the way.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include "soak_datagrams.h"
#include "soak_making.h"

namespace {

using soak::byteAt, soak::fail, soak::mix, soak::nowMs, soak::parse;

struct Header {
  std::uint64_t seed = 0, up = 0, down = 0;
};
constexpr char kAllRight = 'y';
constexpr std::uint64_t kShort = std::uint64_t{1} << 63U;  // of a seed: this flow does nothing besides

enum class Manner : std::uint8_t { kPlain, kIdle, kSlowReader, kReset };

struct Sums {
  std::uint64_t flows = 0, bytes = 0, reset = 0, failed = 0;
};

// One end of one flow.
struct End {
  int fd = -1;
  bool client = false;
  Header header;
  std::array<std::uint8_t, sizeof(Header)> head{};
  std::size_t headDone = 0;                  // bytes of the header sent (client) or read (server)
  std::uint64_t sent = 0, received = 0;      // of the stream and the last byte
  bool finSent = false, finReceived = false;
  Manner manner = Manner::kPlain;
  std::uint64_t at = 0;                      // where the manner shows, in bytes sent (or received)
  std::int64_t until = 0;                    // nothing before then
  bool shown = false;                        // the manner has shown itself
  bool doomed = false;                       // this flow is reset by one side: whatever ends it is right, but a clean end before the whole

  [[nodiscard]] std::uint64_t toSend() const { return (client ? header.up : header.down) + 1; }
  [[nodiscard]] std::uint64_t toReceive() const { return (client ? header.down : header.up) + 1; }
  [[nodiscard]] std::uint64_t outStream() const { return mix(header.seed * 2 + (client ? 0 : 1)); }
  [[nodiscard]] std::uint64_t inStream() const { return mix(header.seed * 2 + (client ? 1 : 0)); }
  [[nodiscard]] bool ready() const { return headDone == head.size(); }
};

// What the seed says; both ends know it.
void decide(End& end) {
  if ((end.header.seed & kShort) != 0) return;
  const std::uint64_t draw = mix(end.header.seed ^ 0x50AC);
  const std::uint64_t who = draw % 100;
  const bool mine = ((draw >> 8U) % 2 == 0) == end.client;
  const std::uint64_t whole = end.header.up + end.header.down + 2;
  end.at = (draw >> 16U) % whole;
  end.doomed = who < 10;
  if (who < 10) end.manner = mine ? Manner::kReset : Manner::kPlain;
  else if (who < 30) end.manner = mine ? Manner::kIdle : Manner::kPlain;
  else if (who < 40) end.manner = mine ? Manner::kSlowReader : Manner::kPlain;
}

constexpr std::size_t kChunk = 64U << 10U;

class Loop {
 public:
  Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

  void watch(int fd, std::uint32_t events, std::uint64_t tag) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = tag;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
  }

  End& adopt(int fd, bool client) {
    auto end = std::make_unique<End>();
    end->fd = fd;
    end->client = client;
    End& result = *end;
    ends_[fd] = std::move(end);
    watch(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, static_cast<std::uint64_t>(fd));
    return result;
  }

  // Waits at most so long; calls `other` for tags that are no end of a flow.
  template <typename Other>
  void turn(int milliseconds, Other other) {
    std::array<epoll_event, 512> events{};
    if (!delayed_.empty()) milliseconds = static_cast<int>(std::clamp<std::int64_t>(delayed_.top().first - nowMs(), 0, milliseconds));
    const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), milliseconds);
    for (int i = 0; i < count; ++i) {
      const std::uint64_t tag = events[static_cast<std::size_t>(i)].data.u64;
      if (const auto found = ends_.find(static_cast<int>(tag)); found != ends_.end()) work(*found->second);
      else other(tag);
    }
    const std::int64_t now = nowMs();
    while (!delayed_.empty() && delayed_.top().first <= now) {
      const int fd = delayed_.top().second;
      delayed_.pop();
      if (const auto found = ends_.find(fd); found != ends_.end() && found->second->until <= now) work(*found->second);
    }
  }

  [[nodiscard]] std::size_t open() const { return ends_.size(); }
  Sums sums;

 private:
  void work(End& end) {
    if (nowMs() < end.until) return;
    // Both until neither moves; a share each, so that a long flow does not hold up the others.
    for (int round = 0; round < 16; ++round) {
      const std::uint64_t before = end.sent + end.received + end.headDone;
      if (!receive(end) || !sendSome(end)) return;
      if (end.finSent && end.finReceived) return finish(end);
      if (nowMs() < end.until || before == end.sent + end.received + end.headDone) return;
    }
    later(end, nowMs());
  }

  void later(End& end, std::int64_t when) { delayed_.emplace(when, end.fd); }

  void pause(End& end, std::int64_t milliseconds) {
    end.until = nowMs() + milliseconds;
    later(end, end.until);
  }

  // The manner shows once so much of the flow has gone by. False: the end is gone.
  bool behave(End& end) {
    if (end.shown || !end.ready() || end.sent + end.received < end.at) return true;
    end.shown = true;
    switch (end.manner) {
      case Manner::kPlain: return true;
      case Manner::kIdle: pause(end, 500 + static_cast<std::int64_t>(end.header.seed % 3000)); return true;
      case Manner::kSlowReader: pause(end, 200 + static_cast<std::int64_t>(end.header.seed % 1500)); return true;
      case Manner::kReset: break;
    }
    const linger abrupt{1, 0};
    setsockopt(end.fd, SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt);
    ++sums.reset;
    drop(end);
    return false;
  }

  bool receive(End& end) {
    static std::array<std::uint8_t, kChunk> buffer;
    while (!end.finReceived) {
      if (!behave(end)) return false;
      if (nowMs() < end.until) return true;
      const ssize_t got = recv(end.fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (got < 0 && errno == EAGAIN) return true;
      if (got < 0) return broken(end);
      if (got == 0) {
        if (!end.ready() && end.headDone == 0 && !end.client) return broken(end);  // came and went without a word
        if (!end.ready() || end.received != end.toReceive()) fail("a clean end in the middle of flow " + std::to_string(end.header.seed));
        end.finReceived = true;
        return true;
      }
      std::size_t from = 0;
      const auto size = static_cast<std::size_t>(got);
      if (!end.client && !end.ready()) {
        from = std::min(size, end.head.size() - end.headDone);
        std::memcpy(end.head.data() + end.headDone, buffer.data(), from);
        end.headDone += from;
        if (!end.ready()) continue;
        std::memcpy(&end.header, end.head.data(), sizeof(Header));
        decide(end);
      }
      const std::uint64_t stream = end.inStream();
      for (std::size_t i = from; i < size; ++i, ++end.received) {
        if (end.received >= end.toReceive()) fail("more than was sent, in flow " + std::to_string(end.header.seed));
        const auto expected = end.received + 1 == end.toReceive() ? static_cast<std::uint8_t>(kAllRight) : byteAt(stream, end.received);
        if (buffer[i] != expected) fail("a wrong byte at " + std::to_string(end.received) + " of flow " + std::to_string(end.header.seed));
      }
      sums.bytes += size;
      if (size < buffer.size()) return true;
    }
    return true;
  }

  bool sendSome(End& end) {
    static std::array<std::uint8_t, kChunk> buffer;
    while (!end.finSent && nowMs() >= end.until) {
      if (end.client && !end.ready()) {
        const ssize_t sent = send(end.fd, end.head.data() + end.headDone, end.head.size() - end.headDone, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) return true;
        if (sent < 0) return broken(end);
        end.headDone += static_cast<std::size_t>(sent);
        continue;
      }
      if (!end.ready()) return true;
      if (end.sent == end.toSend()) {
        if (shutdown(end.fd, SHUT_WR) != 0) return broken(end);
        end.finSent = true;
        return true;
      }
      if (!behave(end)) return false;
      if (nowMs() < end.until) return true;
      const std::uint64_t stream = end.outStream();
      const std::size_t size = static_cast<std::size_t>(std::min<std::uint64_t>(1 + mix(end.header.seed + end.sent) % kChunk, end.toSend() - end.sent));
      for (std::size_t i = 0; i < size; ++i) buffer[i] = end.sent + i + 1 == end.toSend() ? static_cast<std::uint8_t>(kAllRight) : byteAt(stream, end.sent + i);
      const ssize_t sent = send(end.fd, buffer.data(), size, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno == EAGAIN) return true;
      if (sent < 0) return broken(end);
      end.sent += static_cast<std::uint64_t>(sent);
      if (static_cast<std::size_t>(sent) < size) return true;
    }
    return true;
  }

  // A flow that one side resets may end by any error; any other may not.
  bool broken(End& end) {
    const bool unborn = !end.client && !end.ready();  // reset before its seed was known here
    if (!end.doomed && !unborn) {
      const int error = errno;
      const std::string where = std::string(end.client ? "client" : "server") + ", port " + std::to_string(soak::nearPort(end.fd));
      errno = error;
      fail("flow " + std::to_string(end.header.seed) + " (" + where + ", " + std::to_string(end.sent) + " bytes sent and " + std::to_string(end.received) + " received) broke, which nobody had asked for");
    }
    ++sums.failed;
    drop(end);
    return false;
  }

  void finish(End& end) {
    if (!end.doomed) ++sums.flows;  // a doomed one may end well here and be reset before it does there
    drop(end);
  }

  void drop(End& end) {
    const int fd = end.fd;
    close(fd);
    ends_.erase(fd);
  }

  int epoll_;
  std::unordered_map<int, std::unique_ptr<End>> ends_;
  std::priority_queue<std::pair<std::int64_t, int>, std::vector<std::pair<std::int64_t, int>>, std::greater<>> delayed_;
};

int serve(const sockaddr_in6& address, socklen_t size) {
  const int listener = socket(address.sin6_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int datagrams = socket(address.sin6_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1, room = 4 << 20;
  setsockopt(datagrams, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  if (bind(datagrams, reinterpret_cast<const sockaddr*>(&address), size) != 0) fail("bind");
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), size) != 0 || listen(listener, 4096) != 0) fail("listen");
  Loop loop;
  loop.watch(listener, EPOLLIN, 1'000'000);
  loop.watch(0, EPOLLIN, 1'000'001);
  loop.watch(datagrams, EPOLLIN, 1'000'002);
  soak::DatagramSums asked;
  std::puts("ready");
  std::fflush(stdout);
  bool over = false;
  while (!over || loop.open() > 0) {
    loop.turn(100, [&](std::uint64_t tag) {
      if (tag == 1'000'001) {
        char byte = 0;
        over = over || read(0, &byte, 1) <= 0;
        return;
      }
      if (tag == 1'000'002) return soak::answerAll(datagrams, asked);
      for (int i = 0; i < 64; ++i) {
        const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        loop.adopt(fd, false);
      }
    });
    if (over && loop.open() == 0) break;
  }
  std::printf("{\"whole\":%llu,\"bytes\":%llu,\"reset\":%llu,\"broken\":%llu,\"datagrams\":%llu}\n", static_cast<unsigned long long>(loop.sums.flows),
              static_cast<unsigned long long>(loop.sums.bytes), static_cast<unsigned long long>(loop.sums.reset), static_cast<unsigned long long>(loop.sums.failed),
              static_cast<unsigned long long>(asked.datagrams));
  return 0;
}

// `count`: so many short flows instead of whatever `seconds` bring.
int run(const sockaddr_in6& address, socklen_t size, double seconds, std::uint64_t count, std::size_t flows, std::uint64_t seed) {
  Loop loop;
  const std::uint64_t first = seed << 32U | (count > 0 ? kShort : 0);
  std::uint64_t number = first, sent = 0;
  std::size_t most = 0;
  std::uint64_t doomed = 0;
  const auto begin = [&] {
    const int fd = socket(address.sin6_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket");
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), size) != 0 && errno != EINPROGRESS) {
      if (errno != EADDRNOTAVAIL) fail("connect");
      close(fd);  // every port is held by a flow that just ended: later
      return;
    }
    End& end = loop.adopt(fd, true);
    const std::uint64_t draw = mix(++number);
    // Mostly small, a few large: 0 bytes to 64 KiB, one in fifty up to 4 MiB.
    const std::uint64_t bound = count > 0 ? 64U : draw % 50 == 0 ? 4U << 20U : 64U << 10U;
    end.header = Header{number, mix(draw) % bound, mix(draw + 1) % bound};
    std::memcpy(end.head.data(), &end.header, sizeof(Header));
    decide(end);
    if (end.doomed) ++doomed;
    sent += sizeof(Header) + end.toSend();
  };
  const std::int64_t until = nowMs() + static_cast<std::int64_t>(seconds * 1000);
  const auto goesOn = [&] { return count > 0 ? number - first < count : nowMs() < until; };
  while (goesOn()) {
    for (int i = 0; i < 64 && loop.open() < flows && goesOn(); ++i) begin();
    most = std::max(most, loop.open());
    loop.turn(20, [](std::uint64_t) {});
  }
  const std::int64_t patience = nowMs() + 60'000;
  while (loop.open() > 0) {
    if (nowMs() > patience) fail(std::to_string(loop.open()) + " flows do not come to their end");
    loop.turn(100, [](std::uint64_t) {});
  }
  std::printf("{\"begun\":%llu,\"doomed\":%llu,\"most\":%zu,\"whole\":%llu,\"sent\":%llu,\"bytes\":%llu,\"reset\":%llu,\"broken\":%llu}\n",
              static_cast<unsigned long long>(number - first), static_cast<unsigned long long>(doomed), most, static_cast<unsigned long long>(loop.sums.flows),
              static_cast<unsigned long long>(sent), static_cast<unsigned long long>(loop.sums.bytes), static_cast<unsigned long long>(loop.sums.reset),
              static_cast<unsigned long long>(loop.sums.failed));
  return 0;
}

int ask(const sockaddr_in6& address, socklen_t size, double seconds, std::size_t flows, std::uint64_t seed, std::int64_t idle) {
  soak::Askers askers(address, size, flows, seed, idle);
  askers.run(seconds);
  const soak::DatagramSums& sums = askers.sums;
  std::printf("{\"begun\":%llu,\"whole\":%llu,\"datagrams\":%llu,\"bytes\":%llu,\"resent\":%llu,\"refused\":%llu,\"late\":%llu}\n", static_cast<unsigned long long>(sums.begun), static_cast<unsigned long long>(sums.whole),
              static_cast<unsigned long long>(sums.datagrams), static_cast<unsigned long long>(sums.bytes), static_cast<unsigned long long>(sums.resent),
              static_cast<unsigned long long>(sums.refused), static_cast<unsigned long long>(sums.late));
  return 0;
}

}  // namespace

int main(int count, char** words) {
  std::signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (count < 4) return 2;
  socklen_t size = 0;
  const sockaddr_in6 address = parse(words[2], std::atoi(words[3]), size);
  const std::string verb = words[1];
  if (verb == "serve") return serve(address, size);
  if (count < 7) return 2;
  const auto flows = static_cast<std::size_t>(std::atoi(words[5]));
  const std::uint64_t seed = std::strtoull(words[6], nullptr, 10);
  if (verb == "run") return run(address, size, std::atof(words[4]), 0, flows, seed);
  if (verb == "short") return run(address, size, 0, std::strtoull(words[4], nullptr, 10), flows, seed);
  return verb == "datagrams" && count == 8 ? ask(address, size, std::atof(words[4]), flows, seed, std::atoi(words[7]) * 1000) : 2;
}
