// One relayed conversation: two sockets and what goes between them.
#pragma once

#include <cstdint>
#include <memory>

#include "capture/recorder.h"
#include "net/own_addresses.h"
#include "net/syn.h"
#include "relay/buffer_pool.h"
#include "relay/hand_over.h"
#include "relay/pipe_pool.h"
#include "relay/upstream_set.h"

namespace sluice {

enum Side : std::uint8_t { kClient = 0, kServer = 1 };

enum class FlowState : std::uint8_t {
  kConnecting,  // upstream handshake under way
  kOpen,
  kDraining,    // both directions ended; the kernel still delivers
  kCondemned,   // ended by the server, told to the client when the witness has looked
  kEpilogue,    // sockets closed; its close fact waits for the witness
  kDead         // freed at the end of this turn
};

// One direction; `pending` holds what was read and not yet taken by the other side, from `begin` to `end`; or `pipe` does, `piped` bytes of it.
struct Way {
  std::unique_ptr<Buffer> pending;
  std::unique_ptr<Pipe> pipe;
  std::uint32_t begin = 0, end = 0;
  std::uint32_t piped = 0;
  std::uint8_t full = 0;  // reads in a row that filled the buffer
  bool urgent = false;  // what is pending is one byte of urgent data
  bool ended = false;   // end of stream read
  bool passed = false;  // and handed on
};

struct Link {
  int fd = -1;
  bool readable = false, writable = false;  // as far as known; edge-triggered
  bool exhaustive = false;                  // end of stream or urgent data is near: a short read does not mean that nothing is left
  bool ending = false;                      // the end of stream has come and may not be read yet
  bool urgent = false;                      // there was urgent data: splice(2) would wait in front of its mark for ever
  bool failed = false;                      // the kernel reported an error
  int error = 0;                            // which, where it has been taken from the socket already
};

inline FlowScope scopeOf(bool local, const Endpoint& server, const AddressList& own) {
  return local ? FlowScope::kLocal : own.contains(server) ? FlowScope::kIncoming : FlowScope::kForwarded;
}

struct alignas(64) Flow {
  FlowRecord record;
  Link side[2];   // by Side
  Way way[2];     // by Direction; up reads from the client, down from the server
  FlowState state = FlowState::kConnecting;
  bool local = false;
  bool awaiting = false;     // the witness was asked and has not answered: nothing of the server's reaches the client
  bool ready = false;        // queued for the next turn
  bool owesAck = false;      // the last one of the server's handshake may not have left
  bool inUpstreams = false;
  bool choosing = false;     // whether it is handed to `via` is known when the witness has looked
  std::uint8_t looks = 0;    // how often that has been put off
  SynLook look;              // of the client, for its server
  CloseReason reason = CloseReason::kFinished;
  ClosedBy by = ClosedBy::kNone;
  UpstreamSet::Key upstream;
  Endpoint upstreamEnd;           // our own end of the upstream connection
  std::shared_ptr<HandOver> via;  // the proxy its port is sent to; the record has its name by reference
  std::unique_ptr<Greeting> greeting;  // what that must be told, and answer, first
  Flow* previous = nullptr;       // of all flows of the thread
  Flow* next = nullptr;
};

}  // namespace sluice
