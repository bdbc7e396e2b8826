// The one thread that touches the disk.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <span>

#include "capture/direct_layout.h"
#include "capture/shared.h"

namespace sluice {

namespace {

constexpr int kMostPieces = 64;
constexpr std::size_t kMostBytes = 1U << 20U;     // in one writev, so that memory comes back in steps on a slow disk
constexpr long kNap = 10'000'000;                 // nanoseconds
constexpr std::uint64_t kSpare = 1024;            // for a head, or for the fact that segments were deleted
static_assert(DirectLayout::kMostRuns * 3 <= kMostPieces);
constexpr int kQuietNaps = 10;                    // then sleep until woken

// Past the page cache goes what comes in a stream: that spares the processor a copy and the pages for it, and the machine its cache. Where the disk is
// then too slow for what comes, the cache may have it for a while, as it is there to even that out.
constexpr std::size_t kLeastDirect = 512U << 10U; // bytes of full blocks that wait
constexpr std::size_t kMostDirect = 5U << 20U;    // in one call: on a busy machine each costs a wait for a processor as well as for the disk
constexpr double kSwift = 0.15;                   // bytes a nanosecond: no page cache takes much more than that for long
constexpr std::uint64_t kRemembered = 64U << 20U; // bytes over which the disk's pace is taken, so that one pause is none
constexpr std::int64_t kFirstRest = 5'000'000'000, kLongestRest = 320'000'000'000;  // nanoseconds through the cache

// The bytes of `pieces` up to the last pcapng block that ends within `written`. All pieces together are whole blocks, each is whole words.
std::size_t wholeBlocks(const iovec* pieces, int count, std::size_t written) {
  std::size_t whole = 0, before = 0;
  for (int index = 0;;) {
    const std::size_t at = whole + 4;  // where the next one's length is
    while (index < count && at >= before + pieces[index].iov_len) before += pieces[index++].iov_len;
    if (index == count) return whole;
    std::uint32_t length;
    std::memcpy(&length, static_cast<const std::byte*>(pieces[index].iov_base) + (at - before), sizeof length);
    if (whole + length > written) return whole;
    whole += length;
  }
}

class Writer {
 public:
  explicit Writer(Shared& shared) : shared_(shared), write_(shared.options.write != nullptr ? shared.options.write : &::writev) {}

  void run();

 private:
  enum class Pass { kNothing, kWrote, kFailed };
  Pass pass();
  bool goesDirect() const;
  bool appendDirect(std::span<const iovec> runs);
  Pass cut();
  enum class Next { kNothing, kCurrent, kLater };
  Next next(const Shared::Stream& stream) const;
  bool waiting(Next what) const;
  bool makeRoom(std::size_t bytes);
  bool append(const iovec* pieces, int count, bool direct = false);
  void fail(int error, std::size_t keep);
  void wait(int quiet);
  bool pending() const;
  bool fullBlocks() const;
  void recover();

  Shared& shared_;
  decltype(&::writev) write_;
  DirectLayout layout_;
  bool mayDirect_ = shared_.options.ring || !shared_.options.maxBytes;  // a budget that ends the payload leaves no room for padding
  bool streaming_ = false;                // the last pass went past the cache
  std::int64_t passed_ = 0;              // when that was
  std::uint64_t paceBytes_ = 0;          // and how it went lately
  std::int64_t paceTime_ = 0, cacheUntil_ = 0, rest_ = kFirstRest;
};

// Whether what waits for the current segment goes past the page cache.
bool Writer::goesDirect() const {
  if (!mayDirect_ || (cacheUntil_ != 0 && Recorder::now() < cacheUntil_)) return false;
  std::size_t full = 0;
  for (const Shared::Stream* stream : shared_.streams) {
    for (const Block* block = stream->head; full < kLeastDirect; ) {
      const Block* const next = block->next.load(std::memory_order_acquire);
      if (next == nullptr || block->segment.load(std::memory_order_relaxed) != shared_.files.number()) break;
      full += block->committed.load(std::memory_order_relaxed) - block->written;
      block = next;
    }
  }
  return full >= kLeastDirect;
}

// Writes what the tracks have published, at most about kMostBytes.
Writer::Pass Writer::pass() {
  const bool direct = streaming_ = goesDirect();
  const std::size_t mostBytes = direct ? kMostDirect : kMostBytes;
  const int most = direct ? DirectLayout::kMostRuns : kMostPieces;
  iovec pieces[kMostPieces];
  Block* blocks[kMostPieces];
  int count = 0;
  std::size_t bytes = 0;
  for (Shared::Stream* stream : shared_.streams) {
    for (Block* block = stream->head; block != nullptr && count < most && bytes < mostBytes;) {
      Block* const next = block->next.load(std::memory_order_acquire);  // before committed: set, it makes that final
      if (direct && next == nullptr) break;  // more may come into it
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
  passed_ = Recorder::now();
  if (count == 0) return Pass::kNothing;
  const std::size_t waste = direct ? static_cast<std::size_t>(count + 1) * DirectLayout::kMostWaste : 0;
  if (!makeRoom(bytes + waste)) return Pass::kFailed;
  if (!(direct ? appendDirect({pieces, static_cast<std::size_t>(count)}) : append(pieces, count))) return Pass::kFailed;
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

bool Writer::appendDirect(std::span<const iovec> runs) {
  if (const std::span<std::byte> fill = layout_.fill(shared_.files.size()); !fill.empty()) {
    const iovec piece{fill.data(), fill.size()};
    if (!append(&piece, 1)) return false;
  }
  const std::span<iovec> pieces = layout_.lay(runs);
  const std::uint64_t before = shared_.files.size();
  const std::int64_t began = Recorder::now();
  if (!append(pieces.data(), static_cast<int>(pieces.size()), true)) return false;
  const std::int64_t ended = Recorder::now();
  paceBytes_ += shared_.files.size() - before;
  paceTime_ += ended - began;
  if (paceBytes_ > kRemembered) paceBytes_ /= 2, paceTime_ /= 2;
  if (shared_.pool.free() <= shared_.pool.total() / 2 && static_cast<double>(paceBytes_) < kSwift * static_cast<double>(paceTime_)) {
    cacheUntil_ = ended + rest_;
    rest_ = std::min(2 * rest_, kLongestRest);
    paceBytes_ = 0, paceTime_ = 0;
  }
  return true;
}

bool Writer::append(const iovec* whole, int count, bool direct) {
  iovec pieces[kMostPieces];
  std::copy(whole, whole + count, pieces);
  std::size_t total = 0, written = 0;
  for (int index = 0; index < count; ++index) total += pieces[index].iov_len;
  int first = 0;
  if (!shared_.files.direct(direct)) mayDirect_ = false;  // then it goes through the cache
  while (written < total) {
    const ssize_t result = write_(shared_.files.file(), pieces + first, count - first);
    if (result < 0 && errno == EINTR) continue;
    if (result < 0 && errno == EINVAL && direct && shared_.files.direct(false)) {  // a file system, or a short write, that leaves no other way
      direct = mayDirect_ = false;
      continue;
    }
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
    // Of a stream little goes alone; what is left over when it has ended goes after a nap.
    const bool waits = streaming_ && !stopping && shared_.state.load(std::memory_order_relaxed) == Recording::kOn;
    if (waits && Recorder::now() - passed_ < kNap && !goesDirect() && !waiting(Next::kLater)) {
      wait(0);
      continue;
    }
    Pass result = pass();
    if (result == Pass::kNothing) result = cut();
    if (result == Pass::kFailed) break;
    recover();
    if (result == Pass::kWrote) {
      quiet = 0;
      // Full blocks are written on at once, or, of a stream, when there are enough again; a trickle is let gather for a nap.
      if (stopping || (streaming_ ? goesDirect() : fullBlocks())) continue;
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
