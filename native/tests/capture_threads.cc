// Several relaying threads, each with its own track, one writer: nothing mixed up, nothing lost. Made for the thread sanitizer.
#include <atomic>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "capture/block_pool.h"
#include "capture/recorder.h"
#include "capture_disk_script.h"
#include "capture_fixture.h"
#include "capture_reader.h"
#include "check.h"

using namespace sluice;

namespace {

constexpr int kTracks = 3;

// Blocks go round between threads; none is ever held by two.
void poolHandsOutOnce() {
  BlockPool pool(16, 4096);
  CHECK(pool.good());
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::vector<Block*> passed;
  std::atomic<std::uint64_t> taken{0};
  for (int index = 0; index < 4; ++index) {
    threads.emplace_back([&, index] {
      std::mt19937 random(static_cast<unsigned>(index));
      for (int round = 0; round < 20'000; ++round) {
        Block* block = pool.take(random() % 3);
        if (block != nullptr) {
          ++taken;
          CHECK_EQ(block->written, 0U);
          block->written = 1;  // a second holder would trip over this, and the sanitizer with it
          block->data[0] = std::byte{1};
          std::lock_guard lock(mutex);
          passed.push_back(block);
          if (passed.size() < 4) continue;
          block = passed.front();
          passed.erase(passed.begin());
          block->written = 0;
          pool.give(block);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (Block* block : passed) pool.give(block);
  CHECK_EQ(pool.free(), 16U);
  CHECK(taken > 1000);
  std::set<Block*> all;
  while (Block* block = pool.take(0)) CHECK(all.insert(block).second);
  CHECK_EQ(all.size(), 16U);
}

void session(std::uint64_t seed, bool slowDisk) {
  disk::reset();
  disk::script().shortWrites = true;
  const Folder folder;
  RecorderOptions options;
  options.folder = folder.path();
  options.version = "0.1.0";
  options.tracks = kTracks;
  options.memory = slowDisk ? 1 : 8U << 20U;
  options.maxBytes = 64U << 20U;
  options.segmentBytes = seed == 1 ? 256U << 20U : 64U << (6U + 2 * seed);
  options.write = disk::write;
  int error = 0;
  const auto recorder = Recorder::open(options, error);
  CHECK(recorder != nullptr);

  std::atomic<std::uint64_t> ids{0};
  std::atomic<bool> ended{false};
  std::mutex mutex;
  std::map<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>> relayed;
  std::vector<std::thread> threads;
  for (int index = 0; index < kTracks; ++index) {
    threads.emplace_back([&, index] {
      std::mt19937_64 random(seed * 100 + static_cast<std::uint64_t>(index));
      Track& track = recorder->track(static_cast<std::size_t>(index));
      const std::string chunk(70'000, static_cast<char>('a' + index));
      for (int round = 0; round < 60; ++round) {
        FlowRecord flow;
        flow.id = ++ids;
        flow.client = endpoint("198.51.100." + std::to_string(10 + index), static_cast<std::uint16_t>(1000 + round % 3));
        flow.server = endpoint("203.0.113.2", 80);
        track.opened(flow, FlowScope::kLocal, Recorder::now());
        const bool opened = flow.opened;
        track.connected(flow, flow.client, Recorder::now());
        for (int step = 0; step < 12; ++step) {
          const auto way = static_cast<Direction>(random() % 2);
          track.data(flow, way, bytesOf(std::string_view(chunk).substr(random() % chunk.size())), Recorder::now());
          if (random() % 2 == 0) track.flush();
        }
        track.finished(flow, Direction::kUp, Recorder::now());
        track.finished(flow, Direction::kDown, Recorder::now());
        track.closed(flow, CloseReason::kFinished, ClosedBy::kClient, Recorder::now());
        track.flush();
        if (opened) {
          std::lock_guard lock(mutex);
          relayed[flow.id] = {flow.bytes[0], flow.bytes[1]};
        }
      }
    });
  }
  std::thread watcher([&] {
    while (!ended) {
      CHECK(recorder->state() != Recording::kStopped);
      CHECK_EQ(recorder->lastError(), 0);
      if (slowDisk) {
        disk::setStill(true);
        std::this_thread::yield();
        disk::setStill(false);
      }
      std::this_thread::yield();
    }
  });
  for (std::thread& thread : threads) thread.join();
  ended = true;
  watcher.join();
  CHECK(recorder->finish(60'000));

  std::vector<std::string> segments;
  for (const unsigned number : folder.segments()) segments.push_back(capture_reader::readFile(folder.capture(number)));
  if (seed == 1) CHECK_EQ(segments.size(), 1U);
  if (seed > 1 && !slowDisk) CHECK(segments.size() > 10);
  const auto accounts = capture_reader::accounts(capture_reader::readAll(segments));
  CHECK_EQ(accounts.size(), relayed.size());
  for (const auto& [id, bytes] : relayed) {
    const auto& account = accounts.at(id);
    CHECK(account.closed);
    CHECK_EQ(account.kept[0] + account.gaps[0], bytes.first);
    CHECK_EQ(account.kept[1] + account.gaps[1], bytes.second);
    CHECK_EQ(account.closeBytes[0], bytes.first);
    if (!slowDisk && account.gaps[0] + account.gaps[1] > 0) CHECK(!account.gapsByReason.contains("flow-cap"));
  }
}

}  // namespace

int main() {
  poolHandsOutOnce();
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    session(seed, false);
    session(seed, true);
  }
  return passed();
}
