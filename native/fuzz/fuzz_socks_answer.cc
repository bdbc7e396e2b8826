// What a SOCKS server answers, in whatever pieces. The first byte chooses family and pieces, the rest is the server's. Judged by RFC 1928 read once more: the outcome is the
// answer's, what is said is right, and no byte behind the answer is taken (those are the flow's).
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "relay/hand_over.h"

namespace {

using Outcome = sluice::Greeting::Outcome;

struct Expected {
  Outcome outcome = Outcome::kFailed;  // also where it ends too soon
  std::size_t taken = 0;               // bytes; only where it is done
  bool asked = false;                  // the request was said
};

Expected expected(const std::uint8_t* answer, std::size_t size) {
  if (size < 2 || answer[0] != 5 || answer[1] != 0) return {};
  const std::uint8_t* const reply = answer + 2;
  const std::size_t left = size - 2;
  if (left < 5 || reply[0] != 5) return {.asked = true};
  if (reply[1] != 0) {
    const Outcome outcome = reply[1] == 3 || reply[1] == 4 ? Outcome::kUnreachable : reply[1] == 5 ? Outcome::kRefused : reply[1] == 6 ? Outcome::kTimedOut : Outcome::kFailed;
    return {.outcome = outcome, .asked = true};
  }
  const std::size_t length = reply[3] == 1 ? 10 : reply[3] == 4 ? 22 : reply[3] == 3 ? 7U + reply[4] : 0;
  if (length == 0 || left < length) return {.asked = true};
  return {.outcome = Outcome::kDone, .taken = 2 + length, .asked = true};
}

sluice::Endpoint end(bool v4, std::uint16_t port) {
  sluice::Endpoint endpoint;
  endpoint.storage.ss_family = v4 ? AF_INET : AF_INET6;
  endpoint.setPort(port);
  return endpoint;
}

std::string drain(int fd) {
  char buffer[512];
  std::string all;
  for (;;) {
    const ssize_t got = ::recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got <= 0) return all;
    all.append(buffer, static_cast<std::size_t>(got));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || size > 4096) return 0;
  const bool v4 = (data[0] & 1U) != 0;
  const std::size_t piece = (data[0] >> 1U) + 1;
  const std::uint8_t* const answer = data + 1;
  const std::size_t length = size - 1;

  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) return 0;
  sluice::Greeting greeting(sluice::HandOverWish::Kind::kSocks5, end(v4, 40000), end(v4, 443));
  Outcome outcome = greeting.step(pair[0]);
  if (outcome != Outcome::kMore) std::abort();
  std::size_t at = 0;
  const auto send = [&](std::size_t count) {
    if (count > 0 && ::send(pair[1], answer + at, count, MSG_NOSIGNAL) != static_cast<ssize_t>(count)) std::abort();
    at += count;
  };
  while (at < length && outcome == Outcome::kMore) {
    send(std::min(piece, length - at));
    outcome = greeting.step(pair[0]);
  }
  // Where it is done, the rest is the flow's.
  send(length - at);
  if (outcome == Outcome::kMore) {
    ::shutdown(pair[1], SHUT_WR);
    outcome = greeting.step(pair[0]);
  }
  const Expected meant = expected(answer, length);
  if (outcome != meant.outcome) std::abort();
  if (outcome == Outcome::kDone) {
    const std::string left = drain(pair[0]);
    if (left.size() != length - meant.taken || std::memcmp(left.data(), answer + meant.taken, left.size()) != 0) std::abort();
  }
  const std::string said = drain(pair[1]);
  if (said.size() != 3 + (meant.asked ? (v4 ? 10U : 22U) : 0U) || said.compare(0, 3, std::string("\5\1\0", 3)) != 0) std::abort();
  if (meant.asked && (said[3] != 5 || said[4] != 1 || said[5] != 0 || said[6] != (v4 ? 1 : 4))) std::abort();
  ::close(pair[0]);
  ::close(pair[1]);
  return 0;
}
