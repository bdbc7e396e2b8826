// Datagrams in the record: byte by byte, as tshark reads them, and whatever is not kept stated exactly.
#include <sys/wait.h>

#include <cstdio>
#include <map>
#include <random>
#include <vector>

#include "capture/pcapng.h"
#include "capture/recorder.h"
#include "capture_disk_script.h"
#include "capture_fixture.h"
#include "capture_reader.h"
#include "check.h"

using namespace sluice;

namespace {

constexpr std::int64_t kStart = 1'764'000'000'000'000'000;

std::string hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char byte : bytes) {
    out += kDigits[static_cast<std::uint8_t>(byte) >> 4U];
    out += kDigits[static_cast<std::uint8_t>(byte) & 15U];
  }
  return out;
}

std::unique_ptr<Recorder> openAt(const RecorderOptions& options) {
  int error = 0;
  auto recorder = Recorder::open(options, error);
  CHECK(recorder != nullptr);
  return recorder;
}

FlowRecord flowOf(std::uint64_t id, const std::string& client, std::uint16_t clientPort, const std::string& server, std::uint16_t serverPort) {
  FlowRecord flow;
  flow.id = id;
  flow.udp = true;
  flow.client = endpoint(client, clientPort);
  flow.server = endpoint(server, serverPort);
  return flow;
}

void golden() {
  const Folder folder;
  const auto recorder = openAt({.folder = folder.path(), .version = "0.1.0"});
  Track& track = recorder->track(0);
  FlowRecord four = flowOf(1, "198.51.100.2", 40000, "203.0.113.2", 53);
  track.opened(four, FlowScope::kForwarded, kStart);
  track.connected(four, endpoint("198.51.100.2", 40001), kStart + 1);
  track.datagram(four, Direction::kUp, bytesOf("ask"), kStart + 2);
  track.datagram(four, Direction::kDown, {}, kStart + 3);
  track.closed(four, CloseReason::kIdle, ClosedBy::kNone, kStart + 4);
  FlowRecord six = flowOf(2, "2001:db8::2", 40000, "2001:db8:1::2", 443);
  six.pid = 12;
  six.lost[1] = 3;
  track.opened(six, FlowScope::kLocal, kStart + 5);
  track.datagram(six, Direction::kDown, bytesOf("x"), kStart + 6);
  track.closed(six, CloseReason::kRefused, ClosedBy::kGate, kStart + 7);
  CHECK(recorder->finish(60'000));

  const std::string all = capture_reader::readFile(folder.capture());
  std::vector<std::string> facts, packets;
  for (std::size_t at = 0; at < all.size();) {
    const auto length = capture_reader::get<std::uint32_t>(all, at + 4);
    const auto type = capture_reader::get<std::uint32_t>(all, at);
    const std::string block = all.substr(at, length);
    if (type == 6) packets.push_back(hex(block));
    if (type == 0x0BAD) facts.push_back(block.c_str() + 20);
    at += length;
  }
  const std::vector<std::string> wantedFacts = {
      R"({"t":"open","id":1,"proto":"udp","scope":"forwarded","client":{"address":"198.51.100.2","port":40000},"server":{"address":"203.0.113.2","port":53},"time":"1764000000000000000"})",
      R"({"t":"connected","id":1,"upstream":{"address":"198.51.100.2","port":40001},"time":"1764000000000000001"})",
      R"({"t":"close","id":1,"time":"1764000000000000004","reason":"idle","closedBy":"none","bytesUp":3,"bytesDown":0,"datagramsUp":1,"datagramsDown":1})",
      R"({"t":"open","id":2,"proto":"udp","scope":"local","client":{"address":"2001:db8::2","port":40000},"server":{"address":"2001:db8:1::2","port":443},"time":"1764000000000000005"})",
      R"({"t":"close","id":2,"time":"1764000000000000007","reason":"refused","closedBy":"gate","bytesUp":0,"bytesDown":1,"datagramsUp":0,"datagramsDown":1,"lostUp":0,"lostDown":3})"};
  CHECK_EQ(facts.size(), wantedFacts.size() + 1);
  for (std::size_t i = 0; i < wantedFacts.size(); ++i) {
    std::string got = facts[i + 1];
    CHECK_EQ(got.substr(0, got.rfind('}') + 1), wantedFacts[i]);
  }
  CHECK_EQ(packets.size(), 3U);
  // Total length and header checksum: RFC 791 worked by hand.
  CHECK_EQ(packets[0], std::string("06000000" "4c000000" "00000000" "a7fc7a18" "0200ca67" "1f000000" "1f000000"
                                   "4500001f" "00004000" "4011d495" "c6336402" "cb007102" "9c400035" "000b0000" "61736b" "00"
                                   "02000400" "02000000" "00000000" "4c000000"));
  CHECK_EQ(packets[1], std::string("06000000" "48000000" "00000000" "a7fc7a18" "0300ca67" "1c000000" "1c000000"
                                   "4500001c" "00004000" "4011d498" "cb007102" "c6336402" "00359c40" "00080000"
                                   "02000400" "01000000" "00000000" "48000000"));
  CHECK_EQ(packets[2], std::string("06000000" "6c000000" "00000000" "a7fc7a18" "0600ca67" "31000000" "31000000"
                                   "60000000" "0009" "1140" "20010db8000100000000000000000002" "20010db8000000000000000000000002"
                                   "01bb9c40" "00090000" "78000000"
                                   "02000400" "01000000" "08000800" "0c000000" "00000000" "00000000" "6c000000"));
}

std::string output(const std::string& command) {
  FILE* const pipe = popen(command.c_str(), "r");
  CHECK(pipe != nullptr);
  std::string text;
  char bytes[4096];
  for (std::size_t length; (length = fread(bytes, 1, sizeof bytes, pipe)) > 0;) text.append(bytes, length);
  CHECK_EQ(pclose(pipe), 0);
  return text;
}

// A question of the DNS and the largest datagrams there are, of both families.
void wireshark() {
  const Folder folder;
  const auto recorder = openAt({.folder = folder.path(), .version = "0.1.0"});
  Track& track = recorder->track(0);
  const std::string query("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07sluice1\x04test\x00\x00\x01\x00\x01", 30);
  FlowRecord dns = flowOf(1, "198.51.100.2", 40000, "203.0.113.2", 53);
  track.opened(dns, FlowScope::kForwarded, kStart);
  track.datagram(dns, Direction::kUp, bytesOf(query), kStart + 1);
  track.closed(dns, CloseReason::kIdle, ClosedBy::kNone, kStart + 2);
  const std::string large4(65'507, 'a'), large6(pcapng::kMaxDatagram, 'b');
  FlowRecord four = flowOf(2, "198.51.100.2", 40001, "203.0.113.2", 9);
  track.opened(four, FlowScope::kForwarded, kStart + 3);
  track.datagram(four, Direction::kUp, bytesOf(large4), kStart + 4);
  FlowRecord six = flowOf(3, "2001:db8::2", 40001, "2001:db8:1::2", 9);
  track.opened(six, FlowScope::kForwarded, kStart + 5);
  track.datagram(six, Direction::kDown, bytesOf(large6), kStart + 6);
  CHECK(recorder->finish(60'000));
  const std::string tshark = "tshark -r " + folder.capture() + " 2>/dev/null ";
  CHECK_EQ(output(tshark + "-Y '_ws.malformed'"), "");
  CHECK_EQ(output(tshark + "-o ip.check_checksum:TRUE -Y ip.checksum.status==Bad"), "");
  CHECK_EQ(output(tshark + "-Y dns -T fields -e dns.qry.name"), "sluice1.test\n");
  CHECK_EQ(output(tshark + "-d udp.port==9,data -Y udp -T fields -e udp.length"), "38\n65515\n65535\n");
}

// Whatever is kept and whatever is not add up to what was relayed, in datagrams and in bytes, and what is kept is whole.
void gaps(std::uint64_t seed, std::map<std::string, std::uint64_t>& reasons) {
  std::mt19937_64 random(seed);
  const auto upTo = [&](std::uint64_t most) { return random() % (most + 1); };
  disk::reset();
  const Folder folder;
  RecorderOptions options;
  options.folder = folder.path();
  options.version = "0.1.0";
  options.payload = upTo(5) != 0;
  options.memory = 1;
  options.write = disk::write;
  options.segmentBytes = 64U << (10U + 2 * (seed % 8));
  if (upTo(2) == 0) options.maxBytesPerFlow = upTo(100'000);
  if (upTo(2) == 0) options.maxBytes = 1000 + upTo(2'000'000);
  const auto recorder = openAt(options);
  Track& track = recorder->track(0);
  struct Sent {
    std::vector<std::string> datagrams[2];
    std::uint64_t bytes[2] = {0, 0};
  };
  std::map<std::uint64_t, Sent> sent;
  std::map<std::uint64_t, FlowRecord> flows;
  std::int64_t time = kStart;
  bool still = false;
  for (int step = 0; step < 600; ++step) {
    if (upTo(50) == 0) disk::setStill(still = !still);
    const std::uint64_t id = 1 + upTo(5);
    if (!flows.contains(id)) {
      flows[id] = flowOf(id, id % 2 == 0 ? "198.51.100.2" : "2001:db8::2", static_cast<std::uint16_t>(1000 + id), id % 2 == 0 ? "203.0.113.2" : "2001:db8:1::2", 53);
      track.opened(flows[id], FlowScope::kLocal, ++time);
      if (!flows[id].opened) flows.erase(id);  // no memory even for that: not in the record at all
      continue;
    }
    const auto way = upTo(1);
    std::string datagram(upTo(3) == 0 ? upTo(65'507) : upTo(1500) * upTo(1), '\0');
    for (char& byte : datagram) byte = static_cast<char>(random());
    track.datagram(flows[id], static_cast<Direction>(way), bytesOf(datagram), ++time);
    sent[id].bytes[way] += datagram.size();
    sent[id].datagrams[way].push_back(std::move(datagram));
    if (upTo(3) == 0) track.flush();
  }
  disk::setStill(false);
  for (auto& [id, flow] : flows) track.closed(flow, CloseReason::kIdle, ClosedBy::kNone, ++time);
  CHECK(recorder->finish(60'000));

  std::vector<std::string> segments;
  for (const unsigned number : folder.segments()) segments.push_back(capture_reader::readFile(folder.capture(number)));
  const auto items = capture_reader::readAll(segments);
  const auto accounts = capture_reader::accounts(items);
  for (const auto& [id, flow] : flows) {
    const auto& account = accounts.at(id);
    CHECK(account.closed && account.udp);
    for (int way = 0; way < 2; ++way) {
      CHECK_EQ(account.closeDatagrams[way], sent[id].datagrams[way].size());
      CHECK_EQ(account.keptDatagrams[way] + account.gapDatagrams[way], sent[id].datagrams[way].size());
      CHECK_EQ(account.closeBytes[way], sent[id].bytes[way]);
      CHECK_EQ(account.kept[way] + account.gaps[way], sent[id].bytes[way]);
    }
    if (options.maxBytesPerFlow) CHECK(account.kept[0] + account.kept[1] <= *options.maxBytesPerFlow);
    for (const auto& [reason, bytes] : account.gapsByReason) reasons[reason] += bytes;
  }
  // What is kept is a subsequence of what was sent, datagram by datagram.
  std::map<std::string, std::pair<std::uint64_t, std::size_t>> places;
  for (const auto& item : items) {
    if (item.isFact) continue;
    const std::string& ends = item.packet.addresses;
    const std::string client = item.packet.up ? ends.substr(0, ends.find('>')) : ends.substr(ends.find('>') + 1);
    const std::uint64_t id = std::stoul(client.substr(client.rfind(':') + 1)) - 1000;
    const int way = item.packet.up ? 0 : 1;
    std::size_t& at = places[client + (way == 0 ? "u" : "d")].second;
    const auto& all = sent[id].datagrams[way];
    while (at < all.size() && all[at] != item.packet.payload) ++at;
    CHECK(at < all.size());
    ++at;
  }
}

}  // namespace

int main() {
  golden();
  wireshark();
  std::map<std::string, std::uint64_t> reasons;
  for (std::uint64_t seed = 1; seed <= 16; ++seed) gaps(seed, reasons);
  for (const char* reason : {"slow", "flow-cap", "session-cap", "no-payload"}) CHECK(reasons[reason] > 0);
  return passed();
}
