// "Send these ports to" a proxy that is there already: how it is reached and told where the client wanted to go.
//
// Or, where the proxy takes connections as they are (TPROXY): one to the original destination, which the rules lead to it by its mark.
//
// PROXY protocol v2: haproxy.org, doc/proxy-protocol.txt, 2.2. SOCKS5: RFC 1928, without authentication, CONNECT to an address.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "capture/recorder.h"
#include "net/upstream.h"

namespace sluice {

struct HandOverWish {
  enum class Kind : std::uint8_t { kProxyV2, kSocks5, kTproxy };
  struct Range { std::uint16_t from = 0, to = 0; };
  std::vector<Range> ports;      // of original destinations, TCP
  Kind kind = Kind::kProxyV2;
  Endpoint proxy;                // unless there is a path
  std::uint32_t mark = 0;        // of connections to one in TPROXY mode
  std::string path;              // of a unix socket, for PROXY v2; absolute, at most 107 bytes
};

class HandOver {
 public:
  // In the token of a question to the witness: who is the proxy of that number?
  static constexpr std::uint64_t kTokenBit = std::uint64_t{1} << 62U;

  // `number` is of this one alone, for as long as the relay runs.
  HandOver(HandOverWish wish, std::uint64_t number);

  [[nodiscard]] std::uint64_t number() const { return number_; }
  [[nodiscard]] const HandOverWish& wish() const { return wish_; }
  // One in TPROXY mode takes flows of its own family alone.
  [[nodiscard]] bool takes(const Endpoint& server) const;
  [[nodiscard]] bool transparent() const { return wish_.kind == HandOverWish::Kind::kTproxy; }
  // The proxy as a JSON object, for the record. Lives as long as this does.
  [[nodiscard]] const std::string& name() const { return name_; }

  // Begins a connection to it, marked so that no rule takes it. Not to one in TPROXY mode.
  [[nodiscard]] Upstream connect(std::uint32_t mark) const;

  // Who listens there, as far as known: written by the one thread that hears the witness, read by all.
  void learn(std::optional<Program> program);
  // Whether a program is the proxy itself, a worker or the master of it. What it sends on must not be handed to it again.
  enum class Same : std::uint8_t { kNo, kYes, kUnknown };
  [[nodiscard]] Same same(const Program& program, std::uint32_t mark);

 private:
  HandOverWish wish_;
  std::uint64_t number_;
  std::string name_;
  std::mutex mutex_;
  bool asked_ = false;
  std::optional<Program> program_;
};

// The proxies that new flows are sent to, chosen anew while flows run. A flow keeps the proxy it was sent to alive, so that nothing changes under it.
class HandOvers {
 public:
  void set(std::vector<HandOverWish> wishes);
  // Where a flow to that server goes, or null.
  [[nodiscard]] std::shared_ptr<HandOver> of(const Endpoint& server) const;
  // Also of one that is not chosen any more and that some flow waits to hear of; null when nobody does.
  [[nodiscard]] std::shared_ptr<HandOver> numbered(std::uint64_t number) const;

 private:
  std::atomic<bool> any_{false};  // most gates send nothing anywhere, and their flows take no lock
  mutable std::mutex mutex_;
  std::uint64_t next_ = 0;
  std::vector<std::shared_ptr<HandOver>> chosen_;
  std::vector<std::weak_ptr<HandOver>> known_;
};

// What is said on a fresh connection to the proxy before the flow's own bytes, and what must be answered. Never takes a byte beyond.
class Greeting {
 public:
  Greeting(HandOverWish::Kind kind, const Endpoint& client, const Endpoint& server);

  enum class Outcome : std::uint8_t { kMore, kDone, kRefused, kUnreachable, kTimedOut, kFailed };
  // As far as the socket lets it, now that it may be written or read. Non-blocking.
  Outcome step(int fd);

 private:
  enum class Stage : std::uint8_t { kHeader, kMethod, kReplyHead, kReplyRest, kDone };
  [[nodiscard]] Outcome answered();

  std::array<std::byte, 300> out_{}, in_{};
  std::size_t toSend_ = 0, sent_ = 0, wanted_ = 0, got_ = 0;
  std::array<std::byte, 32> request_{};  // of SOCKS, to follow the method
  std::size_t requestSize_ = 0;
  Stage stage_ = Stage::kHeader;
};

}  // namespace sluice
