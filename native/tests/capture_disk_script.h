// A disk whose mood a test scripts: it stands still, writes short, is interrupted, or fails. Goes in as RecorderOptions::write.
#pragma once

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>

namespace disk {

struct Script {
  std::mutex mutex;
  std::condition_variable changed;
  bool still = false;                       // writes wait until it is not
  std::uint64_t waiting = 0;                // writes that wait now
  bool shortWrites = false;                 // a random part of what was asked, and EINTR now and then
  std::uint64_t failAfter = std::numeric_limits<std::uint64_t>::max();  // bytes until `error`, the last write being partial
  int error = 0;
  std::uint64_t written = 0, random = 88172645463325252ULL;
};

// Never destroyed: a thread on a disk that hangs may use it to the end of the process.
inline Script& script() {
  static Script& one = *new Script;
  return one;
}

inline void reset() {
  std::lock_guard lock(script().mutex);
  Script& one = script();
  one.still = one.shortWrites = false;
  one.failAfter = std::numeric_limits<std::uint64_t>::max();
  one.error = 0;
  one.written = 0;
}

inline void setStill(bool still) {
  std::lock_guard lock(script().mutex);
  script().still = still;
  script().changed.notify_all();
}

inline void awaitWaiting() {
  std::unique_lock lock(script().mutex);
  script().changed.wait(lock, [] { return script().waiting > 0; });
}

inline ssize_t write(int file, const iovec* pieces, int count) {
  Script& one = script();
  std::unique_lock lock(one.mutex);
  ++one.waiting;
  one.changed.notify_all();
  one.changed.wait(lock, [&] { return !one.still; });
  --one.waiting;
  std::uint64_t total = 0;
  for (int index = 0; index < count; ++index) total += pieces[index].iov_len;
  if (one.shortWrites) {
    one.random ^= one.random << 13U, one.random ^= one.random >> 7U, one.random ^= one.random << 17U;
    if (one.random % 5 == 0) {
      errno = EINTR;
      return -1;
    }
    total = 1 + one.random % total;
  }
  if (total > one.failAfter - one.written) {
    total = one.failAfter - one.written;
    if (total == 0) {
      errno = one.error;
      return -1;
    }
  }
  one.written += total;
  lock.unlock();
  iovec cut[64];
  int used = 0;
  for (std::uint64_t left = total; used < count && left > 0; ++used) {
    cut[used] = {pieces[used].iov_base, static_cast<std::size_t>(std::min<std::uint64_t>(left, pieces[used].iov_len))};
    left -= cut[used].iov_len;
  }
  return ::writev(file, cut, used);
}

}  // namespace disk
