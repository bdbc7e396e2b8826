// UDP of one relaying thread, driven by its Worker: listeners, flows, and what goes between. Nothing here waits.
//
// A datagram is relayed when it was sent on; what does not fit a full socket is lost, as a network loses it, and counted.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "capture/recorder.h"
#include "net/descriptor.h"
#include "net/udp_message.h"
#include "net/udp_packet.h"
#include "relay/shared.h"
#include "relay/udp_flow.h"
#include "relay/udp_outbox.h"
#include "witness/witness.h"

namespace sluice {

// A datagram that came to another thread's listener than its flow's.
struct StrayDatagram {
  Endpoint client, server;
  std::uint8_t tos = 0;
  std::string bytes;
};

class UdpRelay {
 public:
  struct Surroundings {              // of the Worker, which outlives this
    RelayShared& shared;
    Track& track;
    const AddressList& own;
    const std::int64_t& now;         // of this turn
    int epoll;
    std::size_t index;
    std::function<void(std::size_t, StrayDatagram)> hand;  // to another thread
  };
  UdpRelay(Surroundings surroundings, std::array<Descriptor, 2> listeners);
  ~UdpRelay();
  UdpRelay(const UdpRelay&) = delete;
  UdpRelay& operator=(const UdpRelay&) = delete;

  // epoll tags: kListenTag + family index, or a flow's address + kFlowBit + Side.
  static constexpr std::uint64_t kListenTag = 4, kFlowBit = 2;

  void beginTurn();                  // with what is chosen now
  bool listen(std::size_t family);   // takes what waits at a listener; false: the bound of a turn was reached
  void onEvent(std::uint64_t tag, std::uint32_t events);
  void take(const StrayDatagram& stray);
  bool settle(const WitnessAnswer& answer);      // false: not about a flow of UDP
  bool shedOldest();                             // makes room; false: there was no flow of UDP
  void closeAll();
  void expire();
  [[nodiscard]] std::int64_t due() const;        // when expire() has something to do; -1: never
  void endTurn() { dead_.clear(); }

  struct Counts {
    std::uint64_t flows = 0, busy = 0, total = 0, bytes = 0, datagrams = 0;
  };
  [[nodiscard]] const Counts& counts() const { return counts_; }

 private:
  // udp_listen.cc
  void arrive(const Endpoint& client, const Endpoint& server, std::span<const UdpPiece> pieces);
  UdpFlow* open(const UpstreamSet::Key& key, const Endpoint& client, const Endpoint& server, std::span<const UdpPiece> pieces);
  int makeSockets(UdpFlow& flow, std::uint8_t depth);  // 0, or the errno that ends it
  bool admit();
  bool watch(UdpFlow& flow, Side side, std::uint32_t events, int operation);
  void ask(UdpFlow& flow);
  void brief(UdpFlow& flow, std::span<const UdpPiece> pieces, CloseReason reason);  // a flow that ends where it begins
  void handOver(std::size_t owner, const Endpoint& client, const Endpoint& server, std::span<const UdpPiece> pieces);
  void readable(UdpFlow& flow, Side side);
  void watchFresh(std::size_t family);

  // udp_send.cc
  void relay(UdpFlow& flow, Direction direction, std::span<const UdpPiece> pieces);
  void flush(UdpFlow& flow, Direction direction);
  void sendSingly(UdpFlow& flow, Direction direction, const UdpRun& run);
  void answerRaw(UdpFlow& flow, std::span<const UdpPiece> pieces);
  bool sendRaw(int family, std::span<const std::byte> packet, const Endpoint& to);
  void sent(UdpFlow& flow, Direction direction, std::span<const std::byte> bytes);

  // udp_error.cc
  void takeErrors(UdpFlow& flow, Side side);
  void tellError(const Endpoint& source, const UdpError& error, const Quoted& quoted);
  void failing(UdpFlow& flow, const UdpError& error);

  // udp_ending.cc
  void touch(UdpFlow& flow);
  void close(UdpFlow& flow, CloseReason reason, ClosedBy by);
  void release(UdpFlow& flow);
  [[nodiscard]] std::int64_t patience(UdpKind kind) const { return choices_.idle[static_cast<std::size_t>(kind)]; }
  [[nodiscard]] std::uint64_t token(const UdpFlow& flow) const { return flow.record.id * shared_.options.threads + surroundings_.index; }

  const Surroundings surroundings_;
  RelayShared& shared_;
  Track& track_;
  std::array<Descriptor, 2> listeners_;
  std::array<Descriptor, 2> raw_;                // by family, made when first needed
  UdpChoices choices_;
  std::uint32_t choicesGeneration_ = 0;
  UdpInbox inbox_;
  UdpOutbox outbox_;
  std::vector<std::byte> packet_;                // scratch for whole packets
  std::unordered_map<UpstreamSet::Key, std::unique_ptr<UdpFlow>, UpstreamSet::Hash> flows_;
  std::array<UdpList<&UdpFlow::age>, kUdpKinds> byAge_;
  UdpList<&UdpFlow::activity> busy_;
  std::array<std::vector<UdpFlow*>, 2> fresh_;   // by family of the listener
  std::vector<std::unique_ptr<UdpFlow>> dead_;   // events of this turn may still point at them
  std::unordered_map<std::uint64_t, UdpFlow*> awaiting_;
  std::deque<std::pair<std::int64_t, std::uint64_t>> askedBy_;
  std::int64_t errorsSince_ = 0;                 // ICMP sent in the second that began then
  unsigned errors_ = 0;
  std::uint32_t identification_ = 0;
  std::array<std::uint64_t, 2> dropped_{};       // at the listeners, as last seen
  std::int64_t dropsLook_ = 0;
  Counts counts_;
};

}  // namespace sluice
