// What tracks and the writer share. Inside capture/ only.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "capture/block_pool.h"
#include "capture/recorder.h"
#include "capture/segments.h"

namespace sluice {

enum class GapReason : std::uint8_t { kNoPayload, kFlowCap, kSlow, kSessionCap };
std::string_view name(GapReason reason);

// How the writer sleeps. Napping: it looks again by itself within ten milliseconds. Sleeping: only a wake ends it.
enum Sleep : std::uint32_t { kAwake = 0, kNapping = 1, kSleeping = 2 };

struct Shared {
  Shared(const RecorderOptions& wanted, std::size_t blocks, std::size_t blockSize);

  const RecorderOptions options;
  BlockPool pool;
  const std::size_t reserve;      // blocks that only facts may take
  const std::size_t recovered;    // free blocks at which a slow recording takes payload again; the distance keeps gaps few
  const std::uint64_t segmentBytes;
  SegmentFiles files;             // the writer's, once it runs
  std::uint64_t headSize = 0;     // of a segment; set once

  std::atomic<Recording> state{Recording::kOn};
  std::atomic<int> error{0};
  std::atomic<std::uint64_t> accepted{0};  // bytes for the files so far; counted only where maxBytes ends the payload
  std::atomic<std::uint32_t> segment{1};   // into which tracks write from their next piece on
  std::atomic<std::uint64_t> published{0}, cutAt;  // bytes of all tracks; at how many the next segment begins
  std::atomic<bool> full{false};           // maxBytes reached: stays, so that a later, smaller chunk does not slip in
  std::atomic<std::uint32_t> sleep{kAwake};
  std::atomic<bool> stopping{false};

  std::mutex mutex;                        // for `ended` only; no relaying thread takes it
  std::condition_variable condition;
  bool ended = false, complete = false;

  using Stream = Track::Impl;
  std::vector<Track> tracks;
  std::vector<Stream*> streams;            // what is inside the tracks, in their order

  [[nodiscard]] bool stopped() const { return state.load(std::memory_order_relaxed) == Recording::kStopped; }
  void wake();                             // a system call only when the writer is asleep
  void wakeIfSleeping() { if (sleep.load(std::memory_order_seq_cst) == kSleeping) wake(); }
  void slow();                             // memory ran out
  void count(std::uint64_t bytes);         // published by a track: begins a new segment where one is due
};

// A close that found no memory: told as soon as there is some.
struct OwedClose {
  FlowRecord flow;
  std::int64_t nanoseconds;
  CloseReason reason;
  ClosedBy by;
};

struct Track::Impl {
  explicit Impl(Shared& all);

  Shared& shared;
  Block* current;                 // the owner's: where the next bytes go
  std::size_t at = 0;
  std::size_t published = 0;
  std::uint32_t sealed = 0;
  // The segment this track may be writing into, 0: none. While it is the old one, the writer does not end that; a track that is idle holds up nobody.
  std::atomic<std::uint32_t> inside{0};
  std::uint32_t segment = 0;      // the owner's copy, 0 when it has left
  std::vector<std::shared_ptr<const ProgramFact>> programs;  // lately seen, so that flows of one program share
  std::string text;               // scratch for facts
  std::vector<OwedClose> owed;
  Block* head;                    // the writer's: the oldest block of the chain

  static constexpr std::size_t kMaxOwed = 4096;

  // Where the next `bytes` go, or null when there is no memory (and the state is slow then). The caller fills all of them.
  std::byte* room(std::size_t bytes, bool payload);
  bool takesPayload();            // room() for payload would not be refused for the state of the recording
  bool putText();                 // the blocks in `text`, as facts
  void publish();
  bool enter();                   // begins a piece of the stream: all up to the next enter() lands in one segment. False: no memory
  bool enter(FlowRecord& flow);   // and states the flow, where that segment does not know it yet
  void leave();                   // nothing is being written
  bool grow(bool payload);        // goes on in a fresh block; false: no memory
  std::shared_ptr<const ProgramFact> share(const Program& program, std::int64_t nanoseconds);
  void owe(FlowRecord& flow, Direction direction, std::uint64_t bytes, std::uint64_t datagrams, GapReason reason, std::int64_t nanoseconds);
  void textGap(const FlowRecord& flow, Direction direction, std::int64_t nanoseconds);   // what it owes that way, appended to `text`
  void textGaps(const FlowRecord& flow, std::int64_t nanoseconds);  // appends the owed gaps to `text`
  static void settleGap(FlowRecord& flow, std::size_t way);         // it has been written
  static void settleGaps(FlowRecord& flow) { settleGap(flow, 0), settleGap(flow, 1); }
  bool tellOwed();                // true: no close is owed any more
  std::string json;
  void fact();                    // `json` as a block at the end of `text`
};

// Follows the tracks to the file until stopping or an error. The writer thread's work.
void runWriter(Shared& shared);

}  // namespace sluice
