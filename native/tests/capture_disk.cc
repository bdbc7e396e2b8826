// A disk that is full, limited, failing or hanging ends the recording at most; the file reads whole, and nobody waits.
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <functional>
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

std::unique_ptr<Recorder> openIn(const std::string& folder, std::function<void(RecorderOptions&)> more = {}) {
  RecorderOptions options;
  options.folder = folder;
  options.version = "0.1.0";
  if (more) more(options);
  int error = 0;
  auto recorder = Recorder::open(options, error);
  CHECK(recorder != nullptr);
  return recorder;
}

// Relays until the recording has stopped, then a little more, which must do no harm.
void relayUntilStopped(Recorder& recorder) {
  Track& track = recorder.track(0);
  const std::string chunk(10'000, 'd');
  FlowRecord flow = newFlow(1);
  track.opened(flow, FlowScope::kLocal, kTime);
  track.connected(flow, flow.client, kTime);
  while (recorder.state() != Recording::kStopped) {
    track.data(flow, Direction::kDown, bytesOf(chunk), kTime);
    track.flush();
  }
  const std::uint64_t before = flow.bytes[1];
  for (int more = 0; more < 1000; ++more) track.data(flow, Direction::kDown, bytesOf(chunk), kTime);
  CHECK_EQ(flow.bytes[1], before + 1000 * chunk.size());
  track.finished(flow, Direction::kUp, kTime);
  track.closed(flow, CloseReason::kFinished, ClosedBy::kClient, kTime);
  FlowRecord late = newFlow(2);
  track.opened(late, FlowScope::kLocal, kTime);
  track.program(late, {}, kTime);
  track.connected(late, late.client, kTime);
  track.data(late, Direction::kUp, bytesOf("x"), kTime);
  track.closed(late, CloseReason::kFinished, ClosedBy::kClient, kTime);
  track.flush();
  CHECK(!late.opened);
}

void readsWhole(const std::string& path, std::size_t most) {
  const std::string bytes = capture_reader::readFile(path);
  CHECK(bytes.size() <= most && bytes.size() > most / 2);
  const auto flows = capture_reader::accounts(capture_reader::read(bytes));
  CHECK_EQ(flows.size(), 1U);
  CHECK(flows.at(1).opened && !flows.at(1).closed && flows.at(1).kept[1] > 0);
}

// In a child with a mount namespace of its own: the file system is gone with it.
void inChild(const std::function<void()>& work) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    work();
    std::fflush(stdout);
    _exit(0);
  }
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 0);
}

void fullDisk() {
  inChild([] {
    const Folder folder;
    CHECK(unshare(CLONE_NEWNS) == 0);
    CHECK(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    CHECK(mount("sluice", folder.path().c_str(), "tmpfs", 0, "size=1m") == 0);
    const auto recorder = openIn(folder.path());
    relayUntilStopped(*recorder);
    CHECK_EQ(recorder->lastError(), ENOSPC);
    CHECK(!recorder->finish(60'000));
    readsWhole(folder.capture(), 1U << 20U);

    // No room even for the head: no capture, and no empty file that looks like one.
    CHECK(mkdir((folder.path() + "/second").c_str(), 0700) == 0);
    const int filler = open((folder.path() + "/filler").c_str(), O_WRONLY | O_CREAT, 0600);
    const std::string block(4096, 'f');
    while (write(filler, block.data(), block.size()) > 0) {
    }
    CHECK_EQ(errno, ENOSPC);
    RecorderOptions options;
    options.folder = folder.path() + "/second";
    int error = 0;
    CHECK(Recorder::open(options, error) == nullptr);
    CHECK_EQ(error, ENOSPC);
    CHECK(access((folder.path() + "/second/capture-000001.pcapng").c_str(), F_OK) != 0);
    CHECK(umount2(folder.path().c_str(), MNT_DETACH) == 0);
  });
}

void limitedFile() {
  inChild([] {
    const Folder folder;
    signal(SIGXFSZ, SIG_DFL);  // even where nobody ignores it, it must not end the relay
    const rlimit limit{300'001, 300'001};
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    const auto recorder = openIn(folder.path());
    relayUntilStopped(*recorder);
    CHECK_EQ(recorder->lastError(), EFBIG);
    CHECK(!recorder->finish(60'000));
    readsWhole(folder.capture(), 300'001);
  });
}

// A write error anywhere, even in the middle of a block or of its header.
void failingDisk() {
  for (std::uint64_t after = 0; after < 25'000; after += 1 + after / 40) {
    disk::reset();
    disk::script().failAfter = after;
    disk::script().error = EIO;
    const Folder folder;
    const auto recorder = openIn(folder.path(), [](RecorderOptions& options) { options.write = disk::write; });
    relayUntilStopped(*recorder);
    CHECK_EQ(recorder->lastError(), EIO);
    CHECK(!recorder->finish(60'000));
    const std::string bytes = capture_reader::readFile(folder.capture());
    capture_reader::accounts(capture_reader::read(bytes));
    CHECK(bytes.size() <= after + 1000);
  }
}

// Short writes and interruptions lose nothing.
void moodyDisk() {
  disk::reset();
  disk::script().shortWrites = true;
  const Folder folder;
  const auto recorder = openIn(folder.path(), [](RecorderOptions& options) { options.write = disk::write; });
  Track& track = recorder->track(0);
  const std::string chunk(30'000, 'm');
  FlowRecord flow = newFlow(1);
  track.opened(flow, FlowScope::kLocal, kTime);
  for (int index = 0; index < 100; ++index) track.data(flow, Direction::kUp, bytesOf(chunk), kTime);
  track.closed(flow, CloseReason::kFinished, ClosedBy::kClient, kTime);
  CHECK(recorder->finish(60'000));
  CHECK(recorder->state() == Recording::kOn);
  const auto account = capture_reader::accounts(capture_reader::read(capture_reader::readFile(folder.capture()))).at(1);
  CHECK_EQ(account.kept[0], 3'000'000U);
  CHECK(account.closed);
}

// The disk takes nothing any more, ever: every call of the track returns, memory stays bounded, and so does the end.
void hangingDisk() {
  inChild([] {
    disk::reset();
    disk::setStill(true);
    const Folder folder;
    const auto recorder = openIn(folder.path(), [](RecorderOptions& options) {
      options.write = disk::write;
      options.memory = 4U << 20U;
    });
    Track& track = recorder->track(0);
    const std::string chunk(60'000, 'h');
    rusage before{};
    getrusage(RUSAGE_SELF, &before);
    for (std::uint64_t id = 1; id <= 20'000; ++id) {
      FlowRecord flow = newFlow(id);
      track.opened(flow, FlowScope::kLocal, kTime);
      track.connected(flow, flow.client, kTime);
      track.data(flow, Direction::kUp, bytesOf(chunk), kTime);
      track.finished(flow, Direction::kUp, kTime);
      track.closed(flow, CloseReason::kFinished, ClosedBy::kClient, kTime);
      track.flush();
    }
    rusage after{};
    getrusage(RUSAGE_SELF, &after);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(after.ru_maxrss - before.ru_maxrss < 12'000);  // KiB; 1.2 GB were relayed
#endif
    CHECK(recorder->state() == Recording::kSlow);
    disk::awaitWaiting();
    CHECK(!recorder->finish(50));
    CHECK(!recorder->finish(50));
    // Nothing else of us is stuck: the process ends while the writer still waits.
  });
}

// A disk that stands still for a while: the recording goes on afterwards, and what was lost is told once, exactly.
void resumingDisk() {
  disk::reset();
  disk::setStill(true);
  const Folder folder;
  const auto recorder = openIn(folder.path(), [](RecorderOptions& options) {
    options.write = disk::write;
    options.memory = 1;
  });
  Track& track = recorder->track(0);
  const std::string chunk(60'000, 'r');
  FlowRecord flow = newFlow(1);
  track.opened(flow, FlowScope::kLocal, kTime);
  track.connected(flow, flow.client, kTime);
  while (recorder->state() == Recording::kOn) track.data(flow, Direction::kUp, bytesOf(chunk), kTime);
  for (int index = 0; index < 1000; ++index) track.data(flow, Direction::kUp, bytesOf(chunk), kTime);
  disk::setStill(false);
  track.flush();
  while (recorder->state() != Recording::kOn) sched_yield();
  track.data(flow, Direction::kUp, bytesOf(chunk), kTime);
  track.finished(flow, Direction::kUp, kTime);
  track.closed(flow, CloseReason::kFinished, ClosedBy::kClient, kTime);
  CHECK(recorder->finish(60'000));
  const auto account = capture_reader::accounts(capture_reader::read(capture_reader::readFile(folder.capture()))).at(1);
  CHECK_EQ(account.kept[0] + account.gaps[0], flow.bytes[0]);
  CHECK(account.gaps[0] >= 1000 * chunk.size());
  CHECK_EQ(account.gapFacts, 1U);
  CHECK(account.closed && account.finished[0] == 1);
}

// Not even facts find room any more. Flows that were open are closed in the file later, with every byte accounted for; flows that came
// meanwhile are not there at all; and those beyond what is remembered stay open, as if the recording had ended for them.
void exhaustedReserve() {
  constexpr std::uint64_t kOpen = 5000, kRemembered = 4096;
  disk::reset();
  const Folder folder;
  const auto recorder = openIn(folder.path(), [](RecorderOptions& options) {
    options.write = disk::write;
    options.memory = 1;
  });
  Track& track = recorder->track(0);
  const std::string chunk(7, 'e');
  std::vector<FlowRecord> flows;
  for (std::uint64_t id = 1; id <= kOpen; ++id) {
    flows.push_back(newFlow(id));
    do {
      track.opened(flows.back(), FlowScope::kLocal, kTime);
      track.flush();
    } while (!flows.back().opened);  // the writer may be behind for a moment
  }
  while (recorder->state() != Recording::kOn) sched_yield();
  disk::setStill(true);
  std::uint64_t id = kOpen;
  for (;;) {
    FlowRecord late = newFlow(++id);
    track.opened(late, FlowScope::kLocal, kTime);
    if (!late.opened) break;
    track.closed(late, CloseReason::kRefused, ClosedBy::kServer, kTime);
  }
  for (FlowRecord& flow : flows) {
    track.data(flow, Direction::kUp, bytesOf(chunk), kTime);
    track.connected(flow, flow.client, kTime);
    track.data(flow, Direction::kDown, bytesOf(chunk), kTime);
    track.finished(flow, Direction::kUp, kTime);
    track.data(flow, Direction::kDown, bytesOf(chunk), kTime);
    track.closed(flow, CloseReason::kFinished, ClosedBy::kClient, kTime);
  }
  disk::setStill(false);
  while (recorder->state() != Recording::kOn) sched_yield();
  FlowRecord after = newFlow(++id);
  do {
    track.flush();
    track.opened(after, FlowScope::kLocal, kTime);  // again once what was owed has been told
  } while (!after.opened);
  track.data(after, Direction::kUp, bytesOf(chunk), kTime);
  track.closed(after, CloseReason::kFinished, ClosedBy::kClient, kTime);
  CHECK(recorder->finish(60'000));

  const auto accounts = capture_reader::accounts(capture_reader::read(capture_reader::readFile(folder.capture())));
  std::uint64_t closed = 0;
  for (std::uint64_t open = 1; open <= kOpen; ++open) {
    const auto& account = accounts.at(open);
    CHECK(account.opened);
    if (!account.closed) continue;
    ++closed;
    CHECK_EQ(account.kept[0] + account.gaps[0], chunk.size());
    CHECK_EQ(account.kept[1] + account.gaps[1], 2 * chunk.size());
    CHECK_EQ(account.closeBytes[0], chunk.size());
    CHECK_EQ(account.reason, "finished");
  }
  CHECK(closed >= kRemembered && closed < kOpen);
  CHECK(!accounts.contains(id - 1));
  CHECK(accounts.at(id).closed);
}

// What a loop has flushed can be read in the file without the recording ending, whether the writer naps, sleeps or is busy.
void visible() {
  const Folder folder;
  const auto recorder = openIn(folder.path());
  Track& track = recorder->track(0);
  std::size_t size = capture_reader::readFile(folder.capture()).size();
  CHECK(size > 0);
  for (std::uint64_t id = 1; id <= 30; ++id) {
    FlowRecord flow = newFlow(id);
    track.opened(flow, FlowScope::kLocal, kTime);
    track.flush();
    track.closed(flow, CloseReason::kRefused, ClosedBy::kServer, kTime);
    track.flush();
    for (;;) {  // the test's own time-out bounds this
      const std::string bytes = capture_reader::readFile(folder.capture());
      if (bytes.size() > size && bytes.find("\"close\",\"id\":" + std::to_string(id)) != std::string::npos) {
        size = bytes.size();
        break;
      }
      sched_yield();
    }
    // Every third time the writer is given long enough to fall asleep for good; there is nothing to be told of that by.
    if (id % 3 == 0) poll(nullptr, 0, 130);
  }
  CHECK(recorder->finish(60'000));
}

}  // namespace

int main() {
  needRoot();
  fullDisk();
  limitedFile();
  failingDisk();
  moodyDisk();
  hangingDisk();
  resumingDisk();
  exhaustedReserve();
  visible();
  return passed();
}
