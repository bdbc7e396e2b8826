#include "control/message.h"

#include <arpa/inet.h>

#include <limits>

#include "control/json.h"

namespace sluice {
namespace {

// Reads the members of one object; the first that is missing or out of range is remembered.
class Reader {
 public:
  explicit Reader(const Json& json) : json_(json) {}

  std::int64_t integer(std::string_view key, std::int64_t least, std::int64_t most) {
    const Json* value = json_.member(key);
    const std::int64_t* number = value != nullptr ? value->integer() : nullptr;
    if (number == nullptr || *number < least || *number > most) return wrong(key), least;
    return *number;
  }
  bool boolean(std::string_view key) {
    const Json* value = json_.member(key);
    const bool* flag = value != nullptr ? value->boolean() : nullptr;
    if (flag == nullptr) return wrong(key), false;
    return *flag;
  }
  bool boolean(std::string_view key, bool otherwise) { return json_.member(key) == nullptr ? otherwise : boolean(key); }
  std::string text(std::string_view key, std::size_t longest) {
    const Json* value = json_.member(key);
    const std::string* found = value != nullptr ? value->text() : nullptr;
    if (found == nullptr || found->empty() || found->size() > longest || found->find('\0') != std::string::npos) return wrong(key), std::string{};
    return *found;
  }
  std::optional<std::uint64_t> limit(std::string_view key) {
    const Json* value = json_.member(key);
    if (value == nullptr || value->isNull()) return std::nullopt;
    const std::int64_t* number = value->integer();
    if (number == nullptr || *number < 0) return wrong(key), std::nullopt;
    return static_cast<std::uint64_t>(*number);
  }
  // As above, but what is not there keeps what it has.
  void optional(std::string_view key, bool& into) {
    if (json_.member(key) != nullptr) into = boolean(key);
  }
  void optional(std::string_view key, std::int64_t least, std::int64_t most, unsigned& into) {
    if (json_.member(key) != nullptr) into = static_cast<unsigned>(integer(key, least, most));
  }
  const Json& member(std::string_view key) {
    static const Json kNothing;
    const Json* value = json_.member(key);
    if (value == nullptr) return wrong(key), kNothing;
    return *value;
  }
  void wrong(std::string_view key) {
    if (wrong_.empty()) wrong_ = key;
  }
  [[nodiscard]] const std::string& wrong() const { return wrong_; }

 private:
  const Json& json_;
  std::string wrong_;
};

constexpr std::size_t kMaxRanges = 4096;  // of a plan's lists

bool parseRanges(const Json& json, std::vector<PortRange>& into) {
  const Json::Array* ranges = json.array();
  if (ranges == nullptr || ranges->size() > kMaxRanges) return false;
  for (const Json& each : *ranges) {
    Reader range(each);
    const auto from = static_cast<std::uint16_t>(range.integer("from", 1, 65535));
    const auto to = static_cast<std::uint16_t>(range.integer("to", from, 65535));
    if (!range.wrong().empty()) return false;
    into.push_back({from, to});
  }
  return true;
}

// Both may be absent.
void parseUdp(const Json& json, Reader& reader, UdpIdle& into, std::vector<PortRange>& refused) {
  if (const Json* idle = json.member("udpIdle")) {
    constexpr std::int64_t kDay = 86'400;
    Reader seconds(*idle);
    seconds.optional("dns", 1, kDay, into.dns);
    seconds.optional("quic", 1, kDay, into.quic);
    seconds.optional("other", 1, kDay, into.other);
    if (idle->object() == nullptr || !seconds.wrong().empty()) reader.wrong("udpIdle");
  }
  if (const Json* refuse = json.member("refuse"); refuse != nullptr && !parseRanges(*refuse, refused)) reader.wrong("refuse");
}

bool parseEndpoint(const std::string& address, std::uint16_t port, Endpoint& into) {
  auto& v4 = reinterpret_cast<sockaddr_in&>(into.storage);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(into.storage);
  if (inet_pton(AF_INET, address.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
  } else if (inet_pton(AF_INET6, address.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
  } else {
    return false;
  }
  into.setPort(port);
  return true;
}

bool parseHandOver(const Json& json, std::vector<HandOverWish>& into) {
  const Json::Array* wishes = json.array();
  if (wishes == nullptr || wishes->size() > 128) return false;
  for (const Json& each : *wishes) {
    Reader reader(each);
    HandOverWish wish;
    std::vector<PortRange> ports;
    if (!parseRanges(reader.member("ports"), ports)) return false;
    for (const PortRange& range : ports) wish.ports.push_back({range.from, range.to});
    const std::string kind = reader.text("kind", 16);
    if (kind != "proxy-v2" && kind != "socks5" && kind != "tproxy") return false;
    wish.kind = kind == "socks5" ? HandOverWish::Kind::kSocks5 : kind == "tproxy" ? HandOverWish::Kind::kTproxy : HandOverWish::Kind::kProxyV2;
    if (kind == "tproxy") wish.mark = static_cast<std::uint32_t>(reader.integer("mark", 1, std::numeric_limits<std::uint32_t>::max()));
    if (each.member("path") != nullptr) {
      wish.path = reader.text("path", 107);
      if (kind != "proxy-v2" || wish.path.empty() || wish.path.front() != '/') return false;
    } else {
      const std::string address = reader.text("address", 64);
      const auto port = static_cast<std::uint16_t>(reader.integer("port", 1, 65535));
      if (!parseEndpoint(address, port, wish.proxy)) return false;
    }
    if (!reader.wrong().empty()) return false;
    into.push_back(std::move(wish));
  }
  return true;
}

ControlMessage parseStart(const Json& json) {
  constexpr std::int64_t kMaxId = 4294967294;  // -1 is "unchanged" to the kernel
  StartMessage start;
  Reader reader(json);
  start.uid = static_cast<uid_t>(reader.integer("uid", 0, kMaxId));
  start.gid = static_cast<gid_t>(reader.integer("gid", 0, kMaxId));
  const Json::Array* groups = reader.member("groups").array();
  if (groups == nullptr || groups->size() > 65536) {
    reader.wrong("groups");
  } else {
    for (const Json& group : *groups) {
      const std::int64_t* id = group.integer();
      if (id == nullptr || *id < 0 || *id > kMaxId) {
        reader.wrong("groups");
        break;
      }
      start.groups.push_back(static_cast<gid_t>(*id));
    }
  }
  start.port = static_cast<std::uint16_t>(reader.integer("port", 1, 65535));
  start.portTries = static_cast<unsigned>(reader.integer("portTries", 0, 1000));
  start.ipv6 = reader.boolean("ipv6");
  start.threads = static_cast<unsigned>(reader.integer("threads", 1, 64));
  start.uplinkMark = static_cast<std::uint32_t>(reader.integer("uplinkMark", 0, std::numeric_limits<std::uint32_t>::max()));
  if (json.member("flowMarks") != nullptr) start.flowMarks = static_cast<std::uint32_t>(reader.integer("flowMarks", 0, std::numeric_limits<std::uint32_t>::max()));
  start.attribute = reader.boolean("attribute");
  start.maxFlows = static_cast<unsigned>(reader.integer("maxFlows", 1, 1000000));
  start.version = reader.text("version", 64);
  for (const char c : start.version) {
    if (c < 0x20 || c > 0x7e) reader.wrong("version");
  }
  Reader capture(reader.member("capture"));
  start.folder = capture.text("folder", 4095);
  if (start.folder.empty() || start.folder.front() != '/') capture.wrong("folder");
  start.payload = capture.boolean("payload");
  start.maxBytesPerFlow = capture.limit("maxBytesPerFlow");
  start.maxBytes = capture.limit("maxBytes");
  start.segmentBytes = capture.limit("segmentBytes");
  start.ring = capture.boolean("ring", true);
  reader.optional("udp", start.udp);
  parseUdp(json, reader, start.udpIdle, start.refuse);
  if (const Json* handOver = json.member("handOver"); handOver != nullptr && !parseHandOver(*handOver, start.handOver)) reader.wrong("handOver");
  if (const Json* hold = json.member("hold"); hold != nullptr && !hold->isNull()) {
    Reader options(*hold);
    start.hold.emplace();
    start.hold->group = static_cast<std::uint16_t>(options.integer("group", 1, 65535));
    start.hold->releasedMark = static_cast<std::uint32_t>(options.integer("releasedMark", 1, std::numeric_limits<std::uint32_t>::max()));
    if (!options.wrong().empty()) return MalformedMessage{"start.hold." + options.wrong()};
  }
  if (const Json* keep = json.member("keep"); keep != nullptr && !keep->isNull()) {
    Reader options(*keep);
    start.keep = KeepOptions{static_cast<std::uint32_t>(options.integer("mark", 1, std::numeric_limits<std::uint32_t>::max()))};
    if (!options.wrong().empty() || !start.hold) return MalformedMessage{"start.keep"};
  }
  if (const Json* redirect = json.member("redirect"); redirect != nullptr && !redirect->isNull()) {
    Reader options(*redirect);
    start.redirect = RedirectOptions{options.boolean("everywhere")};
    // Both live by what the kernel lacks then.
    if (!options.wrong().empty() || start.udp || start.hold) return MalformedMessage{"start.redirect"};
  }
  if (!reader.wrong().empty()) return MalformedMessage{"start." + reader.wrong()};
  if (!capture.wrong().empty()) return MalformedMessage{"start.capture." + capture.wrong()};
  return start;
}

std::string_view recordingName(Recording recording) {
  switch (recording) {
    case Recording::kOn: return "on";
    case Recording::kSlow: return "slow";
    case Recording::kStopped: return "stopped";
    case Recording::kOff: break;
  }
  return "off";
}

std::string counted(const Counters& counters) {
  return "\"active\":" + std::to_string(counters.active) + ",\"total\":" + std::to_string(counters.total);
}

}  // namespace

ControlMessage parseControlLine(std::string_view line) {
  const std::optional<Json> json = parseJson(line);
  if (!json) return MalformedMessage{"not JSON"};
  const Json* type = json->member("type");
  if (type == nullptr || type->text() == nullptr) return MalformedMessage{"no type"};
  const std::string& name = *type->text();
  if (name == "start") return parseStart(*json);
  if (name == "ping") {
    const Json* id = json->member("id");
    if (id == nullptr || id->integer() == nullptr) return MalformedMessage{"ping.id"};
    return PingMessage{*id->integer()};
  }
  if (name == "udp") {
    UdpChoicesMessage choices;
    Reader reader(*json);
    parseUdp(*json, reader, choices.idle, choices.refuse);
    if (!reader.wrong().empty()) return MalformedMessage{"udp." + reader.wrong()};
    return choices;
  }
  if (name == "handOver") {
    HandOverMessage choices;
    const Json* handOver = json->member("handOver");
    if (handOver == nullptr || !parseHandOver(*handOver, choices.handOver)) return MalformedMessage{"handOver.handOver"};
    return choices;
  }
  if (name == "reset") return ResetMessage{};
  if (name == "quit") return QuitMessage{};
  return UnknownMessage{};
}

std::string formatReady(std::uint16_t port, std::uint16_t keptPort, bool ipv6, bool holds, pid_t pid, uid_t uid) {
  const std::string kept = keptPort == 0 ? "" : ",\"keptPort\":" + std::to_string(keptPort);
  return "{\"type\":\"ready\",\"port\":" + std::to_string(port) + kept + ",\"ipv6\":" + (ipv6 ? "true" : "false") +
         ",\"holds\":" + (holds ? "true" : "false") +
         ",\"pid\":" + std::to_string(pid) + ",\"uid\":" + std::to_string(uid) + "}\n";
}

std::string formatFailed(std::string_view code, std::string_view message, std::string_view detail) {
  return "{\"type\":\"failed\",\"code\":" + quoteJson(code) + ",\"message\":" + quoteJson(message) + ",\"detail\":" + quoteJson(detail) + "}\n";
}

std::string formatPong(std::int64_t id, const Counters& counters, Recording recording) {
  return "{\"type\":\"pong\",\"id\":" + std::to_string(id) + "," + counted(counters) + ",\"recording\":" + quoteJson(recordingName(recording)) + "}\n";
}

std::string formatFlows(const Counters& counters) {
  return "{\"type\":\"flows\"," + counted(counters) + ",\"bytes\":" + std::to_string(counters.bytes) + ",\"datagrams\":" + std::to_string(counters.datagrams) +
         ",\"udpFlows\":" + std::to_string(counters.udpFlows) + "}\n";
}

std::string formatWarning(std::string_view code, std::string_view message) {
  return "{\"type\":\"warning\",\"code\":" + quoteJson(code) + ",\"message\":" + quoteJson(message) + "}\n";
}

}  // namespace sluice
