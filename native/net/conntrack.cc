#include "net/conntrack.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <atomic>
#include <cstdio>

#include "net/socket_options.h"

namespace sluice {
namespace {

constexpr int kRtoMaxMs = 44;                          // TCP_RTO_MAX_MS, linux/tcp.h
constexpr int kDefault = 60;                           // of an end that was acknowledged: the least of the three
constexpr std::int64_t kLookAgain = 10'000'000'000;    // they may be tuned at any time

}  // namespace

int silenceFor(const std::string& folder) {
  int least = kDefault;
  // One FIN; that acknowledged; one that came twice, which conntrack takes for the other side's.
  for (const char* const state : {"fin_wait", "close_wait", "time_wait"}) {
    std::FILE* const file = std::fopen((folder + "/nf_conntrack_tcp_timeout_" + state).c_str(), "re");
    if (file == nullptr) continue;
    int seconds = 0;
    if (std::fscanf(file, "%d", &seconds) == 1) least = std::min(least, seconds);
    std::fclose(file);
  }
  return std::max(1, least / 3);
}

void keepKnown(int fd, std::int64_t now) {
  static std::atomic<int> silence{0};
  static std::atomic<std::int64_t> look{0};
  std::int64_t due = look.load(std::memory_order_relaxed);
  if (silence.load(std::memory_order_relaxed) == 0 || (now >= due && look.compare_exchange_strong(due, now + kLookAgain, std::memory_order_relaxed))) {
    silence.store(silenceFor("/proc/sys/net/netfilter"), std::memory_order_relaxed);
  }
  const int seconds = silence.load(std::memory_order_relaxed);
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
  // Also one that was answered is followed by the next after this (tcp_keepalive_timer()).
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds);
  // Keep-alives pause while there is something to deliver. What asks a reader that has stopped for room then asks ever more rarely, up to every two minutes.
  setOption(fd, IPPROTO_TCP, kRtoMaxMs, seconds * 1000);
}

}  // namespace sluice
