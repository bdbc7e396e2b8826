// One relaying thread: its listeners, its flows, one epoll loop. Nothing here waits for anything but epoll (and, for the length of a system call, for
// a sibling that is connecting to the same server: depthBehind()).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <thread>
#include <unordered_map>
#include <vector>

#include "capture/recorder.h"
#include "net/descriptor.h"
#include "net/socket.h"
#include "net/upstream.h"
#include "relay/flow.h"
#include "relay/mailbox.h"
#include "relay/shared.h"
#include "relay/udp_relay.h"
#include "witness/witness.h"

namespace sluice {

// What a worker listens on: IPv4, IPv6 (empty without). `kept`: for clients of flows that keep their ports.
struct Listening {
  std::array<Descriptor, 2> tcp{}, kept{}, udp{};
};

class Worker : public Mailbox<WitnessAnswer, StrayDatagram> {
 public:
  // `siblings` are all workers, this one included: the first one reads the witness's answers for all.
  Worker(RelayShared& shared, std::size_t index, const std::vector<std::unique_ptr<Worker>>& siblings, Track& track, Listening listening);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void start();

  // Its pings are answered at the end of a turn in which everything that waited at the listeners was taken.
  void join() { thread_.join(); }
  void abandon() { thread_.detach(); }

  struct Published {
    std::atomic<std::uint64_t> active{0}, total{0}, bytes{0}, datagrams{0}, udpFlows{0};
  };
  [[nodiscard]] const Published& counters() const { return published_; }

 private:
  // worker.cc
  void run();
  void turn(int timeout);
  [[nodiscard]] int timeout() const;
  void dispatch(std::uint64_t tag, std::uint32_t events);
  void onMail();
  void onWitness();
  void settle(const WitnessAnswer& answer);
  void watchWitness();
  void expire();
  void publish();

  // accept.cc
  bool acceptAll(std::size_t which);  // of listeners_; false: the bound of a turn was reached
  void begin(int fd, const Endpoint& client);
  void shed(int listener);
  void pauseListeners();
  void resumeListeners();
  static std::uint64_t listenerTag(std::size_t which) { return which < 2 ? which : which + 6; }
  void adopt(Flow& flow, const Held& held, bool room);
  bool watch(Flow& flow, Side side);
  std::uint8_t depthBehind(const Endpoint& client, const Endpoint& server) const;  // the relay's own connections that lead to this one
  Upstream connectUpstream(Flow& flow, std::uint8_t depth);
  void launch(Flow& flow, const Upstream& upstream);               // its connection has been begun
  void goStraight(Flow& flow, std::uint8_t depth);

  // handing.cc
  bool askListener(const HandOver& via);                           // who it is, before anything can come from it
  void choose(Flow& flow, const Program* program);
  void handTo(Flow& flow, HandOver& via);
  void greet(Flow& flow);
  void endGreeting(Flow& flow);
  void expireGreetings();

  // pump.cc
  void onEvent(Flow& flow, Side side, std::uint32_t events);
  void onConnected(Flow& flow, std::int64_t when);
  void pump(Flow& flow);
  void move(Flow& flow, Direction direction);
  enum class Step : std::uint8_t { kMoved, kWaiting, kFailed };
  Step pourOut(Flow& flow, Direction direction);                // what is in the pipe, to the other side
  Step pourIn(Flow& flow, Direction direction, std::size_t& moved);
  Step pourBoth(Flow& flow, Direction direction, std::span<std::byte> place, std::size_t& moved);  // `place` is reserved in the record
  Step draw(Flow& flow, Direction direction, Pipe& pipe, std::size_t most, std::size_t& drawn);
  bool lendPipe(Way& way);
  void ackOwed(const std::vector<Flow*>& flows);
  void readEnd(Flow& flow, Direction direction);
  void fail(Flow& flow, Side side, int error);

  // ending.cc
  void close(Flow& flow, CloseReason reason, ClosedBy by);      // at once; resets what is still open
  void closeSockets(Flow& flow);
  void forget(Flow& flow);
  void checkEnd(Flow& flow);
  void checkDrained(Flow& flow);
  void release(Flow& flow, const Program* program = nullptr);                                     // the witness has looked, or took too long
  void resetAll();

  RelayShared& shared_;
  const std::size_t index_;
  const std::vector<std::unique_ptr<Worker>>& siblings_;
  Track& track_;
  std::array<Descriptor, 4> listeners_;  // IPv4, IPv6; of kept ones IPv4, IPv6
  Descriptor epoll_, reserve_;
  std::thread thread_;

  std::int64_t now_ = 0;           // of this turn
  AddressList own_;
  std::uint32_t ownGeneration_ = 0;
  BufferPool pool_;
  PipePool pipes_;
  std::unique_ptr<Pipe> branch_ = PipePool::make(PipePool::kLeast);  // empty between calls; null: the kernel gives none of use
  std::unique_ptr<Buffer> scratch_;
  Flow* first_ = nullptr;
  std::vector<std::unique_ptr<Flow>> dead_;
  std::vector<Flow*> ready_, draining_, owing_, lately_;  // owing_: connected this turn, lately_: in the one before
  std::unordered_map<std::uint64_t, Flow*> awaiting_;
  std::deque<std::pair<std::int64_t, std::uint64_t>> askedBy_;  // when a question has taken too long, and its token
  std::unordered_map<std::uint64_t, Flow*> greetings_;          // by flow id
  std::deque<std::pair<std::int64_t, std::uint64_t>> greetBy_;  // when a proxy has taken too long, and the flow's id
  bool paused_ = false, stopping_ = false;
  std::int64_t resumeAt_ = 0, drainLook_ = 0;
  std::uint64_t active_ = 0, total_ = 0, bytes_ = 0;
  Published published_;

  // Towards which server a connect() is under way, and the how manieth it is; 0: none is. Read by siblings.
  alignas(64) std::atomic<std::uint64_t> connecting_{0};
  std::uint32_t connects_ = 0;

  UdpRelay udp_;
};

}  // namespace sluice
