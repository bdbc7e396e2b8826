// Holds the client's SYN until the server has answered, so that a closed port looks closed and a missing host missing: the rules give a copy of each
// opening SYN and drop it; the usher connects to the server first, and then sends the SYN on its way to the relay's listener, or answers it as the
// server did. A SYN it never sees (the log was full) is sent again by its client after a second.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "capture/recorder.h"
#include "net/descriptor.h"
#include "net/raw_sender.h"
#include "net/syn_log.h"
#include "relay/mailbox.h"
#include "relay/shared.h"
#include "witness/witness.h"

namespace sluice {

class Usher : public Mailbox<WitnessAnswer> {
 public:
  // Tokens of questions to the witness that are the usher's have this bit.
  static constexpr std::uint64_t kTokenBit = std::uint64_t{1} << 63U;

  Usher(RelayShared& shared, Track& track, std::unique_ptr<SynLog> log, RawSender sender);
  ~Usher();
  Usher(const Usher&) = delete;
  Usher& operator=(const Usher&) = delete;

  void start();

  void join() { thread_.join(); }
  void abandon() { thread_.detach(); }
  // Connections under way that no worker counts yet, and all that ended here.
  [[nodiscard]] std::uint64_t active() const { return pendingCount_.load(std::memory_order_relaxed) + shared_.held.waiting(); }
  [[nodiscard]] std::uint64_t total() const { return refused_.load(std::memory_order_relaxed); }

 private:
  struct Pending {
    enum class Stage : std::uint8_t { kConnecting, kConnected, kFailed, kReleased };
    Syn syn;
    std::uint64_t id = 0;
    Stage stage = Stage::kConnecting;
    Descriptor upstream;
    Endpoint upstreamEnd;
    std::optional<UpstreamSet::Key> key;  // in the set of upstreams
    int error = 0;
    std::uint8_t again = 0;               // how often the same ends came anew while their forerunner was under way with just these
    bool local = false, naming = false;   // naming: the witness was asked and has not answered
    std::optional<Program> program;
    std::int64_t asked = 0, connected = 0, lastSyn = 0, until = 0;
  };

  void run();
  void turn();
  void onMail();
  void onLog();
  void onSyn(Syn syn);
  [[nodiscard]] std::uint64_t& recent(const Syn& syn, std::uint64_t& digest);
  void connect(Pending& pending);
  void onUpstream(std::uint64_t id);
  void settle(Pending& pending);
  void release(Pending& pending);
  void refuse(Pending& pending);
  void record(const Pending& pending, CloseReason reason, ClosedBy by);
  void forget(std::uint64_t id);
  void letGo(Pending& pending);
  void expire();
  void resetAll();
  void publish();

  RelayShared& shared_;
  Track& track_;
  std::unique_ptr<SynLog> log_;
  RawSender sender_;
  Descriptor epoll_;
  std::thread thread_;
  std::int64_t now_ = 0, looked_ = 0;
  AddressList own_;
  std::uint32_t ownGeneration_ = 0;
  bool stopping_ = false;
  std::uint64_t toldActive_ = 0;
  std::uint64_t under_ = 0;                                                         // entries that were not released yet
  std::vector<std::uint64_t> recent_;                                               // digests of SYNs whose client is in: a late copy opens nothing
  std::unordered_map<std::uint64_t, Pending> pending_;                              // by flow id
  std::unordered_map<UpstreamSet::Key, std::uint64_t, UpstreamSet::Hash> byEnds_;   // client and server to flow id

  std::atomic<std::uint64_t> pendingCount_{0}, refused_{0};
};

}  // namespace sluice
