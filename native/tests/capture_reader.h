// A small strict reader of the relay's captures for tests: it walks the blocks and believes nothing.
#pragma once

#include <arpa/inet.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "check.h"

namespace capture_reader {

struct Packet {
  std::uint64_t nanoseconds;
  bool up;
  bool v4;
  std::string addresses;        // "from:port>to:port"
  std::uint32_t sequence, acknowledgement;
  std::uint8_t flags;
  std::string payload;
  std::uint32_t pid = 0;
  bool udp = false;             // then without sequence and flags
};

struct Item {                   // in the order of the file
  bool isFact;
  std::string json;
  Packet packet;
  bool wireshark = false;       // the process block
};

inline std::string readFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <typename Value>
Value get(std::string_view bytes, std::size_t at) {
  Value value;
  CHECK(at + sizeof value <= bytes.size());
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

inline Packet readPacket(std::string_view block) {
  Packet packet{};
  CHECK_EQ(get<std::uint32_t>(block, 8), 0U);
  packet.nanoseconds = std::uint64_t{get<std::uint32_t>(block, 12)} << 32U | get<std::uint32_t>(block, 16);
  const auto captured = get<std::uint32_t>(block, 20);
  CHECK_EQ(captured, get<std::uint32_t>(block, 24));
  std::string_view ip = block.substr(28, captured);
  packet.v4 = (static_cast<std::uint8_t>(ip[0]) >> 4U) == 4;
  char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
  packet.udp = static_cast<std::uint8_t>(ip[packet.v4 ? 9 : 6]) == 17;
  if (packet.v4) {
    CHECK_EQ(ntohs(get<std::uint16_t>(ip, 2)), captured);
    std::uint32_t sum = 0;
    for (std::size_t at = 0; at < 20; at += 2) sum += get<std::uint16_t>(ip, at);
    sum = (sum & 0xFFFFU) + (sum >> 16U);
    sum = (sum & 0xFFFFU) + (sum >> 16U);
    CHECK_EQ(sum, 0xFFFFU);
    inet_ntop(AF_INET, ip.data() + 12, from, sizeof from);
    inet_ntop(AF_INET, ip.data() + 16, to, sizeof to);
    ip.remove_prefix(20);
  } else {
    CHECK_EQ(static_cast<std::uint8_t>(ip[0]) >> 4U, 6);
    CHECK_EQ(ntohs(get<std::uint16_t>(ip, 4)) + 40U, captured);
    inet_ntop(AF_INET6, ip.data() + 8, from, sizeof from);
    inet_ntop(AF_INET6, ip.data() + 24, to, sizeof to);
    ip.remove_prefix(40);
  }
  packet.addresses = std::string(from) + ":" + std::to_string(ntohs(get<std::uint16_t>(ip, 0))) + ">" + to + ":" +
                     std::to_string(ntohs(get<std::uint16_t>(ip, 2)));
  if (packet.udp) {
    CHECK_EQ(ntohs(get<std::uint16_t>(ip, 4)), ip.size());
    CHECK_EQ(get<std::uint16_t>(ip, 6), 0);  // the checksum, left for the export
    packet.payload = ip.substr(8);
  } else {
    packet.sequence = ntohl(get<std::uint32_t>(ip, 4));
    packet.acknowledgement = ntohl(get<std::uint32_t>(ip, 8));
    const std::size_t header = (static_cast<std::uint8_t>(ip[12]) >> 4U) * 4U;
    packet.flags = static_cast<std::uint8_t>(ip[13]);
    packet.payload = ip.substr(header);
  }
  const std::string_view options = block.substr(28 + ((captured + 3) & ~3U));
  CHECK_EQ(get<std::uint16_t>(options, 0), 2);
  CHECK_EQ(get<std::uint16_t>(options, 2), 4);
  const auto flags = get<std::uint32_t>(options, 4);
  CHECK(flags == 1 || flags == 2);
  packet.up = flags == 2;
  if (options.size() == 28) {
    CHECK_EQ(get<std::uint16_t>(options, 8), 8);
    CHECK_EQ(get<std::uint16_t>(options, 10), 8);
    packet.pid = get<std::uint32_t>(options, 12);
    CHECK(packet.pid != 0);
    CHECK_EQ(get<std::uint64_t>(options, 16), 0U);  // no thread, and the end of the options
  } else {
    CHECK_EQ(get<std::uint32_t>(options, 8), 0U);
    CHECK_EQ(options.size(), 16U);
  }
  return packet;
}

// Every block of `bytes`, which must end with a whole one.
inline std::vector<Item> read(std::string_view bytes) {
  std::vector<Item> items;
  std::size_t at = 0;
  for (int index = 0; at < bytes.size(); ++index) {
    const auto type = get<std::uint32_t>(bytes, at);
    const auto length = get<std::uint32_t>(bytes, at + 4);
    CHECK(length >= 12 && length % 4 == 0 && at + length <= bytes.size());
    const std::string_view block = bytes.substr(at, length);
    CHECK_EQ(get<std::uint32_t>(block, length - 4), length);
    if (index == 0) CHECK_EQ(type, 0x0A0D0D0AU);
    if (index == 1) CHECK_EQ(type, 1U);
    if (index > 1) {
      if (type == 0x80534C50U) {  // padding
        CHECK(block.substr(8, length - 12).find_first_not_of('\0') == std::string_view::npos);
      } else if (type == 6) {
        items.push_back({false, {}, readPacket(block)});
      } else {
        CHECK_EQ(type, 0x0BADU);
        const auto pen = get<std::uint32_t>(block, 8);
        if (pen == 32622) {
          CHECK_EQ(get<std::uint32_t>(block, 12), 3U);
          CHECK_EQ(get<std::uint32_t>(block, 16), length - 24);
          items.push_back({false, {}, {}, true});
        } else {
          CHECK_EQ(pen, 32473U);
          CHECK(block.substr(12, 8) == std::string_view("SLUICE1\0", 8));
          std::string json(block.substr(20, length - 24));
          while (!json.empty() && json.back() == '\0') json.pop_back();
          CHECK(json.find('\0') == std::string::npos);
          items.push_back({true, json, {}});
        }
      }
    }
    at += length;
  }
  CHECK_EQ(at, bytes.size());
  return items;
}

// The value of a top-level number or plain string of a fact; "" when it is not there.
inline std::string field(const std::string& json, const std::string& key) {
  const std::size_t found = json.find("\"" + key + "\":");
  if (found == std::string::npos) return {};
  std::size_t at = found + key.size() + 3;
  if (json[at] == '"') {
    const std::size_t end = json.find('"', at + 1);
    return json.substr(at + 1, end - at - 1);
  }
  const std::size_t end = json.find_first_of(",}", at);
  return json.substr(at, end - at);
}

inline std::uint64_t number(const std::string& json, const std::string& key) {
  const std::string text = field(json, key);
  CHECK(!text.empty());
  return std::stoull(text);
}

// What the file says of one flow, checked for being a true account: sequence numbers without unexplained holes.
struct Account {
  bool opened = false, connected = false, closed = false;
  std::uint64_t kept[2] = {0, 0}, gaps[2] = {0, 0}, closeBytes[2] = {0, 0};
  std::map<std::string, std::uint64_t> gapsByReason;
  std::string payload[2];
  std::string reason, closedBy;
  int finished[2] = {0, 0}, resets[2] = {0, 0};
  std::uint32_t expected[2] = {0, 0};
  std::size_t gapFacts = 0;
  bool udp = false;
  std::uint64_t keptDatagrams[2] = {0, 0}, gapDatagrams[2] = {0, 0}, closeDatagrams[2] = {0, 0}, lost[2] = {0, 0};
  std::uint64_t before[2] = {0, 0};  // in segments that are no more
  std::uint32_t mayBeEnded[2] = {0, 0};  // 1: whether the lost segments held its FIN is not known yet
};

inline std::map<std::uint64_t, Account> accounts(const std::vector<Item>& items, bool keepPayload = false) {
  std::map<std::uint64_t, Account> flows;
  std::map<std::string, std::uint64_t> open;  // "client>server" to id
  for (const Item& item : items) {
    if (item.wireshark) continue;
    if (item.isFact) {
      const std::string type = field(item.json, "t");
      if (type == "session" || type == "dropped") continue;
      const std::uint64_t id = number(item.json, "id");
      Account& flow = flows[id];
      const bool again = item.json.find(",\"again\":true") != std::string::npos;
      if (type == "open" && again && flow.opened) {
        // Said again to whoever lost what was before: it must be what was there.
        CHECK(!flow.closed);
        for (int way = 0; way < 2; ++way) {
          CHECK_EQ(number(item.json, way == 0 ? "bytesUp" : "bytesDown"), flow.before[way] + flow.kept[way] + flow.gaps[way]);
        }
      } else if (type == "open") {
        CHECK(!flow.opened);
        if (again) {
          flow.before[0] = number(item.json, "bytesUp");
          flow.before[1] = number(item.json, "bytesDown");
          flow.expected[0] = static_cast<std::uint32_t>(1 + flow.before[0]);
          flow.expected[1] = static_cast<std::uint32_t>(flow.before[1]);
          flow.mayBeEnded[0] = flow.mayBeEnded[1] = 1;
        }
        flow.opened = true;
        flow.udp = field(item.json, "proto") == "udp";
        const auto end = [&](const std::string& key) {
          const std::string inside = item.json.substr(item.json.find("\"" + key + "\":{"));
          return field(inside, "address") + ":" + field(inside, "port");
        };
        const std::string addresses = end("client") + ">" + end("server");
        const std::string back = end("server") + ">" + end("client");
        CHECK(open.find(addresses) == open.end() || flows[open[addresses]].closed);
        open[addresses] = id;
        open[back] = id;
      } else {
        CHECK(flow.opened);
        CHECK(!flow.closed);
      }
      if (type == "connected") {
        // Its SYN went before, where the fact is said again.
        if (again && !flow.connected) flow.expected[1] += 1;
        flow.connected = true;
      }
      if (type == "gap") {
        const int way = field(item.json, "direction") == "up" ? 0 : 1;
        const std::uint64_t bytes = number(item.json, "bytes");
        CHECK_EQ(field(item.json, "datagrams").empty(), !flow.udp);
        if (flow.udp) {
          CHECK(number(item.json, "datagrams") > 0);
          flow.gapDatagrams[way] += number(item.json, "datagrams");
        } else {
          CHECK(bytes > 0);
        }
        flow.gaps[way] += bytes;
        flow.gapsByReason[field(item.json, "reason")] += bytes;
        flow.expected[way] += static_cast<std::uint32_t>(bytes);
        ++flow.gapFacts;
      }
      if (type == "close") {
        flow.closed = true;
        flow.reason = field(item.json, "reason");
        flow.closedBy = field(item.json, "closedBy");
        flow.closeBytes[0] = number(item.json, "bytesUp");
        flow.closeBytes[1] = number(item.json, "bytesDown");
        CHECK_EQ(field(item.json, "datagramsUp").empty(), !flow.udp);
        if (flow.udp) {
          flow.closeDatagrams[0] = number(item.json, "datagramsUp");
          flow.closeDatagrams[1] = number(item.json, "datagramsDown");
        }
        if (!field(item.json, "lostUp").empty()) {
          flow.lost[0] = number(item.json, "lostUp");
          flow.lost[1] = number(item.json, "lostDown");
          CHECK(flow.udp && flow.lost[0] + flow.lost[1] > 0);
        }
      }
      continue;
    }
    const Packet& packet = item.packet;
    CHECK(open.find(packet.addresses) != open.end());
    Account& flow = flows[open[packet.addresses]];
    CHECK(flow.opened && !flow.closed);
    const int way = packet.up ? 0 : 1;
    CHECK_EQ(packet.udp, flow.udp);
    if (flow.udp) {
      ++flow.keptDatagrams[way];
    } else {
      if (flow.mayBeEnded[way] == 1 && packet.sequence == flow.expected[way] + 1) flow.expected[way] += 1, ++flow.finished[way];
      flow.mayBeEnded[way] = 0;
      CHECK_EQ(packet.sequence, flow.expected[way]);  // every jump is a gap told before
    }
    flow.expected[way] += static_cast<std::uint32_t>(packet.payload.size());
    if ((packet.flags & 0x02) != 0) flow.expected[way] += 1;
    if ((packet.flags & 0x01) != 0) flow.expected[way] += 1, ++flow.finished[way];
    if ((packet.flags & 0x04) != 0) ++flow.resets[way];
    flow.kept[way] += packet.payload.size();
    if (keepPayload) flow.payload[way] += packet.payload;
  }
  return flows;
}

// The blocks of several segments, each of which must stand for itself.
inline std::vector<Item> readAll(const std::vector<std::string>& segments) {
  std::vector<Item> items;
  for (const std::string& segment : segments) {
    std::vector<Item> some = read(segment);
    accounts(some);
    items.insert(items.end(), some.begin(), some.end());
  }
  return items;
}

}  // namespace capture_reader
