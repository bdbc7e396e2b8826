#include "witness/messages.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace sluice {

namespace {

constexpr std::uint32_t kQuestion = 0x51574C53, kAnswer = 0x41574C53;  // "SLWQ", "SLWA"

struct WireEndpoint {
  std::uint16_t family, port;
  std::uint32_t scope;
  std::uint8_t address[16];
};

struct WireQuestion {
  std::uint32_t kind;
  std::uint16_t udp, decides;  // 0 or 1 each
  std::uint64_t token;
  WireEndpoint client, server;
};

struct WireAnswer {
  std::uint32_t kind, found;
  std::uint64_t token;
  std::int64_t pid, ppid;
  std::uint32_t uid;
  std::uint16_t name, path, user, words;  // lengths, and how many words' lengths (u16) follow; then all the text
  std::uint32_t zero;
};
static_assert(sizeof(WireQuestion) == 64 && sizeof(WireAnswer) == 48, "no padding");
static_assert(sizeof(WireAnswer) + kMaxWords * 2 + 2 * kMaxName + kMaxPath + kMaxCommand <= kMaxMessage);

WireEndpoint toWire(const Endpoint& endpoint) {
  WireEndpoint wire{};
  wire.family = static_cast<std::uint16_t>(endpoint.family());
  wire.port = endpoint.port();
  if (endpoint.v4()) {
    std::memcpy(wire.address, &reinterpret_cast<const sockaddr_in&>(endpoint.storage).sin_addr, 4);
  } else {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(endpoint.storage);
    std::memcpy(wire.address, &v6.sin6_addr, 16);
    wire.scope = v6.sin6_scope_id;
  }
  return wire;
}

bool fromWire(const WireEndpoint& wire, Endpoint& endpoint) {
  if (wire.family != AF_INET && wire.family != AF_INET6) return false;
  endpoint.storage.ss_family = wire.family;
  endpoint.setPort(wire.port);
  if (wire.family == AF_INET) {
    std::memcpy(&reinterpret_cast<sockaddr_in&>(endpoint.storage).sin_addr, wire.address, 4);
  } else {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(endpoint.storage);
    std::memcpy(&v6.sin6_addr, wire.address, 16);
    v6.sin6_scope_id = wire.scope;
  }
  return true;
}

std::string_view bounded(const std::string& text, std::size_t most) { return std::string_view(text).substr(0, most); }

}  // namespace

std::string encodeQuestion(const WitnessQuestion& question) {
  WireQuestion wire{};
  wire.kind = kQuestion;
  wire.token = question.token;
  wire.udp = question.udp ? 1 : 0;
  wire.decides = question.decides ? 1 : 0;
  wire.client = toWire(question.client);
  wire.server = toWire(question.server);
  return {reinterpret_cast<const char*>(&wire), sizeof wire};
}

std::optional<WitnessQuestion> decodeQuestion(std::span<const std::byte> message) {
  WireQuestion wire;
  if (message.size() != sizeof wire) return std::nullopt;
  std::memcpy(&wire, message.data(), sizeof wire);
  WitnessQuestion question{};
  question.token = wire.token;
  question.udp = wire.udp == 1;
  question.decides = wire.decides == 1;
  if (wire.kind != kQuestion || wire.udp > 1 || wire.decides > 1 || wire.client.family != wire.server.family) return std::nullopt;
  if (!fromWire(wire.client, question.client) || !fromWire(wire.server, question.server)) return std::nullopt;
  return question;
}

std::string encodeAnswer(const WitnessAnswer& answer) {
  WireAnswer wire{};
  wire.kind = kAnswer;
  wire.token = answer.token;
  std::string lengths, text;
  if (answer.program) {
    const Program& program = *answer.program;
    wire.found = 1;
    wire.pid = program.pid;
    wire.ppid = program.ppid;
    wire.uid = program.uid;
    const auto add = [&](std::string_view piece) {
      text.append(piece);
      return static_cast<std::uint16_t>(piece.size());
    };
    wire.name = add(bounded(program.name, kMaxName));
    wire.path = add(bounded(program.path, kMaxPath));
    wire.user = add(bounded(program.user, kMaxName));
    std::size_t left = kMaxCommand;
    for (; wire.words < kMaxWords && wire.words < program.cmdline.size(); ++wire.words) {
      const std::uint16_t length = add(bounded(program.cmdline[wire.words], left));
      lengths.append(reinterpret_cast<const char*>(&length), sizeof length);
      left -= length;
    }
  }
  return std::string(reinterpret_cast<const char*>(&wire), sizeof wire) + lengths + text;
}

std::optional<WitnessAnswer> decodeAnswer(std::span<const std::byte> message) {
  WireAnswer wire;
  if (message.size() < sizeof wire || message.size() > kMaxMessage) return std::nullopt;
  std::memcpy(&wire, message.data(), sizeof wire);
  if (wire.kind != kAnswer || wire.zero != 0 || wire.found > 1) return std::nullopt;
  WitnessAnswer answer{};
  answer.token = wire.token;
  if (wire.found == 0) {
    const bool bare = wire.pid == 0 && wire.ppid == 0 && wire.uid == 0 && (wire.name | wire.path | wire.user | wire.words) == 0;
    if (message.size() != sizeof wire || !bare) return std::nullopt;
    return answer;
  }
  if (wire.words > kMaxWords || wire.name > kMaxName || wire.user > kMaxName || wire.path > kMaxPath) return std::nullopt;
  std::span<const std::byte> lengths = message.subspan(sizeof wire);
  if (lengths.size() < wire.words * 2U) return std::nullopt;
  std::span<const std::byte> text = lengths.subspan(wire.words * 2U);

  const auto take = [&](std::size_t length, std::string& into) {
    if (text.size() < length) return false;
    into.assign(reinterpret_cast<const char*>(text.data()), length);
    text = text.subspan(length);
    return true;
  };
  Program program;
  program.pid = wire.pid;
  program.ppid = wire.ppid;
  program.uid = wire.uid;
  if (!take(wire.name, program.name) || !take(wire.path, program.path) || !take(wire.user, program.user)) return std::nullopt;
  std::size_t command = 0;
  for (std::size_t index = 0; index < wire.words; ++index) {
    std::uint16_t length;
    std::memcpy(&length, lengths.data() + 2 * index, sizeof length);
    command += length;
    if (command > kMaxCommand || !take(length, program.cmdline.emplace_back())) return std::nullopt;
  }
  if (!text.empty()) return std::nullopt;
  answer.program = std::move(program);
  return answer;
}

}  // namespace sluice
