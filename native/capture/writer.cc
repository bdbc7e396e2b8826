// The one thread that touches the disk.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "capture/shared.h"

namespace sluice {

namespace {

constexpr int kMostPieces = 64;
constexpr std::size_t kMostBytes = 1U << 20U;     // in one writev, so that memory comes back in steps on a slow disk
constexpr long kNap = 10'000'000;                 // nanoseconds
constexpr std::uint64_t kSpare = 1024;            // for a head, or for the fact that segments were deleted
constexpr int kQuietNaps = 10;                    // then sleep until woken

// The bytes of `pieces` up to the last pcapng block that ends within `written`. Each piece is a run of whole blocks.
std::size_t wholeBlocks(const iovec* pieces, int count, std::size_t written) {
  std::size_t whole = 0, before = 0;
  for (int index = 0; index < count && before < written; ++index) {
    const auto* const bytes = static_cast<const std::byte*>(pieces[index].iov_base);
    for (std::size_t at = 0; at < pieces[index].iov_len;) {
      std::uint32_t length;
      std::memcpy(&length, bytes + at + 4, sizeof length);
      at += length;
      if (before + at > written) return whole;
      whole = before + at;
    }
    before += pieces[index].iov_len;
  }
  return whole;
}

class Writer {
 public:
  explicit Writer(Shared& shared) : shared_(shared), write_(shared.options.write != nullptr ? shared.options.write : &::writev) {}

  void run();

 private:
  enum class Pass { kNothing, kWrote, kFailed };
  Pass pass();
  Pass cut();
  enum class Next { kNothing, kCurrent, kLater };
  Next next(const Shared::Stream& stream) const;
  bool waiting(Next what) const;
  bool makeRoom(std::size_t bytes);
  bool append(iovec* pieces, int count);
  void fail(int error, std::size_t keep);
  void wait(int quiet);
  bool pending() const;
  bool fullBlocks() const;
  void recover();

  Shared& shared_;
  decltype(&::writev) write_;
};

// Writes what the tracks have published, at most kMostBytes.
Writer::Pass Writer::pass() {
  iovec pieces[kMostPieces];
  Block* blocks[kMostPieces];
  int count = 0;
  std::size_t bytes = 0;
  for (Shared::Stream* stream : shared_.streams) {
    for (Block* block = stream->head; block != nullptr && count < kMostPieces && bytes < kMostBytes;) {
      Block* const next = block->next.load(std::memory_order_acquire);  // before committed: set, it makes that final
      const std::size_t end = block->committed.load(std::memory_order_seq_cst);
      if (end > block->written) {
        if (block->segment.load(std::memory_order_relaxed) != shared_.files.number()) break;  // a later one's: not before cut()
        pieces[count] = {block->data + block->written, end - block->written};
        blocks[count++] = block;
        bytes += end - block->written;
      }
      block = next;
    }
  }
  if (count == 0) return Pass::kNothing;
  if (!makeRoom(bytes)) return Pass::kFailed;
  iovec rest[kMostPieces];
  std::copy(pieces, pieces + count, rest);
  if (!append(rest, count)) return Pass::kFailed;
  for (int index = 0; index < count; ++index) blocks[index]->written += pieces[index].iov_len;
  for (Shared::Stream* stream : shared_.streams) {
    Block*& head = stream->head;
    for (Block* next; (next = head->next.load(std::memory_order_acquire)) != nullptr;) {
      if (head->written < head->committed.load(std::memory_order_acquire)) break;
      shared_.pool.give(head);
      head = next;
    }
  }
  return Pass::kWrote;
}

bool Writer::append(iovec* pieces, int count) {
  iovec whole[kMostPieces];
  std::copy(pieces, pieces + count, whole);
  std::size_t total = 0, written = 0;
  for (int index = 0; index < count; ++index) total += pieces[index].iov_len;
  int first = 0;
  while (written < total) {
    const ssize_t result = write_(shared_.files.file(), pieces + first, count - first);
    if (result < 0 && errno == EINTR) continue;
    if (result <= 0) {
      fail(result < 0 ? errno : EIO, wholeBlocks(whole, count, written));
      return false;
    }
    auto gone = static_cast<std::size_t>(result);
    written += gone;
    while (first < count && gone >= pieces[first].iov_len) gone -= pieces[first++].iov_len;
    if (gone > 0) {
      pieces[first].iov_base = static_cast<std::byte*>(pieces[first].iov_base) + gone;
      pieces[first].iov_len -= gone;
    }
  }
  shared_.files.grew(total);
  return true;
}

// For which segment more is to come, or may be, from that track.
Writer::Next Writer::next(const Shared::Stream& stream) const {
  const std::uint32_t current = shared_.files.number();
  // In this order: a track that is not inside now enters a later segment, so what it has committed by now is all.
  if (stream.inside.load(std::memory_order_seq_cst) == current) return Next::kCurrent;
  for (const Block* block = stream.head; block != nullptr; block = block->next.load(std::memory_order_acquire)) {
    if (block->committed.load(std::memory_order_seq_cst) <= block->written) continue;
    return block->segment.load(std::memory_order_relaxed) == current ? Next::kCurrent : Next::kLater;
  }
  return Next::kNothing;
}

bool Writer::waiting(Next what) const {
  return std::any_of(shared_.streams.begin(), shared_.streams.end(), [&](const Shared::Stream* stream) { return next(*stream) == what; });
}

// Goes on to the next segment, when there is something for it and no track is still in the current one.
Writer::Pass Writer::cut() {
  if (shared_.segment.load(std::memory_order_seq_cst) == shared_.files.number()) return Pass::kNothing;
  if (waiting(Next::kCurrent) || !waiting(Next::kLater)) return Pass::kNothing;
  const RecorderOptions& options = shared_.options;
  if (options.ring && options.maxBytes) shared_.files.makeRoom(kSpare, *options.maxBytes, Recorder::now());  // the new head says so
  if (const int error = shared_.files.next(); error != 0) {
    fail(error, 0);
    return Pass::kFailed;
  }
  return Pass::kWrote;
}

// A ring lets its oldest segments go before it grows beyond the budget, and says so where it stands.
bool Writer::makeRoom(std::size_t bytes) {
  const RecorderOptions& options = shared_.options;
  if (!options.ring || !options.maxBytes) return true;
  std::string fact = shared_.files.makeRoom(bytes + kSpare, *options.maxBytes, Recorder::now());
  if (fact.empty()) return true;
  iovec piece{fact.data(), fact.size()};
  return append(&piece, 1);
}

// The file is cut back to its last whole block, so that every reader reads it to its end; nothing more is written.
void Writer::fail(int error, std::size_t keep) {
  shared_.files.grew(keep);
  shared_.files.cut();
  shared_.error.store(error, std::memory_order_release);
  shared_.state.store(Recording::kStopped, std::memory_order_release);
}

void Writer::recover() {
  if (shared_.state.load(std::memory_order_relaxed) != Recording::kSlow || shared_.pool.free() < shared_.recovered) return;
  Recording expected = Recording::kSlow;
  shared_.state.compare_exchange_strong(expected, Recording::kOn, std::memory_order_seq_cst);
}

bool Writer::pending() const {
  return std::any_of(shared_.streams.begin(), shared_.streams.end(), [](const Shared::Stream* stream) {
    const Block* head = stream->head;
    return head->written < head->committed.load(std::memory_order_seq_cst);
  }) || fullBlocks();
}

bool Writer::fullBlocks() const {
  return std::any_of(shared_.streams.begin(), shared_.streams.end(),
                     [](const Shared::Stream* stream) { return stream->head->next.load(std::memory_order_acquire) != nullptr; });
}

// Announce the sleep, look once more, sleep: whoever publishes after the look sees the announcement.
void Writer::wait(int quiet) {
  const bool deep = quiet >= kQuietNaps && shared_.state.load(std::memory_order_seq_cst) == Recording::kOn && !waiting(Next::kLater);
  const std::uint32_t kind = deep ? kSleeping : kNapping;
  shared_.sleep.store(kind, std::memory_order_seq_cst);
  const bool stopping = shared_.stopping.load(std::memory_order_seq_cst);
  const bool cutDue = waiting(Next::kLater) && !waiting(Next::kCurrent);
  if (!stopping && !cutDue && !(deep && (pending() || shared_.state.load(std::memory_order_seq_cst) != Recording::kOn))) {
    const timespec nap{0, kNap};
    syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&shared_.sleep), FUTEX_WAIT_PRIVATE, kind, deep ? nullptr : &nap, nullptr, 0);
  }
  shared_.sleep.store(kAwake, std::memory_order_seq_cst);
}

void Writer::run() {
  int quiet = 0;
  bool complete = false;
  for (;;) {
    const bool stopping = shared_.stopping.load(std::memory_order_seq_cst);
    if (stopping) {
      // The owners of the tracks have ended, so their side of them is ours now.
      for (Shared::Stream* stream : shared_.streams) {
        stream->tellOwed();
        stream->leave();
      }
    }
    Pass result = pass();
    if (result == Pass::kNothing) result = cut();
    if (result == Pass::kFailed) break;
    recover();
    if (result == Pass::kWrote) {
      quiet = 0;
      // Full blocks are written on at once; a trickle is let gather for a nap.
      if (stopping || fullBlocks()) continue;
    } else {
      ++quiet;
      if (stopping) {
        complete = true;
        for (Shared::Stream* stream : shared_.streams) complete = complete && stream->owed.empty();
        break;
      }
    }
    wait(quiet);
  }
  shared_.files.close();
  std::lock_guard lock(shared_.mutex);
  shared_.ended = true;
  shared_.complete = complete;
  shared_.condition.notify_all();
}

}  // namespace

void runWriter(Shared& shared) { Writer(shared).run(); }

}  // namespace sluice
