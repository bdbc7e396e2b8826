// One conversation over UDP: all datagrams between a client's address and port and a server's, until nobody said anything for long.
#pragma once

#include <cstdint>

#include "capture/recorder.h"
#include "net/udp_message.h"
#include "relay/flow.h"
#include "relay/upstream_set.h"

namespace sluice {

// Which patience a flow has. Failing: the server's side said that nobody is there, and the server nothing yet.
enum class UdpKind : std::uint8_t { kDns, kQuic, kOther, kFailing };
inline constexpr std::size_t kUdpKinds = 4;

struct UdpFlow;
struct UdpLink {
  UdpFlow* previous = nullptr;
  UdpFlow* next = nullptr;
};

struct alignas(64) UdpFlow {
  FlowRecord record;
  UpstreamSet::Key key;            // client and server
  UpstreamSet::Key upstream;
  Endpoint upstreamEnd;            // our own end towards the server
  std::int64_t last = 0;           // when a datagram was relayed
  int fd[2] = {-1, -1};            // by Side; no client's: answers leave as whole packets, questions come to the listener
  std::uint16_t largest[2] = {65'535, 65'535};  // datagram that may leave in one piece with others towards that side
  UdpKind kind = UdpKind::kOther, ordinary = UdpKind::kOther;
  bool local = false;
  bool awaiting = false;           // as for TCP: nothing of the server's reaches the client before the witness has looked
  bool fresh = false;              // its first datagrams may still wait at the listener; its own socket is read after those
  bool inUpstreams = false, listed = false, busy = false, dead = false;
  CloseReason failure = CloseReason::kIdle;     // what it will have ended by if the server stays silent
  UdpLink age, activity;           // places in two lists by `last`
};

// Intrusive, the longest silent first.
template <UdpLink UdpFlow::*kLink>
class UdpList {
 public:
  [[nodiscard]] UdpFlow* first() const { return first_; }
  void append(UdpFlow& flow) {
    (flow.*kLink).previous = last_;
    (flow.*kLink).next = nullptr;
    (last_ != nullptr ? (last_->*kLink).next : first_) = &flow;
    last_ = &flow;
  }
  void remove(UdpFlow& flow) {
    UdpLink& link = flow.*kLink;
    (link.previous != nullptr ? (link.previous->*kLink).next : first_) = link.next;
    (link.next != nullptr ? (link.next->*kLink).previous : last_) = link.previous;
    link = {};
  }

 private:
  UdpFlow* first_ = nullptr;
  UdpFlow* last_ = nullptr;
};

}  // namespace sluice
