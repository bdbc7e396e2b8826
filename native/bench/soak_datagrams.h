// The soak's flows of UDP. A client asks, datagram by datagram, and each answer names its question: what is lost on the way, as UDP may be, is asked again
// and counted, as is a word that nobody listens, for somebody does; what arrives must be right to the last byte, at both ends, and be of this flow.
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <queue>
#include <span>
#include <unordered_map>
#include <vector>

#include "soak_making.h"

namespace soak {

struct Question {
  std::uint64_t seed = 0;
  std::uint32_t index = 0, size = 0;   // size: payload bytes behind this head
  std::uint32_t wanted = 0;            // payload bytes of the answer
  std::uint16_t down = 0;              // 1: it is the answer
  std::uint16_t port = 0;              // of who asks; the answer must come there
};

struct DatagramSums {
  std::uint64_t begun = 0, whole = 0, datagrams = 0, bytes = 0, resent = 0, refused = 0;
  std::uint64_t late = 0;  // answers that came when their flow had ended, and another had its port
};

inline constexpr std::size_t kLargest = 8192;  // of payload; such a one comes in fragments

inline std::uint64_t streamOf(const Question& head) { return mix(head.seed * 2 + head.down) ^ mix(head.index); }

inline std::size_t makeDatagram(const Question& head, std::span<std::uint8_t> into) {
  std::memcpy(into.data(), &head, sizeof head);
  const std::uint64_t stream = streamOf(head);
  for (std::uint32_t i = 0; i < head.size; ++i) into[sizeof head + i] = byteAt(stream, i);
  return sizeof head + head.size;
}

inline Question checkDatagram(std::span<const std::uint8_t> bytes, bool down) {
  Question head;
  if (bytes.size() < sizeof head) fail("a datagram was cut");
  std::memcpy(&head, bytes.data(), sizeof head);
  if (bytes.size() != sizeof head + head.size || head.down != (down ? 1 : 0)) fail("a datagram of another length, or the wrong way, in flow " + std::to_string(head.seed));
  const std::uint64_t stream = streamOf(head);
  for (std::uint32_t i = 0; i < head.size; ++i) {
    if (bytes[sizeof head + i] != byteAt(stream, i)) fail("a wrong byte in datagram " + std::to_string(head.index) + " of flow " + std::to_string(head.seed));
  }
  return head;
}

// Answers what waits at the server's socket.
inline void answerAll(int fd, DatagramSums& sums) {
  static std::array<std::uint8_t, sizeof(Question) + kLargest> buffer;
  for (int i = 0; i < 256; ++i) {
    sockaddr_in6 from{};
    socklen_t length = sizeof from;
    const ssize_t got = recvfrom(fd, buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_TRUNC, reinterpret_cast<sockaddr*>(&from), &length);
    if (got < 0) return;
    if (static_cast<std::size_t>(got) > buffer.size()) fail("a datagram larger than any that was sent");
    Question head = checkDatagram(std::span(buffer).first(static_cast<std::size_t>(got)), false);
    ++sums.datagrams;
    sums.bytes += static_cast<std::uint64_t>(got);
    head.down = 1;
    head.size = std::min<std::uint32_t>(head.wanted, kLargest);
    // A full buffer loses it, and it is asked for again.
    [[maybe_unused]] const auto sent = sendto(fd, buffer.data(), makeDatagram(head, buffer), MSG_DONTWAIT, reinterpret_cast<const sockaddr*>(&from), length);
  }
}

class Askers {
 public:
  // `idle`: milliseconds of silence until what is between the ends may let go of a flow, and of its port.
  Askers(const sockaddr_in6& address, socklen_t size, std::size_t flows, std::uint64_t seed, std::int64_t idle)
      : address_(address), size_(size), next_(seed << 32U), flows_(flows), idle_(idle), epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

  void run(double seconds) {
    const std::int64_t until = nowMs() + static_cast<std::int64_t>(seconds * 1000);
    for (std::size_t which = 0; which < flows_.size(); ++which) begin(which);
    while (open_ > 0) {
      const std::int64_t now = nowMs();
      std::array<epoll_event, 256> events{};
      const int wait = due_.empty() ? 100 : static_cast<int>(std::clamp<std::int64_t>(due_.top().when - now, 0, 100));
      const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), wait);
      const bool goesOn = nowMs() < until;
      for (int i = 0; i < count; ++i) hear(static_cast<std::size_t>(events[static_cast<std::size_t>(i)].data.u64), goesOn);
      while (!due_.empty() && due_.top().when <= nowMs()) {
        const Due due = due_.top();
        due_.pop();
        if (flows_[due.which].turn == due.turn) speak(due.which);
      }
    }
  }
  DatagramSums sums;

 private:
  static constexpr std::int64_t kFirstPatience = 500, kPatience = 30'000;
  static constexpr std::int64_t kLongestWait = 2000;  // between questions: well below the silence that ends a relayed flow, whose port is another one's afterwards

  struct Flow {
    int fd = -1;
    Question head;
    std::uint32_t count = 0;      // questions in all
    bool asked = false;           // and not answered yet
    std::int64_t since = 0, patience = 0;
    std::uint64_t turn = 0;       // what of `due_` is meant for this state of it
  };
  struct Due {
    std::int64_t when;
    std::size_t which;
    std::uint64_t turn;
    bool operator>(const Due& other) const { return when > other.when; }
  };

  void begin(std::size_t which) {
    Flow& flow = flows_[which];
    flow.fd = socket(address_.sin6_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (flow.fd < 0 || connect(flow.fd, reinterpret_cast<const sockaddr*>(&address_), size_) != 0) fail("a socket of UDP");
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = which;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, flow.fd, &event) != 0) fail("epoll_ctl");
    flow.head = Question{++next_, 0, 0, 0, 0, nearPort(flow.fd)};
    flow.count = 1 + static_cast<std::uint32_t>(mix(next_) % 12);
    ++sums.begun;
    ++open_;
    ask(which);
  }

  void later(std::size_t which, std::int64_t milliseconds) { due_.push({nowMs() + milliseconds, which, ++flows_[which].turn}); }

  // Mostly what fits one packet, some in fragments, some empty.
  static std::uint32_t sizeFor(std::uint64_t draw) { return static_cast<std::uint32_t>(draw % 20 == 0 ? (draw >> 8U) % kLargest : (draw >> 8U) % 1200); }

  void ask(std::size_t which) {
    Flow& flow = flows_[which];
    const std::uint64_t draw = mix(flow.head.seed ^ mix(flow.head.index));
    flow.head.size = sizeFor(draw);
    flow.head.wanted = sizeFor(mix(draw));
    flow.asked = true;
    flow.since = nowMs();
    flow.patience = kFirstPatience;
    send(which);
  }

  void send(std::size_t which) {
    Flow& flow = flows_[which];
    static std::array<std::uint8_t, sizeof(Question) + kLargest> buffer;
    const ssize_t sent = ::send(flow.fd, buffer.data(), makeDatagram(flow.head, buffer), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == ECONNREFUSED) ++sums.refused;
    else if (sent < 0 && errno != EAGAIN && errno != ENOBUFS) fail("a datagram was refused");
    later(which, flow.patience);
  }

  // Its pause is over, or its answer has not come.
  void speak(std::size_t which) {
    Flow& flow = flows_[which];
    if (!flow.asked) return ask(which);
    if (nowMs() - flow.since > kPatience) fail("no answer to datagram " + std::to_string(flow.head.index) + " of flow " + std::to_string(flow.head.seed));
    ++sums.resent;
    flow.patience = std::min<std::int64_t>(flow.patience * 2, kLongestWait);
    send(which);
  }

  void hear(std::size_t which, bool goesOn) {
    static std::array<std::uint8_t, sizeof(Question) + kLargest> buffer;
    for (;;) {
      Flow& flow = flows_[which];
      const ssize_t got = recv(flow.fd, buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_TRUNC);
      if (got < 0 && errno == EAGAIN) return;
      if (got < 0 && errno == ECONNREFUSED) {
        ++sums.refused;
        continue;
      }
      if (got < 0 || static_cast<std::size_t>(got) > buffer.size()) fail("flow " + std::to_string(flow.head.seed) + " broke, which nobody had asked for");
      const Question head = checkDatagram(std::span(buffer).first(static_cast<std::size_t>(got)), true);
      // A port is given anew, and what was asked twice may be answered after the flow: to the port, as on any network. That of the flow's own, or, of one that ended long ago, that by which the
      // server knew it. Whatever else goes to another port was led astray.
      const auto over = ended_.find(head.seed);
      if (over != ended_.end() && (head.port == flow.head.port || nowMs() - over->second >= idle_)) {
        ++sums.late;
        continue;
      }
      if (head.seed != flow.head.seed || head.index > flow.head.index) {
        fail("an answer to flow " + std::to_string(head.seed) + " (port " + std::to_string(head.port) + ") came to flow " + std::to_string(flow.head.seed) + " (port " + std::to_string(flow.head.port) + ")");
      }
      if (head.index < flow.head.index || !flow.asked) continue;  // the second answer to what was asked twice
      if (head.size != flow.head.wanted) fail("another answer than was asked for, in flow " + std::to_string(head.seed));
      ++sums.datagrams;
      sums.bytes += static_cast<std::uint64_t>(got);
      flow.asked = false;
      if (++flow.head.index < flow.count) {
        const std::uint64_t draw = mix(flow.head.seed + flow.head.index);
        later(which, draw % 30 == 0 ? 1500 : 50 + static_cast<std::int64_t>(draw % 350));
        continue;
      }
      ++sums.whole;
      ended_.emplace(flow.head.seed, nowMs());
      ::close(flow.fd);
      --open_;
      ++flow.turn;
      if (goesOn) begin(which);
      return;
    }
  }

  sockaddr_in6 address_;
  socklen_t size_;
  std::uint64_t next_;
  std::vector<Flow> flows_;
  std::unordered_map<std::uint64_t, std::int64_t> ended_;  // when
  std::int64_t idle_;
  int epoll_;
  std::size_t open_ = 0;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
};

}  // namespace soak
