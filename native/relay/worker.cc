#include "relay/worker.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "relay/usher.h"

namespace sluice {
namespace {

constexpr int kEvents = 256;
constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kDrainLook = 250 * kMillisecond;
constexpr std::int64_t kWitnessPatience = 50 * kMillisecond;

// Tags of what is no flow. A flow's tag is its address (64-byte aligned, never this small) plus its Side, and UdpRelay::kFlowBit for one of UDP.
constexpr std::uint64_t kMailTag = 2, kWitnessTag = 3;  // 0, 1, 8 and 9: the listeners; 4 and 5: those of UDP
constexpr std::size_t kMostStrays = 1024;

bool add(int epoll, int fd, std::uint32_t events, std::uint64_t tag) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

Worker::Worker(RelayShared& shared, std::size_t index, const std::vector<std::unique_ptr<Worker>>& siblings, Track& track, Listening listening)
    : shared_(shared), index_(index), siblings_(siblings), track_(track),
      listeners_{std::move(listening.tcp[0]), std::move(listening.tcp[1]), std::move(listening.kept[0]), std::move(listening.kept[1])},
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      reserve_(::eventfd(0, EFD_CLOEXEC)), scratch_(pool_.take()),
      udp_({shared, track, own_, now_, epoll_.get(), index, [this](std::size_t owner, StrayDatagram stray) { siblings_[owner]->deliver(std::move(stray), kMostStrays); }},
           std::move(listening.udp)) {
  bool good = epoll_ && mailDescriptor() >= 0 && add(epoll_.get(), mailDescriptor(), EPOLLIN, kMailTag);
  for (std::size_t which = 0; which < listeners_.size(); ++which) {
    if (listeners_[which]) good = good && add(epoll_.get(), listeners_[which].get(), EPOLLIN, listenerTag(which));
  }
  if (!good) std::abort();  // at start, before anything is relayed: nothing sensible could go on
}

Worker::~Worker() = default;

void Worker::start() { thread_ = std::thread([this] { run(); }); }

void Worker::run() {
  if (index_ == 0) watchWitness();
  now_ = Recorder::now();
  while (!stopping_) turn(timeout());
  hasStopped();
  shared_.wakeControl();
}

int Worker::timeout() const {
  if (!ready_.empty() || !owing_.empty()) return 0;
  std::int64_t until = -1;
  const auto sooner = [&](std::int64_t when) { until = until < 0 ? when : std::min(until, when); };
  if (!askedBy_.empty()) sooner(askedBy_.front().first);
  if (!greetBy_.empty()) sooner(greetBy_.front().first);
  // Ends are announced by events; this look is for what no event tells, so it may be rare.
  if (!draining_.empty()) sooner(drainLook_);
  if (paused_) sooner(resumeAt_);
  if (const std::int64_t due = udp_.due(); due >= 0) sooner(due);
  if (until < 0) return -1;
  return static_cast<int>(std::max<std::int64_t>(0, (until - now_ + kMillisecond - 1) / kMillisecond));
}

void Worker::turn(int timeout) {
  epoll_event events[kEvents];
  const int count = ::epoll_wait(epoll_.get(), events, kEvents, timeout);
  now_ = Recorder::now();
  const std::uint64_t ping = pinged();
  if (ownGeneration_ != shared_.own.generation()) {
    ownGeneration_ = shared_.own.generation();
    own_ = shared_.own.list();
  }
  udp_.beginTurn();
  // Those whose share of the last turn was used up go on first.
  std::vector<Flow*> ready;
  ready.swap(ready_);
  lately_.swap(owing_);
  for (Flow* flow : ready) {
    flow->ready = false;
    if (flow->state == FlowState::kOpen) pump(*flow);
  }
  for (int i = 0; i < count; ++i) dispatch(events[i].data.u64, events[i].events);
  ackOwed(lately_);
  lately_.clear();
  expire();
  bool all = true;
  if (ping != answered()) {
    for (std::size_t which = 0; which < listeners_.size(); ++which) all = acceptAll(which) && all;
    for (std::size_t family = 0; family < 2; ++family) all = udp_.listen(family) && all;
  }
  track_.flush();
  publish();
  dead_.clear();
  udp_.endTurn();
  if (all && ping != answered()) {
    answer(ping);
    shared_.wakeControl();
  } else if (!all) {
    raise();
  }
  raiseIfPingedSince(ping);
}

void Worker::dispatch(std::uint64_t tag, std::uint32_t events) {
  if (tag < 2) {
    acceptAll(tag);
  } else if (tag == listenerTag(2) || tag == listenerTag(3)) {
    acceptAll(tag - listenerTag(2) + 2);
  } else if (tag == kMailTag) {
    onMail();
  } else if (tag == kWitnessTag) {
    onWitness();
  } else if (tag < 64) {
    udp_.listen(tag - UdpRelay::kListenTag);
  } else if ((tag & UdpRelay::kFlowBit) != 0) {
    udp_.onEvent(tag, events);
  } else {
    auto* flow = reinterpret_cast<Flow*>(tag & ~std::uint64_t{63});
    onEvent(*flow, static_cast<Side>(tag & 1U), events);
  }
}

void Worker::onMail() {
  const Mail mail = takeMail();
  if (mail.stop) listeners_ = {};
  if (mail.reset || mail.stop) resetAll();
  stopping_ = mail.stop;
  const auto& [answers, strays] = mail.letters;
  for (const WitnessAnswer& answer : answers) settle(answer);
  for (const StrayDatagram& stray : strays) {
    if (!stopping_) udp_.take(stray);
  }
}

void Worker::settle(const WitnessAnswer& answer) {
  const auto found = awaiting_.find(answer.token);
  if (found == awaiting_.end()) {
    udp_.settle(answer);  // else it took too long, and its flow went on unnamed
    return;
  }
  Flow& flow = *found->second;
  if (answer.program) track_.program(flow.record, *answer.program, now_);
  release(flow, answer.program ? &*answer.program : nullptr);
}

void Worker::watchWitness() {
  const int channel = shared_.witness.load();
  if (channel >= 0 && !add(epoll_.get(), channel, EPOLLIN, kWitnessTag)) std::abort();
}

void Worker::onWitness() {
  const int channel = shared_.witness.load();
  if (channel < 0) return;
  bool ended = false;
  for (int i = 0; i < 64; ++i) {  // the rest next turn; the channel is level-triggered
    std::optional<WitnessAnswer> answer = receiveAnswer(channel, ended);
    if (!answer) break;
    if ((answer->token & Usher::kTokenBit) != 0) {
      if (shared_.usher != nullptr) shared_.usher->deliver(std::move(*answer));
      continue;
    }
    if ((answer->token & HandOver::kTokenBit) != 0) {
      if (const auto via = shared_.handOvers.numbered(answer->token & ~HandOver::kTokenBit)) via->learn(std::move(answer->program));
      continue;
    }
    const std::size_t owner = answer->token % siblings_.size();
    if (owner == index_) {
      settle(*answer);
    } else {
      siblings_[owner]->deliver(std::move(*answer));
    }
  }
  if (!ended) return;
  // The descriptor stays open: another thread may be about to ask, and must not hit a number used anew.
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, channel, nullptr);
  shared_.witness.store(-1);
  shared_.warn(kWitnessLost);
}

void Worker::expire() {
  while (!askedBy_.empty() && askedBy_.front().first <= now_) {
    const std::uint64_t token = askedBy_.front().second;
    askedBy_.pop_front();
    const auto found = awaiting_.find(token);
    if (found == awaiting_.end()) continue;
    // Where a flow goes is worth a longer wait than how it is named.
    constexpr std::uint8_t kMoreLooks = 40;
    if (Flow& flow = *found->second; flow.choosing && ++flow.looks < kMoreLooks) {
      askedBy_.emplace_back(now_ + kWitnessPatience, token);
    } else {
      release(flow);
    }
  }
  expireGreetings();
  if (!draining_.empty() && now_ >= drainLook_) {
    drainLook_ = now_ + kDrainLook;
    // checkDrained() takes flows out of the list, so a copy is walked.
    const std::vector<Flow*> draining = draining_;
    for (Flow* flow : draining) checkDrained(*flow);
  }
  if (paused_ && now_ >= resumeAt_) resumeListeners();
  udp_.expire();
}

void Worker::publish() {
  const auto store = [](std::atomic<std::uint64_t>& where, std::uint64_t value) {
    if (where.load(std::memory_order_relaxed) == value) return false;
    where.store(value, std::memory_order_relaxed);
    return true;
  };
  const UdpRelay::Counts& udp = udp_.counts();
  bool changed = store(published_.active, active_ + udp.busy);
  changed = store(published_.total, total_ + udp.total) || changed;
  changed = store(published_.bytes, bytes_ + udp.bytes) || changed;
  changed = store(published_.datagrams, udp.datagrams) || changed;
  changed = store(published_.udpFlows, udp.flows) || changed;
  // Not looked at before: a look could come before what was stored above is to be seen, and find what the controller is about to take back.
  if (changed && !shared_.changed.exchange(true)) shared_.wakeControl();
}

}  // namespace sluice
