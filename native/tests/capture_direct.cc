// What goes past the page cache: whole pages, filled with padding that no reader sees, and every byte of the payload where it belongs.
#include <fcntl.h>
#include <sched.h>

#include <atomic>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "capture/direct_layout.h"
#include "capture/pcapng.h"
#include "capture/recorder.h"
#include "capture_disk_script.h"
#include "capture_fixture.h"
#include "capture_reader.h"
#include "check.h"

using namespace sluice;

namespace {

constexpr std::int64_t kTime = 1'764'000'000'000'000'000;
constexpr std::size_t kPage = DirectLayout::kPage;

FlowRecord newFlow(std::uint64_t id, bool v6 = false) {
  FlowRecord flow;
  flow.id = id;
  flow.client = endpoint(v6 ? "2001:db8:1::2" : "198.51.100.2", static_cast<std::uint16_t>(1000 + id));
  flow.server = endpoint(v6 ? "2001:db8:2::2" : "203.0.113.2", 80);
  return flow;
}

std::string textOf(const iovec& piece) { return {static_cast<const char*>(piece.iov_base), piece.iov_len}; }

// Runs of any length from anywhere: what is laid out are whole pages, and without its padding it is the runs.
void layouts() {
  std::mt19937 random(7);
  DirectLayout layout;
  const auto memory = std::make_unique<std::byte[]>(kPage * 2000);
  auto* const start = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory.get()) + kPage - 1) / kPage * kPage);
  for (int turn = 0; turn < 400; ++turn) {
    std::vector<iovec> runs;
    std::string wanted;
    std::byte* at = start;
    for (std::size_t count = 1 + random() % DirectLayout::kMostRuns; count > 0; --count) {
      at = start + (static_cast<std::size_t>(at - start) + kPage - 1) / kPage * kPage + random() % (kPage / 4) * 4 * (random() % 2);
      std::byte* const from = at;
      for (std::size_t blocks = 1 + random() % 4; blocks > 0; --blocks) {  // any block will do that is no padding
        std::string fact, json = "{\"n\":\"" + std::string(random() % (random() % 3 == 0 ? 20'000 : 200), 'n') + "\"}";
        pcapng::appendFact(fact, json);
        std::memcpy(at, fact.data(), fact.size());
        at += fact.size();
      }
      runs.push_back({from, static_cast<std::size_t>(at - from)});
      wanted += textOf(runs.back());
    }
    const std::size_t size = random() % 100'000 * 4;
    const std::span<std::byte> fill = layout.fill(size);
    CHECK_EQ((size + fill.size()) % kPage, 0U);
    std::string laid(reinterpret_cast<const char*>(fill.data()), fill.size()), read;
    std::size_t runBytes = 0;
    for (const iovec& run : runs) runBytes += run.iov_len;
    const std::span<iovec> pieces = layout.lay(runs);
    for (const iovec& piece : pieces) {
      CHECK_EQ(reinterpret_cast<std::uintptr_t>(piece.iov_base) % kPage, 0U);
      CHECK(piece.iov_len > 0 && piece.iov_len % kPage == 0);
      laid += textOf(piece);
    }
    CHECK(laid.size() <= runBytes + (runs.size() + 1) * DirectLayout::kMostWaste);
    for (std::size_t block = 0; block < laid.size();) {
      const auto length = capture_reader::get<std::uint32_t>(laid, block + 4);
      CHECK(length >= 12 && block + length <= laid.size());
      CHECK_EQ(capture_reader::get<std::uint32_t>(laid, block + length - 4), length);
      if (capture_reader::get<std::uint32_t>(laid, block) != 0x80534C50U) read += laid.substr(block, length);
      block += length;
    }
    CHECK(read == wanted);
  }
}

std::atomic<int> direct{0};
ssize_t counting(int file, const iovec* pieces, int count) {
  if ((fcntl(file, F_GETFL) & O_DIRECT) != 0) ++direct;
  return disk::write(file, pieces, count);
}

std::string pattern(std::size_t from, std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t index = 0; index < size; ++index) text[index] = static_cast<char>((from + index) * 2'654'435'761U >> 13U);
  return text;
}

// Two threads' streams, some of it received in place, some copied; the disk lets it gather, so that there is a stream to write.
void stream(bool shortWrites) {
  disk::reset();
  direct = 0;
  disk::setStill(true);
  disk::script().shortWrites = shortWrites;
  const Folder folder;
  RecorderOptions options;
  options.folder = folder.path();
  options.version = "0.1.0";
  options.tracks = 2;
  options.write = counting;
  int error = 0;
  const auto recorder = Recorder::open(options, error);
  CHECK(recorder != nullptr);
  std::mt19937 random(11);
  FlowRecord flows[2] = {newFlow(1), newFlow(2, true)};
  for (std::size_t thread : {0U, 1U}) recorder->track(thread).opened(flows[thread], FlowScope::kLocal, kTime);
  std::size_t inPlace = 0;
  for (int turn = 0; turn < 600; ++turn) {
    const std::size_t thread = random() % 2;
    Track& track = recorder->track(thread);
    FlowRecord& flow = flows[thread];
    const std::size_t size = 1 + random() % 65'536;
    if (random() % 4 == 0) {
      track.data(flow, Direction::kDown, bytesOf(pattern(flow.bytes[1], size)), kTime);
    } else {
      const std::span<std::byte> place = track.reserve(flow, 65'536);
      CHECK(place.size() >= 16'384 && place.size() <= pcapng::kMaxPayload);
      if (random() % 4 == 0) continue;  // nothing came
      const std::string bytes = pattern(flow.bytes[1], std::min(size, place.size()));
      std::memcpy(place.data(), bytes.data(), bytes.size());
      track.commit(flow, Direction::kDown, bytes.size(), kTime);
      ++inPlace;
    }
    if (random() % 8 == 0) track.flush();
    if (turn == 400) disk::setStill(false);
  }
  CHECK(inPlace > 100);
  for (std::size_t thread : {0U, 1U}) recorder->track(thread).closed(flows[thread], CloseReason::kFinished, ClosedBy::kClient, kTime);
  for (std::size_t thread : {0U, 1U}) recorder->track(thread).flush();
  CHECK(recorder->finish(60'000));
  CHECK(recorder->state() == Recording::kOn);
  CHECK(direct > 0);
  const auto items = capture_reader::read(capture_reader::readFile(folder.capture()));
  const auto accounts = capture_reader::accounts(items);
  for (const FlowRecord& flow : flows) {
    CHECK_EQ(accounts.at(flow.id).kept[1], flow.bytes[1]);
    CHECK(accounts.at(flow.id).closed);
  }
  std::string received[2];
  for (const auto& item : items) {
    if (!item.isFact && !item.wireshark) received[item.packet.v4 ? 0 : 1] += item.packet.payload;
  }
  for (std::size_t thread : {0U, 1U}) CHECK(received[thread] == pattern(0, flows[thread].bytes[1]));
}

// A disk that takes so many bytes and then none; past the cache whole pages of them, as a real one would.
std::atomic<std::uint64_t> left{0};
ssize_t failingWrite(int file, const iovec* pieces, int count) {
  disk::script().mutex.lock();  // stands still until the stream is there
  disk::script().mutex.unlock();
  std::uint64_t room = left;
  if ((fcntl(file, F_GETFL) & O_DIRECT) != 0) {
    ++direct;
    room = room / kPage * kPage;
  }
  iovec cut[64];
  int used = 0;
  std::uint64_t taken = 0;
  for (; used < count && taken < room; ++used) {
    cut[used] = {pieces[used].iov_base, static_cast<std::size_t>(std::min<std::uint64_t>(room - taken, pieces[used].iov_len))};
    taken += cut[used].iov_len;
  }
  if (taken == 0) {
    errno = EIO;
    return -1;
  }
  left -= taken;
  return ::writev(file, cut, used);
}

// It ends in the middle of a stream, wherever: the file reads whole up to there.
void failing() {
  direct = 0;
  for (std::uint64_t after = 1; after < 3'000'000; after = after * 3 + 1234) {
    left = after;
    std::unique_lock still(disk::script().mutex);
    const Folder folder;
    RecorderOptions options;
    options.folder = folder.path();
    options.version = "0.1.0";
    options.write = failingWrite;
    int error = 0;
    const auto recorder = Recorder::open(options, error);
    CHECK(recorder != nullptr);
    Track& track = recorder->track(0);
    FlowRecord flow = newFlow(1);
    track.opened(flow, FlowScope::kLocal, kTime);
    for (int turn = 0; turn < 80; ++turn) {
      track.data(flow, Direction::kDown, bytesOf(pattern(flow.bytes[1], 50'000)), kTime);
    }
    track.flush();
    still.unlock();
    while (recorder->state() != Recording::kStopped) sched_yield();
    CHECK_EQ(recorder->lastError(), EIO);
    CHECK(!recorder->finish(60'000));
    const std::string bytes = capture_reader::readFile(folder.capture());
    CHECK(bytes.size() <= after + 1000);
    const auto accounts = capture_reader::accounts(capture_reader::read(bytes));
    if (after > 1'000'000) CHECK(accounts.at(1).kept[1] > after / 2);
  }
  CHECK(direct > 0);
}

}  // namespace

int main() {
  layouts();
  stream(false);
  stream(true);
  failing();
  return passed();
}
