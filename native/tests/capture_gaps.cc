// Whatever the caps, the memory and the disk do: what a capture keeps of a flow and what it says it did not keep add up to what was
// relayed, in order, byte for byte. Random flows; a seed given as argument runs alone.
#include <cstdlib>
#include <map>
#include <random>
#include <sched.h>
#include <set>
#include <vector>

#include "capture/recorder.h"
#include "capture_disk_script.h"
#include "capture_fixture.h"
#include "capture_reader.h"
#include "check.h"

using namespace sluice;

namespace {

using Random = std::mt19937_64;

std::uint64_t upTo(Random& random, std::uint64_t most) { return random() % (most + 1); }

// The byte at a place of a stream, so that kept bytes can be known for the right ones.
char byteAt(std::uint64_t flow, int way, std::uint64_t at) { return static_cast<char>((flow * 31 + static_cast<std::uint64_t>(way) * 7 + at) * 2654435761U >> 16U); }

struct Wanted {
  std::uint64_t bytes[2] = {0, 0};
  bool opened = false, closed = false;
};

struct Totals {
  std::uint64_t slow = 0, flowCap = 0, sessionCap = 0, noPayload = 0, unopened = 0, recoveries = 0, segments = 0, dropped = 0, before = 0;
};

struct Flow {
  FlowRecord record;
  bool finished[2] = {false, false};
};

void oneSession(std::uint64_t seed, Totals& totals) {
  Random random(seed);
  disk::reset();
  const Folder folder;
  RecorderOptions options;
  options.folder = folder.path();
  options.version = "0.1.0";
  options.payload = upTo(random, 9) != 0;
  // Whether there was a moment without memory nobody but the recorder knows for certain; where there is enough for everything there was none.
  const std::uint64_t room = upTo(random, 2);
  const bool ample = room == 2;
  options.memory = room == 0 ? 1 : ample ? 64U << 20U : 1U << 20U;
  options.write = disk::write;
  if (upTo(random, 2) == 0) options.maxBytesPerFlow = upTo(random, 200'000);
  const std::uint64_t budget = upTo(random, 5);
  if (budget < 2) options.maxBytes = 1000 + upTo(random, 4'000'000);
  if (upTo(random, 1) == 0) options.segmentBytes = (64U << 10U) + upTo(random, 1'000'000);
  if (budget == 2) {
    options.ring = true;
    options.maxBytes = 2'000'000 + upTo(random, 4'000'000);
  }
  disk::script().shortWrites = upTo(random, 1) == 0;

  int error = 0;
  const auto recorder = Recorder::open(options, error);
  CHECK(recorder != nullptr);
  Track& track = recorder->track(0);

  std::map<std::uint64_t, Wanted> wanted;
  std::vector<Flow> flows(8);
  std::uint64_t ids = 0;
  std::int64_t time = 1'764'000'000'000'000'000;
  std::string chunk;
  bool still = false;

  const auto close = [&](Flow& flow) {
    if (flow.record.id == 0) return;
    track.closed(flow.record, static_cast<CloseReason>(upTo(random, 8)), ClosedBy::kClient, ++time);
    wanted[flow.record.id].closed = true;
    flow = {};
  };

  for (int step = 0; step < 1000; ++step) {
    Flow& flow = flows[upTo(random, flows.size() - 1)];
    ++time;
    const std::uint64_t dice = upTo(random, 99);
    if (dice < 2) {
      still = !still;
      disk::setStill(still);
      if (!still && recorder->state() == Recording::kSlow) {
        while (recorder->state() == Recording::kSlow) sched_yield();  // it must recover by itself
        ++totals.recoveries;
      }
    } else if (dice < 14) {
      close(flow);
      flow.record.id = ++ids;
      // Few addresses, so that they are used again and again, of both families.
      const auto port = static_cast<std::uint16_t>(1000 + (&flow - flows.data()));
      const bool v4 = port % 2 == 0;
      flow.record.client = endpoint(v4 ? "198.51.100.2" : "2001:db8::2", port);
      flow.record.server = endpoint(v4 ? "203.0.113.2" : "2001:db8:1::2", 80);
      track.opened(flow.record, FlowScope::kLocal, time);
      wanted[ids].opened = flow.record.opened;
      if (upTo(random, 2) == 0) {
        Program program{};
        program.pid = 1 + static_cast<std::int64_t>(upTo(random, 9999));
        program.name = std::string(upTo(random, 300), '\x1b');
        for (std::uint64_t word = upTo(random, 40); word > 0; --word) program.cmdline.emplace_back(upTo(random, 400), '\xFF');
        track.program(flow.record, program, time);
      }
      if (upTo(random, 5) != 0) track.connected(flow.record, flow.record.client, time);
    } else if (flow.record.id == 0) {
      continue;
    } else if (dice < 90) {
      const int way = static_cast<int>(upTo(random, 1));
      if (flow.finished[way]) continue;
      const std::uint64_t size = upTo(random, 3) == 0 ? upTo(random, 200'000) : upTo(random, 3000);
      std::uint64_t& sent = wanted[flow.record.id].bytes[way];
      chunk.resize(size);
      for (std::uint64_t at = 0; at < size; ++at) chunk[at] = byteAt(flow.record.id, way, sent + at);
      track.data(flow.record, static_cast<Direction>(way), bytesOf(chunk), time);
      sent += size;
    } else {
      const int way = static_cast<int>(upTo(random, 1));
      if (flow.finished[way]) continue;
      flow.finished[way] = true;
      track.finished(flow.record, static_cast<Direction>(way), time);
    }
    if (upTo(random, 3) == 0) track.flush();
  }
  disk::setStill(false);
  for (Flow& flow : flows) close(flow);
  CHECK(recorder->finish(60'000));

  const std::vector<unsigned> numbers = folder.segments();
  std::vector<std::string> segments;
  std::uint64_t size = 0;
  for (const unsigned number : numbers) {
    CHECK_EQ(number, numbers.front() + segments.size());
    segments.push_back(capture_reader::readFile(folder.capture(number)));
    size += segments.back().size();
  }
  const auto items = capture_reader::readAll(segments);
  totals.segments += numbers.size();
  if (options.ring) {
    CHECK(size <= *options.maxBytes);
  } else {
    CHECK_EQ(numbers.front(), 1U);
  }
  std::uint64_t lastDropped = 0;
  for (const auto& item : items) {
    if (item.isFact && capture_reader::field(item.json, "t") == "dropped") lastDropped = capture_reader::number(item.json, "last");
  }
  CHECK_EQ(lastDropped + 1, numbers.front());
  totals.dropped += lastDropped;
  const bool lost = lastDropped > 0;
  const auto accounts = capture_reader::accounts(items, true);
  for (const auto& [id, account] : accounts) {
    CHECK(wanted.at(id).opened);
    (void)account;
  }
  for (const auto& [id, want] : wanted) {
    if (!want.opened) {
      CHECK(!ample);
      CHECK(!accounts.contains(id));
      ++totals.unopened;
      continue;
    }
    if (lost && !accounts.contains(id)) continue;
    const auto& account = accounts.at(id);
    CHECK(account.opened);
    CHECK_EQ(account.closed, want.closed);
    for (int way = 0; way < 2; ++way) {
      CHECK_EQ(account.closeBytes[way], want.bytes[way]);
      totals.before += account.before[way];
      CHECK_EQ(account.before[way] + account.kept[way] + account.gaps[way], want.bytes[way]);
      CHECK(account.finished[way] <= 1);
    }
    const std::uint64_t kept = account.kept[0] + account.kept[1];
    if (options.maxBytesPerFlow) CHECK(kept <= *options.maxBytesPerFlow);
    if (!options.payload) CHECK_EQ(kept, 0U);
    const auto reason = [&](const char* name) {
      const auto found = account.gapsByReason.find(name);
      return found == account.gapsByReason.end() ? 0 : found->second;
    };
    if (ample) CHECK_EQ(reason("slow"), 0U);
    if (options.payload) CHECK_EQ(reason("no-payload"), 0U);
    if (!options.maxBytes || options.ring) CHECK_EQ(reason("session-cap"), 0U);
    if (reason("flow-cap") > 0 && reason("slow") + reason("session-cap") + account.before[0] + account.before[1] == 0) CHECK_EQ(kept, *options.maxBytesPerFlow);
    totals.slow += reason("slow");
    totals.flowCap += reason("flow-cap");
    totals.sessionCap += reason("session-cap");
    totals.noPayload += reason("no-payload");
  }
  // Each kept byte is the one that stood at its sequence number.
  std::map<std::string, std::uint64_t> current;
  for (const auto& item : items) {
    if (item.wireshark) continue;
    if (item.isFact) {
      if (capture_reader::field(item.json, "t") != "open") continue;
      const auto port = capture_reader::field(item.json.substr(item.json.find("\"client\"")), "port");
      current[port] = capture_reader::number(item.json, "id");
    } else {
      const std::string& ends = item.packet.addresses;
      const std::string client = item.packet.up ? ends.substr(0, ends.find('>')) : ends.substr(ends.find('>') + 1);
      const std::uint64_t id = current.at(client.substr(client.rfind(':') + 1));
      // Data of the client may stand before the server's SYN; the client's own sequence is past its SYN always.
      const std::uint32_t syn = item.packet.up || accounts.at(id).connected ? 1 : 0;
      for (std::size_t at = 0; at < item.packet.payload.size(); ++at) {
        if (item.packet.payload[at] != byteAt(id, item.packet.up ? 0 : 1, item.packet.sequence - syn + at)) CHECK(false);
      }
    }
  }
  // Payload ends where the limit of the file does, facts go on.
  if (options.maxBytes && !options.ring) {
    std::string bytes;
    for (const std::string& segment : segments) bytes += segment;
    std::size_t last = 0;
    for (std::size_t at = 0; at < bytes.size();) {
      const auto length = capture_reader::get<std::uint32_t>(bytes, at + 4);
      if (capture_reader::get<std::uint32_t>(bytes, at) == 6 && length > 150) last = at + length;
      at += length;
    }
    CHECK(last <= *options.maxBytes);
  }
}

}  // namespace

int main(int count, char** words) {
  Totals totals;
  if (count > 1) {
    oneSession(std::strtoull(words[1], nullptr, 10), totals);
    return passed();
  }
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
    std::fflush(stdout);
    oneSession(seed, totals);
  }
  std::printf("gaps: slow %llu, flow-cap %llu, session-cap %llu, no-payload %llu; unopened %llu; recoveries %llu; segments %llu, dropped %llu, bytes in them %llu\n",
              static_cast<unsigned long long>(totals.slow), static_cast<unsigned long long>(totals.flowCap),
              static_cast<unsigned long long>(totals.sessionCap), static_cast<unsigned long long>(totals.noPayload),
              static_cast<unsigned long long>(totals.unopened), static_cast<unsigned long long>(totals.recoveries),
              static_cast<unsigned long long>(totals.segments), static_cast<unsigned long long>(totals.dropped), static_cast<unsigned long long>(totals.before));
  std::fflush(stdout);
  // A run in which nothing of this happened would have tested nothing.
  CHECK(totals.slow > 0 && totals.flowCap > 0 && totals.sessionCap > 0 && totals.noPayload > 0 && totals.recoveries > 0);
  CHECK(totals.segments > 48 && totals.dropped > 0 && totals.before > 0);
  return passed();
}
