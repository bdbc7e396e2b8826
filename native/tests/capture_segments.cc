// The ring of segments: each stands for itself, what went is told, and a thread that is idle holds nobody up.
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <map>
#include <mutex>
#include <vector>

#include "capture/recorder.h"
#include "capture_disk_script.h"
#include "capture_fixture.h"
#include "capture_reader.h"
#include "check.h"

using namespace sluice;

namespace {

constexpr std::int64_t kTime = 1'764'000'000'000'000'000;

FlowRecord newFlow(std::uint64_t id) {
  FlowRecord flow;
  flow.id = id;
  flow.client = endpoint("198.51.100.2", static_cast<std::uint16_t>(1000 + id));
  flow.server = endpoint("203.0.113.2", 80);
  return flow;
}

std::vector<std::string> segmentsOf(const Folder& folder) {
  std::vector<std::string> segments;
  for (const unsigned number : folder.segments()) segments.push_back(capture_reader::readFile(folder.capture(number)));
  return segments;
}

// Sizes of all files ever written, as the disk saw them.
struct Sizes {
  std::mutex mutex;
  std::vector<std::pair<ino_t, std::uint64_t>> files;  // in order of their first write
};
Sizes& sizes() {
  static Sizes one;
  return one;
}
ssize_t watchedWrite(int file, const iovec* pieces, int count) {
  const ssize_t result = ::writev(file, pieces, count);
  struct stat now {};
  CHECK(fstat(file, &now) == 0);
  const std::lock_guard lock(sizes().mutex);
  auto& files = sizes().files;
  if (files.empty() || files.back().first != now.st_ino) files.emplace_back(now.st_ino, 0);
  files.back().second = static_cast<std::uint64_t>(now.st_size);
  return result;
}

// One long flow of a named program through a ring: what is left tells exactly what is lacking, and each file reads alone.
void ring() {
  const Folder folder;
  RecorderOptions options;
  options.folder = folder.path();
  options.version = "0.1.0";
  options.maxBytes = 1U << 20U;
  options.ring = true;
  options.segmentBytes = 200'000;
  options.memory = 64U << 20U;  // all of it: no gap but the one this test is about
  options.write = watchedWrite;
  int error = 0;
  const auto recorder = Recorder::open(options, error);
  CHECK(recorder != nullptr);
  Track& track = recorder->track(0);
  FlowRecord flow = newFlow(1), quiet = newFlow(2);
  track.opened(flow, FlowScope::kLocal, kTime);
  track.opened(quiet, FlowScope::kLocal, kTime);
  Program program{};
  program.pid = 77, program.name = "curl", program.path = "/usr/bin/curl", program.user = "dev", program.cmdline = {"curl", "x"};
  track.program(flow, program, kTime);
  track.connected(flow, flow.client, kTime + 1);
  const std::string chunk(20'000, 'r');
  for (int index = 0; index < 400; ++index) {
    track.flush();
    track.data(flow, index % 4 == 0 ? Direction::kUp : Direction::kDown, bytesOf(chunk), kTime + 2 + index);
  }
  track.finished(flow, Direction::kUp, kTime + 1000);
  track.finished(flow, Direction::kDown, kTime + 1000);
  track.closed(flow, CloseReason::kFinished, ClosedBy::kClient, kTime + 1001);
  track.closed(quiet, CloseReason::kGateClosed, ClosedBy::kGate, kTime + 1002);
  CHECK(recorder->finish(60'000));

  const std::vector<unsigned> numbers = folder.segments();
  const std::vector<std::string> segments = segmentsOf(folder);
  CHECK(numbers.front() > 1 && segments.size() >= 3);
  std::uint64_t left = 0;
  for (const std::string& segment : segments) {
    left += segment.size();
    CHECK(segment.size() < 200'000 + (128U << 10U));
  }
  CHECK(left <= *options.maxBytes);
  std::uint64_t lost = 0;
  for (std::size_t index = 0; index + 1 < numbers.front(); ++index) lost += sizes().files[index].second;

  const auto items = capture_reader::readAll(segments);
  std::string dropped;
  std::size_t heads = 0, opens = 0, processes = 0, wireshark = 0;
  for (const auto& item : items) {
    wireshark += item.wireshark;
    if (!item.isFact) {
      CHECK(item.packet.payload.empty() || item.packet.pid == 77U);
      continue;
    }
    const std::string type = capture_reader::field(item.json, "t");
    if (type == "dropped") dropped = item.json;
    if (type == "session") CHECK_EQ(capture_reader::number(item.json, "segment"), numbers[heads++]);
    if (type == "open") ++opens;
    if (type == "process") ++processes;
    if (type == "open") CHECK_EQ(capture_reader::field(item.json, "time"), std::to_string(kTime));
  }
  CHECK_EQ(capture_reader::number(dropped, "first"), 1U);
  CHECK_EQ(capture_reader::number(dropped, "last"), numbers.front() - 1U);
  CHECK_EQ(capture_reader::number(dropped, "bytes"), lost);
  CHECK_EQ(opens, segments.size() + 1);  // the long flow in each, the quiet one where it ended
  CHECK_EQ(processes, segments.size());
  CHECK_EQ(wireshark, segments.size());

  const auto accounts = capture_reader::accounts(items);
  const auto& account = accounts.at(1);
  for (int way = 0; way < 2; ++way) {
    CHECK(account.before[way] > 0);
    CHECK_EQ(account.before[way] + account.kept[way], flow.bytes[way]);
    CHECK_EQ(account.gaps[way], 0U);
    CHECK_EQ(account.finished[way], 1);
  }
  CHECK(account.connected && account.closed);
  CHECK(accounts.at(2).closed);

  for (const unsigned number : numbers) {
    const std::string command = "tshark -r " + folder.capture(number) + " -Y '_ws.malformed || _ws.expert.severity == 0x00800000' 2>&1 | grep -v '^Running as'";
    FILE* const pipe = popen(command.c_str(), "r");
    CHECK(pipe != nullptr);
    char text[256];
    CHECK(fgets(text, sizeof text, pipe) == nullptr);
    pclose(pipe);
  }
}

// A thread that wrote once and then has nothing to do is no reason to keep an old segment open; when it speaks again, it is in the newest.
void idleThread() {
  const Folder folder;
  RecorderOptions options;
  options.folder = folder.path();
  options.version = "0.1.0";
  options.tracks = 3;  // and one that never speaks
  options.segmentBytes = 64U << 10U;
  int error = 0;
  const auto recorder = Recorder::open(options, error);
  CHECK(recorder != nullptr);
  Track& idle = recorder->track(0);
  Track& busy = recorder->track(1);
  FlowRecord quiet = newFlow(1), loud = newFlow(2);
  idle.opened(quiet, FlowScope::kLocal, kTime);
  idle.flush();
  busy.opened(loud, FlowScope::kLocal, kTime);
  const std::string chunk(30'000, 'b');
  while (folder.segments().size() < 6) {  // the test's own time-out bounds this
    busy.data(loud, Direction::kUp, bytesOf(chunk), kTime);
    busy.flush();
  }
  while (recorder->state() != Recording::kOn) sched_yield();  // what was too much is written, and there is room again
  idle.data(quiet, Direction::kUp, bytesOf("late"), kTime);
  idle.flush();
  busy.closed(loud, CloseReason::kFinished, ClosedBy::kClient, kTime);
  idle.closed(quiet, CloseReason::kFinished, ClosedBy::kClient, kTime);
  CHECK(recorder->finish(60'000));
  const std::vector<std::string> segments = segmentsOf(folder);
  const auto accounts = capture_reader::accounts(capture_reader::readAll(segments));
  CHECK_EQ(accounts.at(2).kept[0] + accounts.at(2).gaps[0], loud.bytes[0]);  // the disk may be slower than this thread
  CHECK_EQ(accounts.at(1).kept[0], 4U);
  CHECK(segments.front().find("late") == std::string::npos);
  CHECK(capture_reader::accounts(capture_reader::read(segments.front())).contains(1));
}

// While a thread is in the middle of a turn the old segment waits for it, and only for it.
void middleOfTurn() {
  const Folder folder;
  RecorderOptions options;
  options.folder = folder.path();
  options.version = "0.1.0";
  options.tracks = 2;
  options.segmentBytes = 64U << 10U;
  int error = 0;
  const auto recorder = Recorder::open(options, error);
  CHECK(recorder != nullptr);
  Track& slow = recorder->track(0);
  Track& busy = recorder->track(1);
  FlowRecord first = newFlow(1), loud = newFlow(2);
  slow.opened(first, FlowScope::kLocal, kTime);  // not flushed: the turn goes on
  busy.opened(loud, FlowScope::kLocal, kTime);
  const std::string chunk(30'000, 'm');
  for (int index = 0; index < 40; ++index) {
    busy.data(loud, Direction::kUp, bytesOf(chunk), kTime);
    busy.flush();
  }
  CHECK_EQ(folder.segments().size(), 1U);
  slow.data(first, Direction::kUp, bytesOf("after the cut"), kTime);
  slow.flush();
  while (folder.segments().size() < 5) sched_yield();
  slow.closed(first, CloseReason::kFinished, ClosedBy::kClient, kTime);
  busy.closed(loud, CloseReason::kFinished, ClosedBy::kClient, kTime);
  CHECK(recorder->finish(60'000));
  const std::vector<std::string> segments = segmentsOf(folder);
  const auto accounts = capture_reader::accounts(capture_reader::readAll(segments));
  CHECK_EQ(accounts.at(2).kept[0], loud.bytes[0]);
  CHECK_EQ(accounts.at(1).kept[0], 13U);
  CHECK(capture_reader::accounts(capture_reader::read(segments.front())).contains(1));
  CHECK(segments.front().find("after the cut") == std::string::npos);
}

// A segment that cannot be begun ends the recording, not the relaying; what is there reads whole.
void noNext() {
  const Folder folder;
  RecorderOptions options;
  options.folder = folder.path();
  options.version = "0.1.0";
  options.segmentBytes = 64U << 10U;
  int error = 0;
  const auto recorder = Recorder::open(options, error);
  CHECK(recorder != nullptr);
  CHECK(mkdir(folder.capture(2).c_str(), 0700) == 0);
  Track& track = recorder->track(0);
  FlowRecord flow = newFlow(1);
  track.opened(flow, FlowScope::kLocal, kTime);
  const std::string chunk(30'000, 'n');
  while (recorder->state() != Recording::kStopped) {
    track.data(flow, Direction::kUp, bytesOf(chunk), kTime);
    track.flush();
  }
  CHECK_EQ(recorder->lastError(), EEXIST);
  track.closed(flow, CloseReason::kFinished, ClosedBy::kClient, kTime);
  CHECK(!recorder->finish(60'000));
  CHECK(capture_reader::accounts(capture_reader::read(capture_reader::readFile(folder.capture()))).at(1).kept[0] > 0);
}

}  // namespace

int main() {
  ring();
  idleThread();
  middleOfTurn();
  noNext();
  return passed();
}
