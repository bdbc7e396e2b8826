#include "capture/recorder.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <ctime>
#include <system_error>
#include <thread>

#include "capture/shared.h"

namespace sluice {

namespace {

// A block holds the largest thing written in one piece (a process fact of hostile text, about 80 KiB, or a packet of 64) with room left.
constexpr std::size_t kLargeBlock = 256U << 10U, kSmallBlock = 128U << 10U;

std::int64_t clockNow(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// The least a segment may be asked to hold, so that heads and repeated facts stay a small part of it.
constexpr std::uint64_t kLeastSegment = 64U << 10U;

std::uint64_t segmentSize(const RecorderOptions& options) {
  const std::uint64_t most = options.ring && options.maxBytes ? *options.maxBytes / 4 : options.segmentBytes;
  return std::max(kLeastSegment, std::min(options.segmentBytes, most));
}

}  // namespace

Shared::Shared(const RecorderOptions& wanted, std::size_t blocks, std::size_t blockSize)
    : options(wanted),
      pool(blocks, blockSize),
      reserve(std::max(wanted.tracks, blocks / 8)),
      recovered(reserve + std::max<std::size_t>(1, (blocks - wanted.tracks - reserve) / 2)),
      segmentBytes(segmentSize(wanted)),
      cutAt(segmentBytes) {}

void Shared::wake() {
  if (sleep.load(std::memory_order_seq_cst) == kAwake || sleep.exchange(kAwake, std::memory_order_seq_cst) == kAwake) return;
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&sleep), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

void Shared::slow() {
  Recording expected = Recording::kOn;
  state.compare_exchange_strong(expected, Recording::kSlow, std::memory_order_seq_cst);
  wake();
}

void Shared::count(std::uint64_t bytes) {
  const std::uint64_t all = published.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  std::uint64_t due = cutAt.load(std::memory_order_relaxed);
  if (all < due || !cutAt.compare_exchange_strong(due, all + segmentBytes, std::memory_order_relaxed)) return;
  if (options.maxBytes && !options.ring) accepted.fetch_add(headSize, std::memory_order_relaxed);
  segment.fetch_add(1, std::memory_order_seq_cst);
  wake();
}

struct Recorder::Impl {
  std::shared_ptr<Shared> shared;  // the writer thread holds it too: it may outlive us on a disk that hangs
  std::thread writer;
  bool finished = false, complete = false;
};

Recorder::Recorder() : impl_(std::make_unique<Impl>()) {}

Recorder::~Recorder() { finish(1000); }

std::unique_ptr<Recorder> Recorder::open(const RecorderOptions& wanted, int& error) {
  RecorderOptions options = wanted;
  options.tracks = std::max<std::size_t>(1, options.tracks);
  const std::size_t blockSize = options.memory >= kLargeBlock * 8 * options.tracks ? kLargeBlock : kSmallBlock;
  const std::size_t blocks = std::max(options.memory / blockSize, 2 * options.tracks + 2);

  std::unique_ptr<Recorder> recorder(new Recorder());
  recorder->impl_->finished = true;  // until the writer runs there is nothing to finish
  auto shared = std::make_shared<Shared>(options, blocks, blockSize);
  if (!shared->pool.good()) {
    error = ENOMEM;
    return nullptr;
  }
  for (std::size_t index = 0; index < options.tracks; ++index) {
    shared->tracks.emplace_back();
    shared->tracks.back().impl_ = std::make_unique<Track::Impl>(*shared);
    shared->streams.push_back(shared->tracks.back().impl_.get());
  }

  error = shared->files.open(options.folder, options.version, options.payload);
  if (error != 0) return nullptr;
  const auto abandon = [&](int why) {
    error = why;
    ::unlink((options.folder + "/capture-000001.pcapng").c_str());
    return nullptr;
  };
  // The head of the next segment is counted before it is due: who finds room for payload cannot know that a segment ends meanwhile.
  shared->headSize = shared->files.size();
  shared->accepted = 2 * shared->headSize;
  shared->published = shared->files.size();
  now();

  // Signals are the business of other threads; SIGXFSZ too must never end us here.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    recorder->impl_->writer = std::thread([shared] { runWriter(*shared); });
  } catch (const std::system_error& failure) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return abandon(failure.code().value());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  recorder->impl_->shared = std::move(shared);
  recorder->impl_->finished = false;
  return recorder;
}

Track& Recorder::track(std::size_t index) { return impl_->shared->tracks.at(index); }

Recording Recorder::state() const { return impl_->shared->state.load(std::memory_order_acquire); }

int Recorder::lastError() const { return impl_->shared->error.load(std::memory_order_acquire); }

bool Recorder::finish(int milliseconds) {
  Impl& impl = *impl_;
  if (impl.finished) return impl.complete;
  impl.finished = true;
  Shared& shared = *impl.shared;
  shared.stopping.store(true, std::memory_order_seq_cst);
  shared.wake();
  std::unique_lock lock(shared.mutex);
  const bool ended = shared.condition.wait_for(lock, std::chrono::milliseconds(std::max(0, milliseconds)), [&] { return shared.ended; });
  impl.complete = ended && shared.complete;
  lock.unlock();
  if (ended) {
    impl.writer.join();
  } else {
    impl.writer.detach();
  }
  return impl.complete;
}

std::int64_t Recorder::now() {
  // The wall clock may be set while we run; the order of a capture's packets must not suffer from it.
  static const std::int64_t offset = clockNow(CLOCK_REALTIME) - clockNow(CLOCK_MONOTONIC);
  return offset + clockNow(CLOCK_MONOTONIC);
}

}  // namespace sluice
