// A small capture byte by byte, and what tshark makes of it.
#include <sys/wait.h>

#include <cstdio>
#include <fstream>

#include "capture/pcapng.h"
#include "capture/recorder.h"
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

// A custom block around JSON, built here from nothing but the specification.
std::string factHex(const std::string& json) {
  std::string body = json;
  while (body.size() % 4 != 0) body += '\0';
  const auto length = static_cast<std::uint32_t>(24 + body.size());
  const auto little = [](std::uint32_t value) { return std::string(reinterpret_cast<const char*>(&value), 4); };
  return hex(little(0x0BAD) + little(length) + little(32473) + std::string("SLUICE1\0", 8) + body + little(length));
}

void head() {
  CHECK_EQ(hex(pcapng::buildHead("0.1.0", "Linux 6.1", true, 1)),
           "0a0d0d0a" "40000000" "4d3c2b1a" "01000000" "ffffffffffffffff"
           "03000900" "4c696e757820362e31000000"
           "04000c00" "536c7569636520302e312e30"
           "00000000" "40000000"
           "01000000" "2c000000" "6500" "0000" "00000000"
           "02000600" "736c756963650000" "09000100" "09000000" "00000000" "2c000000" +
               factHex(R"({"t":"session","version":1,"relay":"0.1.0","payload":true,"segment":1})"));
}

// A flow of four octets each way, both families, as the bytes after the head.
void flow4(Track& track) {
  FlowRecord flow;
  flow.id = 1;
  flow.client = endpoint("198.51.100.2", 40000);
  flow.server = endpoint("203.0.113.2", 80);
  track.opened(flow, FlowScope::kForwarded, kStart);
  track.connected(flow, endpoint("198.51.100.2", 40001), kStart + 1);
  track.data(flow, Direction::kUp, bytesOf("ping"), kStart + 2);
  track.data(flow, Direction::kDown, bytesOf("pong!"), kStart + 3);
  track.finished(flow, Direction::kUp, kStart + 4);
  track.finished(flow, Direction::kDown, kStart + 5);
  track.closed(flow, CloseReason::kFinished, ClosedBy::kClient, kStart + 6);
}

void flow6(Track& track) {
  FlowRecord flow;
  flow.id = 2;
  flow.client = endpoint("2001:db8::2", 40000);
  flow.server = endpoint("2001:db8:1::2", 443);
  track.opened(flow, FlowScope::kLocal, kStart + 7);
  track.program(flow, {.pid = 12, .ppid = 1, .uid = 1000, .name = "curl", .path = "/usr/bin/curl", .user = "dev", .cmdline = {"curl", "-v"}}, kStart + 8);
  track.connected(flow, endpoint("2001:db8::2", 40002), kStart + 9);
  track.data(flow, Direction::kUp, bytesOf("x"), kStart + 10);
  flow.legs[0] = TcpLeg{.rtt = 250, .minRtt = 200, .retransmits = 3, .mss = 1448};
  flow.legs[1] = TcpLeg{.rtt = 40'000, .minRtt = 0, .retransmits = 0, .mss = 1220};
  track.closed(flow, CloseReason::kServerReset, ClosedBy::kServer, kStart + 11);
}

// 1764000000000000000 is 0x187afca7 0x67ca0000: the timestamps below are that and a few nanoseconds.
const std::string kUpper = "a7fc7a18";
std::string stamp(int nanoseconds) {
  char text[9];
  std::snprintf(text, sizeof text, "%02x00ca67", static_cast<unsigned>(nanoseconds));
  return kUpper + text;
}

std::string packet4(int nanoseconds, bool up, int captured, const std::string& lengthAndSum, const std::string& tcp) {
  const std::uint32_t size = 28 + (static_cast<std::uint32_t>(captured) + 3U) / 4 * 4 + 16;
  const auto little = [](std::uint32_t value) { return hex(std::string(reinterpret_cast<const char*>(&value), 4)); };
  const std::string client = "c6336402", server = "cb007102";
  return "06000000" + little(size) + "00000000" + stamp(nanoseconds) + little(static_cast<std::uint32_t>(captured)) + little(static_cast<std::uint32_t>(captured)) +
         "4500" + lengthAndSum.substr(0, 4) + "00004000" "4006" + lengthAndSum.substr(4) + (up ? client + server : server + client) +
         (up ? "9c40" "0050" : "0050" "9c40") + tcp + "02000400" + (up ? "02000000" : "01000000") + "00000000" + little(size);
}

void bytes(const std::string& path) {
  const std::string all = capture_reader::readFile(path);
  const std::string session = "\"segment\":1}";
  const std::size_t after = (all.find(session) + session.size() + 3) / 4 * 4 + 4;
  const std::string got = hex(std::string_view(all).substr(after));

  const std::string four =
      factHex(R"({"t":"open","id":1,"proto":"tcp","scope":"forwarded","client":{"address":"198.51.100.2","port":40000},"server":{"address":"203.0.113.2","port":80},"time":"1764000000000000000"})") +
      packet4(0, true, 44, "002cd493", "00000000" "00000000" "6002ffff00000000" "03030e01") +
      factHex(R"({"t":"connected","id":1,"upstream":{"address":"198.51.100.2","port":40001},"time":"1764000000000000001"})") +
      packet4(1, false, 44, "002cd493", "00000000" "00000001" "6012ffff00000000" "03030e01") +
      packet4(1, true, 40, "0028d497", "00000001" "00000001" "5010ffff00000000") +
      packet4(2, true, 44, "002cd493", "00000001" "00000001" "5018ffff00000000" "70696e67") +
      packet4(3, false, 45, "002dd492", "00000001" "00000005" "5018ffff00000000" "706f6e6721" "000000") +
      packet4(4, true, 40, "0028d497", "00000005" "00000006" "5011ffff00000000") +
      packet4(5, false, 40, "0028d497", "00000006" "00000006" "5011ffff00000000") +
      factHex(R"({"t":"close","id":1,"time":"1764000000000000006","reason":"finished","closedBy":"client","bytesUp":4,"bytesDown":5})");
  CHECK_EQ(got.substr(0, four.size()), four);

  const std::string client = "20010db8000000000000000000000002", server = "20010db8000100000000000000000002";
  const std::string six =
      factHex(R"({"t":"open","id":2,"proto":"tcp","scope":"local","client":{"address":"2001:db8::2","port":40000},"server":{"address":"2001:db8:1::2","port":443},"time":"1764000000000000007"})") +
      "06000000" "6c000000" "00000000" + stamp(7) + "40000000" "40000000" + "60000000" "0018" "0640" + client + server +
      "9c4001bb" "00000000" "00000000" "6002ffff00000000" "03030e01" "02000400" "02000000" "00000000" "6c000000" +
      factHex(R"({"t":"process","id":2,"pid":12,"ppid":1,"name":"curl","path":"/usr/bin/curl","cmdline":["curl","-v"],"uid":1000,"user":"dev","time":"1764000000000000008"})") +
      "ad0b0000" "60000000" "6e7f0000" "03000000" "48000000" "0c000000"
      "02000400" "6375726c" "03000d00" "2f7573722f62696e2f6375726c000000" "04000700" "6375726c002d7600"
      "05000400" "01000000" "06000400" "e8030000" "07000300" "64657600" "00000000" "60000000" +
      factHex(R"({"t":"connected","id":2,"upstream":{"address":"2001:db8::2","port":40002},"time":"1764000000000000009"})") +
      "06000000" "78000000" "00000000" + stamp(9) + "40000000" "40000000" + "60000000" "0018" "0640" + server + client +
      "01bb9c40" "00000000" "00000001" "6012ffff00000000" "03030e01" "02000400" "01000000" "08000800" "0c000000" "00000000" "00000000" "78000000"
      "06000000" "74000000" "00000000" + stamp(9) + "3c000000" "3c000000" + "60000000" "0014" "0640" + client + server +
      "9c4001bb" "00000001" "00000001" "5010ffff00000000" "02000400" "02000000" "08000800" "0c000000" "00000000" "00000000" "74000000"
      "06000000" "78000000" "00000000" + stamp(10) + "3d000000" "3d000000" + "60000000" "0015" "0640" + client + server +
      "9c4001bb" "00000001" "00000001" "5018ffff00000000" "78000000" "02000400" "02000000" "08000800" "0c000000" "00000000" "00000000" "78000000"
      "06000000" "74000000" "00000000" + stamp(11) + "3c000000" "3c000000" + "60000000" "0014" "0640" + server + client +
      "01bb9c40" "00000001" "00000002" "5014ffff00000000" "02000400" "01000000" "08000800" "0c000000" "00000000" "00000000" "74000000" +
      factHex(R"({"t":"close","id":2,"time":"1764000000000000011","reason":"server-reset","closedBy":"server","bytesUp":1,"bytesDown":0,"clientLeg":{"rtt":250,"minRtt":200,"retransmits":3,"mss":1448},"serverLeg":{"rtt":40000,"retransmits":0,"mss":1220}})");
  CHECK_EQ(got.substr(four.size()), six);
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

// A longer flow too: chunks beyond what one packet holds, and every way a flow may end.
void longer(Track& track) {
  std::int64_t time = kStart + 1000;
  FlowRecord flow;
  flow.id = 3;
  flow.client = endpoint("198.51.100.3", 50000);
  flow.server = endpoint("203.0.113.2", 80);
  const std::string body(400'000, 'b');
  track.opened(flow, FlowScope::kLocal, ++time);
  track.connected(flow, endpoint("198.51.100.3", 50001), ++time);
  track.data(flow, Direction::kUp, bytesOf("GET /hello?x=1 HTTP/1.1\r\nHost: test\r\n\r\n"), ++time);
  track.data(flow, Direction::kDown, bytesOf("HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n"), ++time);
  for (std::size_t at = 0; at < body.size(); at += 65'536) track.data(flow, Direction::kDown, bytesOf(std::string_view(body).substr(at, 65'536)), ++time);
  track.finished(flow, Direction::kUp, ++time);
  track.finished(flow, Direction::kDown, ++time);
  track.closed(flow, CloseReason::kFinished, ClosedBy::kClient, ++time);

  int id = 10;
  for (const bool connected : {false, true}) {
    for (int reason = 0; reason <= static_cast<int>(CloseReason::kFailed); ++reason) {
      FlowRecord short_;
      short_.id = static_cast<std::uint64_t>(id);
      short_.client = endpoint("198.51.100.4", static_cast<std::uint16_t>(1000 + id++));
      short_.server = endpoint("203.0.113.2", 80);
      track.opened(short_, FlowScope::kLocal, ++time);
      if (connected) {
        track.connected(short_, short_.client, ++time);
        track.data(short_, Direction::kUp, bytesOf("hello"), ++time);
      }
      track.closed(short_, static_cast<CloseReason>(reason), ClosedBy::kNone, ++time);
    }
  }
}

void wireshark(const Folder& folder) {
  const std::string tshark = "tshark -r " + folder.capture() + " 2>" + folder.path() + "/stderr ";
  CHECK_EQ(output(tshark + "-Y _ws.malformed"), "");
  CHECK_EQ(output(tshark + "-Y tcp.analysis.flags -T fields -e frame.number -e tcp.analysis.flags"), "");
  CHECK_EQ(output(tshark + "-o ip.check_checksum:TRUE -Y ip.checksum.status==Bad"), "");
  CHECK_EQ(output(tshark + "-Y 'http && tcp.srcport==50000' -T fields -e http.request.uri"), "/hello?x=1\n");
  CHECK_EQ(output(tshark + "-Y 'http && tcp.dstport==50000' -T fields -e http.response.code -e http.content_length"), "200\t400000\n");
  const std::string said = capture_reader::readFile(folder.path() + "/stderr");
  std::string rest;
  for (std::size_t at = 0; at < said.size();) {
    const std::size_t end = said.find('\n', at);
    const std::string line = said.substr(at, end - at);
    if (line.find("Running as user \"root\"") == std::string::npos) rest += line;
    if (end == std::string::npos) break;
    at = end + 1;
  }
  CHECK_EQ(rest, "");
}

// Which resets stand in the file, by how the flow ended.
void endings(const std::string& path) {
  const auto flows = capture_reader::accounts(capture_reader::read(capture_reader::readFile(path)));
  int id = 10;
  for (const bool connected : {false, true}) {
    for (int index = 0; index <= static_cast<int>(CloseReason::kFailed); ++index, ++id) {
      const auto& flow = flows.at(static_cast<std::uint64_t>(id));
      const auto reason = static_cast<CloseReason>(index);
      const bool ours = reason == CloseReason::kGateClosed || reason == CloseReason::kShed || reason == CloseReason::kFailed;
      CHECK_EQ(flow.reason, std::string(pcapng::name(reason)));
      CHECK_EQ(flow.resets[0], reason == CloseReason::kClientReset || (ours && connected) ? 1 : 0);
      CHECK_EQ(flow.resets[1], reason == CloseReason::kServerReset || reason == CloseReason::kRefused || ours ? 1 : 0);
    }
  }
}

}  // namespace

int main() {
  head();
  {
    const Folder folder;
    int error = 0;
    const auto recorder = Recorder::open({.folder = folder.path(), .version = "0.1.0"}, error);
    CHECK(recorder != nullptr);
    flow4(recorder->track(0));
    flow6(recorder->track(0));
    CHECK(recorder->finish(60'000));
    bytes(folder.capture());
    CHECK_EQ(output("stat -c %a " + folder.capture()), "600\n");

    // The file is never opened where one is already.
    error = 0;
    CHECK(Recorder::open({.folder = folder.path(), .version = "0.1.0"}, error) == nullptr);
    CHECK_EQ(error, EEXIST);
    error = 0;
    CHECK(Recorder::open({.folder = folder.path() + "/none", .version = "0.1.0"}, error) == nullptr);
    CHECK_EQ(error, ENOENT);
  }
  {
    const Folder folder;
    int error = 0;
    const auto recorder = Recorder::open({.folder = folder.path(), .version = "0.1.0"}, error);
    CHECK(recorder != nullptr);
    flow4(recorder->track(0));
    flow6(recorder->track(0));
    longer(recorder->track(0));
    CHECK(recorder->finish(60'000));
    endings(folder.capture());
    wireshark(folder);
  }
  return passed();
}
