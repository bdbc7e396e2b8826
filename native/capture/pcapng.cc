#include "capture/pcapng.h"

#include <arpa/inet.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "capture/packet_block.h"
#include "capture/text.h"

namespace sluice::pcapng {

static_assert(std::endian::native == std::endian::little, "the capture is little-endian and written by plain stores");

namespace {

constexpr std::uint32_t kSectionHeader = 0x0A0D0D0A, kInterfaceDescription = 1, kCustomCopyable = 0x00000BAD;
constexpr std::uint32_t kPadding = 0x80534C50;  // among the types left for local use: readers skip it without a word
constexpr std::uint32_t kSluicePen = 32473;     // for examples, RFC 5612
constexpr std::uint32_t kWiresharkPen = 32622;

template <typename Value>
void append(std::string& out, Value value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void appendPadded(std::string& out, std::string_view bytes) {
  out.append(bytes);
  out.append(padded(bytes.size()) - bytes.size(), '\0');
}

void appendOption(std::string& out, std::uint16_t code, std::string_view value) {
  append(out, code);
  append(out, static_cast<std::uint16_t>(value.size()));
  appendPadded(out, value);
}

// Starts a block; endBlock fills in its length on both sides.
std::size_t beginBlock(std::string& out, std::uint32_t type) {
  const std::size_t start = out.size();
  append(out, type);
  append(out, std::uint32_t{0});
  return start;
}

void endBlock(std::string& out, std::size_t start) {
  const auto length = static_cast<std::uint32_t>(out.size() - start + 4);
  append(out, length);
  std::memcpy(out.data() + start + 4, &length, sizeof length);
}

std::size_t tcpHeader(std::uint8_t flags) { return (flags & kSyn) != 0 ? 24 : 20; }

void appendKey(std::string& json, std::string_view key) {
  json += ",\"";
  json += key;
  json += "\":";
}

void appendTime(std::string& json, std::int64_t nanoseconds) {
  appendKey(json, "time");
  json += '"';
  appendNumber(json, nanoseconds);
  json += '"';
}

void beginFact(std::string& json, std::string_view type, std::uint64_t id) {
  json += "{\"t\":\"";
  json += type;
  json += "\",\"id\":";
  appendNumber(json, id);
}

void appendEndpoint(std::string& json, std::string_view key, const Endpoint& endpoint) {
  appendKey(json, key);
  json += "{\"address\":\"";
  appendAddress(json, endpoint);
  json += "\",\"port\":";
  appendNumber(json, std::uint64_t{endpoint.port()});
  json += '}';
}

void appendAgain(std::string& json) { json += R"(,"again":true)"; }

std::string_view bounded(std::string_view text, std::size_t most) { return text.substr(0, most); }

constexpr std::size_t kMaxName = 256, kMaxPath = 4096, kMaxWords = 32, kMaxCommand = 4096;

// Calls `each` with the words of the command line that fit the bounds.
template <typename Each>
void eachWord(const Program& program, Each each) {
  std::size_t left = kMaxCommand;
  for (std::size_t index = 0; index < program.cmdline.size() && index < kMaxWords; ++index) {
    const std::string_view word = bounded(program.cmdline[index], left);
    each(word);
    left -= word.size();
    if (left == 0) return;
  }
}

}  // namespace

std::size_t packetSize(bool v4, std::uint8_t flags, std::size_t payload, bool named) {
  return blockSize((v4 ? 20U : 40U) + tcpHeader(flags) + payload, named);
}

std::size_t payloadAt(bool v4, std::uint8_t flags) { return 28 + (v4 ? 20U : 40U) + tcpHeader(flags); }

std::size_t writePacket(std::byte* out, const Segment& segment, std::span<const std::byte> payload) {
  const bool v4 = segment.from->v4();
  const std::size_t tcp = tcpHeader(segment.flags);
  const std::size_t captured = (v4 ? 20U : 40U) + tcp + payload.size();
  const std::size_t size = packetSize(v4, segment.flags, payload.size(), segment.pid != 0);

  std::byte* at = beginPacket(out, {segment.from, segment.to, IPPROTO_TCP, segment.nanoseconds, size, captured});
  at = put(at, htons(segment.from->port()));
  at = put(at, htons(segment.to->port()));
  at = put(at, htonl(segment.sequence));
  at = put(at, htonl(segment.acknowledgement));
  at = put(at, static_cast<std::uint8_t>(tcp << 2U));
  at = put(at, segment.flags);
  at = put(at, std::uint16_t{0xFFFF});   // window
  at = put(at, std::uint32_t{0});        // checksum (filled in on export), urgent pointer
  if (tcp == 24) {
    // A window scale of 14 (RFC 7323), which is the truth in a sense: what the relay holds bounds the peers, not this window.
    // Without it a reader would believe in 64 KiB and call a longer run of data a full window.
    at = put(at, std::uint32_t{0x010E0303U});
  }

  if (!payload.empty() && payload.data() != at) std::memcpy(at, payload.data(), payload.size());
  endPacket(at + payload.size(), captured, segment.direction, segment.pid, size);
  return size;
}

void writePadding(std::byte* out, std::size_t bytes) {
  const auto length = static_cast<std::uint32_t>(bytes);
  out = put(put(out, kPadding), length);
  std::memset(out, 0, bytes - 12);
  put(out + bytes - 12, length);
}

std::string buildHead(std::string_view version, std::string_view os, bool payload, std::uint32_t segment) {
  std::string out;
  std::string text = "Sluice ";
  appendUtf8(text, version, 64);

  std::size_t start = beginBlock(out, kSectionHeader);
  append(out, std::uint32_t{0x1A2B3C4D});
  append(out, std::uint16_t{1});
  append(out, std::uint16_t{0});
  append(out, std::int64_t{-1});         // section length: not known, it grows
  if (!os.empty()) appendOption(out, 3, bounded(os, 256));
  appendOption(out, 4, text);
  append(out, std::uint32_t{0});
  endBlock(out, start);

  start = beginBlock(out, kInterfaceDescription);
  append(out, std::uint16_t{101});       // LINKTYPE_RAW
  append(out, std::uint16_t{0});
  append(out, std::uint32_t{0});         // no snap length
  appendOption(out, 2, "sluice");
  appendOption(out, 9, std::string_view("\x09", 1));
  append(out, std::uint32_t{0});
  endBlock(out, start);

  std::string json = R"({"t":"session","version":1,"relay":)";
  appendJsonString(json, bounded(version, 64));
  json += payload ? R"(,"payload":true)" : R"(,"payload":false)";
  appendKey(json, "segment");
  appendNumber(json, std::uint64_t{segment});
  json += '}';
  appendFact(out, json);
  return out;
}

void appendFact(std::string& out, std::string_view json) {
  const std::size_t start = beginBlock(out, kCustomCopyable);
  append(out, kSluicePen);
  out.append("SLUICE1\0", 8);
  appendPadded(out, json);
  endBlock(out, start);
}

void appendOpen(std::string& json, const FlowRecord& flow, bool again) {
  beginFact(json, "open", flow.id);
  json += flow.udp ? R"(,"proto":"udp","scope":)" : R"(,"proto":"tcp","scope":)";
  json += flow.scope == FlowScope::kLocal ? R"("local")" : flow.scope == FlowScope::kIncoming ? R"("incoming")" : R"("forwarded")";
  appendEndpoint(json, "client", flow.client);
  appendEndpoint(json, "server", flow.server);
  appendTime(json, flow.openedAt);
  if (again) {
    appendAgain(json);
    appendKey(json, "bytesUp");
    appendNumber(json, flow.placed[0]);
    appendKey(json, "bytesDown");
    appendNumber(json, flow.placed[1]);
    if (flow.udp) {
      appendKey(json, "datagramsUp");
      appendNumber(json, flow.placedDatagrams[0]);
      appendKey(json, "datagramsDown");
      appendNumber(json, flow.placedDatagrams[1]);
    }
  }
  json += '}';
}

void appendProcess(std::string& json, std::uint64_t id, const Program& program, std::int64_t nanoseconds, bool again) {
  beginFact(json, "process", id);
  appendKey(json, "pid");
  appendNumber(json, program.pid);
  appendKey(json, "ppid");
  appendNumber(json, program.ppid);
  appendKey(json, "name");
  appendJsonString(json, bounded(program.name, kMaxName));
  appendKey(json, "path");
  appendJsonString(json, bounded(program.path, kMaxPath));
  appendKey(json, "cmdline");
  json += '[';
  bool first = true;
  eachWord(program, [&](std::string_view word) {
    if (!first) json += ',';
    first = false;
    appendJsonString(json, word);
  });
  json += ']';
  appendKey(json, "uid");
  appendNumber(json, std::uint64_t{program.uid});
  appendKey(json, "user");
  appendJsonString(json, bounded(program.user, kMaxName));
  appendTime(json, nanoseconds);
  if (again) appendAgain(json);
  json += '}';
}

void appendConnected(std::string& json, const FlowRecord& flow, bool again) {
  beginFact(json, "connected", flow.id);
  appendEndpoint(json, "upstream", flow.upstream);
  appendTime(json, flow.connectedAt);
  if (again) appendAgain(json);
  json += '}';
}

void appendHanded(std::string& json, const FlowRecord& flow, bool again) {
  beginFact(json, "handed", flow.id);
  appendKey(json, "via");
  json += flow.via;
  appendTime(json, flow.handedAt);
  if (again) appendAgain(json);
  json += '}';
}

void appendDropped(std::string& json, std::uint32_t first, std::uint32_t last, std::uint64_t bytes, std::int64_t nanoseconds) {
  json += R"({"t":"dropped","first":)";
  appendNumber(json, std::uint64_t{first});
  appendKey(json, "last");
  appendNumber(json, std::uint64_t{last});
  appendKey(json, "bytes");
  appendNumber(json, bytes);
  appendTime(json, nanoseconds);
  json += '}';
}

void appendGap(std::string& json, std::uint64_t id, Direction direction, std::uint64_t bytes, std::uint64_t datagrams, std::string_view reason, std::int64_t nanoseconds) {
  beginFact(json, "gap", id);
  json += direction == Direction::kUp ? R"(,"direction":"up","bytes":)" : R"(,"direction":"down","bytes":)";
  appendNumber(json, bytes);
  if (datagrams != 0) {
    appendKey(json, "datagrams");
    appendNumber(json, datagrams);
  }
  json += R"(,"reason":")";
  json += reason;
  json += '"';
  appendTime(json, nanoseconds);
  json += '}';
}

namespace {

void appendLeg(std::string& json, std::string_view key, const std::optional<TcpLeg>& leg) {
  if (!leg) return;
  appendKey(json, key);
  json += R"({"rtt":)";
  appendNumber(json, std::uint64_t{leg->rtt});
  const auto member = [&](std::string_view name, std::uint32_t value) {
    appendKey(json, name);
    appendNumber(json, std::uint64_t{value});
  };
  if (leg->minRtt != 0) member("minRtt", leg->minRtt);
  member("retransmits", leg->retransmits);
  member("mss", leg->mss);
  json += '}';
}

}  // namespace

void appendClose(std::string& json, const FlowRecord& flow, CloseReason reason, ClosedBy by, std::int64_t nanoseconds) {
  beginFact(json, "close", flow.id);
  appendTime(json, nanoseconds);
  json += R"(,"reason":")";
  json += name(reason);
  json += R"(","closedBy":")";
  json += name(by);
  json += R"(","bytesUp":)";
  appendNumber(json, flow.bytes[0]);
  json += R"(,"bytesDown":)";
  appendNumber(json, flow.bytes[1]);
  if (flow.udp) {
    const auto pair = [&](std::string_view up, std::string_view down, const std::uint64_t (&counts)[2]) {
      appendKey(json, up);
      appendNumber(json, counts[0]);
      appendKey(json, down);
      appendNumber(json, counts[1]);
    };
    pair("datagramsUp", "datagramsDown", flow.datagrams);
    if ((flow.lost[0] | flow.lost[1]) != 0) pair("lostUp", "lostDown", flow.lost);
  }
  appendLeg(json, "clientLeg", flow.legs[0]);
  appendLeg(json, "serverLeg", flow.legs[1]);
  json += '}';
}

void appendWiresharkProcess(std::string& out, const Program& program) {
  const std::size_t start = beginBlock(out, kCustomCopyable);
  append(out, kWiresharkPen);
  append(out, std::uint32_t{3});         // process information
  append(out, std::uint32_t{0});         // length of the entry, below
  const std::size_t entry = out.size();
  append(out, static_cast<std::uint32_t>(program.pid));

  std::string text;
  const auto option = [&](std::uint16_t code, std::string_view raw, std::size_t most) {
    text.clear();
    appendUtf8(text, raw, most);
    if (!text.empty()) appendOption(out, code, text);
  };
  option(2, program.name, kMaxName);
  option(3, program.path, kMaxPath);
  std::string command;
  bool first = true;
  eachWord(program, [&](std::string_view word) {
    if (!first) command += '\0';
    first = false;
    command += word;
  });
  option(4, command, 3 * kMaxCommand);
  append(out, std::uint16_t{5});
  append(out, std::uint16_t{4});
  append(out, static_cast<std::uint32_t>(program.ppid));
  append(out, std::uint16_t{6});
  append(out, std::uint16_t{4});
  append(out, program.uid);
  option(7, program.user, kMaxName);
  append(out, std::uint32_t{0});
  const auto length = static_cast<std::uint32_t>(out.size() - entry);
  std::memcpy(out.data() + entry - 4, &length, sizeof length);
  endBlock(out, start);
}

std::string_view name(CloseReason reason) {
  switch (reason) {
    case CloseReason::kFinished: return "finished";
    case CloseReason::kClientReset: return "client-reset";
    case CloseReason::kServerReset: return "server-reset";
    case CloseReason::kRefused: return "refused";
    case CloseReason::kUnreachable: return "unreachable";
    case CloseReason::kTimedOut: return "timed-out";
    case CloseReason::kGateClosed: return "gate-closed";
    case CloseReason::kShed: return "shed";
    case CloseReason::kFailed: return "failed";
    case CloseReason::kIdle: return "idle";
  }
  return "failed";
}

std::string_view name(ClosedBy by) {
  switch (by) {
    case ClosedBy::kNone: return "none";
    case ClosedBy::kClient: return "client";
    case ClosedBy::kServer: return "server";
    case ClosedBy::kGate: return "gate";
  }
  return "none";
}

}  // namespace sluice::pcapng
