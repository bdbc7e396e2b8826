#include "capture/recorder.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <ctime>
#include <system_error>
#include <thread>

#include "capture/pcapng.h"
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

std::string systemName() {
  utsname names{};
  if (uname(&names) != 0) return {};
  return std::string(names.sysname) + " " + names.release;
}

int createFile(const std::string& folder) {
  const int directory = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return -1;
  const int file = openat(directory, "capture-000001.pcapng", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  const int error = errno;
  ::close(directory);
  errno = error;
  return file;
}

bool writeAll(int file, const std::string& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::write(file, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    done += static_cast<std::size_t>(count);
  }
  return true;
}

}  // namespace

Shared::Shared(const RecorderOptions& wanted, std::size_t blocks, std::size_t blockSize)
    : options(wanted),
      pool(blocks, blockSize),
      reserve(std::max(wanted.tracks, blocks / 8)),
      recovered(reserve + std::max<std::size_t>(1, (blocks - wanted.tracks - reserve) / 2)) {}

void Shared::wake() {
  if (sleep.load(std::memory_order_seq_cst) == kAwake || sleep.exchange(kAwake, std::memory_order_seq_cst) == kAwake) return;
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&sleep), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

void Shared::slow() {
  Recording expected = Recording::kOn;
  state.compare_exchange_strong(expected, Recording::kSlow, std::memory_order_seq_cst);
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

  const int file = createFile(options.folder);
  if (file < 0) {
    error = errno;
    return nullptr;
  }
  const auto abandon = [&](int why) {
    error = why;
    ::close(file);
    ::unlink((options.folder + "/capture-000001.pcapng").c_str());
    return nullptr;
  };
  const std::string head = pcapng::buildHead(options.version, systemName(), options.payload);
  if (!writeAll(file, head)) return abandon(errno != 0 ? errno : EIO);
  shared->file = file;
  shared->fileSize = head.size();
  shared->accepted = head.size();
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
