#include "relay/usher.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "net/socket.h"
#include "net/upstream.h"
#include "relay/flow.h"
#include "relay/refusal.h"

namespace sluice {
namespace {

constexpr int kEvents = 256;
constexpr int kSynsATurn = 256;
constexpr std::uint64_t kLogTag = 0, kMailTag = 1;  // a flow's tag is its id plus kFirstTag
constexpr std::uint64_t kFirstTag = 2;
constexpr std::int64_t kMillisecond = 1'000'000, kSecond = 1000 * kMillisecond;
constexpr std::int64_t kLookEvery = 100 * kMillisecond;
constexpr std::int64_t kWitnessPatience = 50 * kMillisecond;
constexpr std::int64_t kReleasedPatience = 10 * kSecond;  // who does not finish the handshake by then frees what was reached for it
constexpr std::size_t kMost = 16384;                       // entries, some 600 bytes each; beyond it SYNs wait for their next try
constexpr std::size_t kRecent = 16384;                     // digests, 8 bytes each

// A client that still waits sends its SYN again after 1, 3, 7, 15 … seconds (RFC 6298, 5.5); one that missed its time has given up.
std::int64_t patience(std::int64_t first, std::int64_t last) { return last + 4 * kSecond + (last - first) * 5 / 2; }

}  // namespace

Usher::Usher(RelayShared& shared, Track& track, std::unique_ptr<SynLog> log, RawSender sender)
    : shared_(shared), track_(track), log_(std::move(log)), sender_(std::move(sender)), epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      recent_(kRecent) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kLogTag;
  bool good = epoll_ && mailDescriptor() >= 0 && ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, log_->descriptor(), &event) == 0;
  event.data.u64 = kMailTag;
  good = good && ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, mailDescriptor(), &event) == 0;
  if (!good) std::abort();  // at start, before anything is relayed: nothing sensible could go on
}

Usher::~Usher() = default;

void Usher::start() { thread_ = std::thread([this] { run(); }); }

void Usher::run() {
  now_ = Recorder::now();
  while (!stopping_) turn();
  hasStopped();
  shared_.wakeControl();
}

void Usher::turn() {
  epoll_event events[kEvents];
  const int timeout = pending_.empty() ? -1 : static_cast<int>(kLookEvery / kMillisecond);
  const int count = ::epoll_wait(epoll_.get(), events, kEvents, timeout);
  now_ = Recorder::now();
  const std::uint64_t ping = pinged();
  if (ownGeneration_ != shared_.own.generation()) {
    ownGeneration_ = shared_.own.generation();
    own_ = shared_.own.list();
  }
  for (int i = 0; i < count; ++i) {
    const std::uint64_t tag = events[i].data.u64;
    if (tag == kLogTag) onLog();
    else if (tag == kMailTag) onMail();
    else onUpstream(tag - kFirstTag);
  }
  if (now_ - looked_ >= kLookEvery) expire();
  track_.flush();
  publish();
  if (ping != answered()) {
    answer(ping);
    shared_.wakeControl();
  }
  raiseIfPingedSince(ping);
}

void Usher::publish() {
  pendingCount_.store(under_, std::memory_order_relaxed);
  const std::uint64_t active = this->active();
  if (std::exchange(toldActive_, active) != active && !shared_.changed.exchange(true)) shared_.wakeControl();
}

void Usher::onMail() {
  Mail mail = takeMail();
  for (WitnessAnswer& answer : std::get<0>(mail.letters)) {
    const auto found = pending_.find(answer.token & ~kTokenBit);
    if (found == pending_.end() || !found->second.naming) continue;
    found->second.naming = false;
    found->second.program = std::move(answer.program);
    settle(found->second);
  }
  if (mail.reset || mail.stop) resetAll();
  stopping_ = mail.stop;
}

void Usher::onLog() {
  for (int i = 0; i < kSynsATurn; ++i) {
    const auto packet = log_->next();
    if (!packet) return;
    auto syn = parseSyn(packet->bytes);
    if (!syn) continue;
    for (Endpoint* const end : {&syn->client, &syn->server}) {
      if (end->linkLocal()) end->setScope(packet->outgoing);
    }
    onSyn(std::move(*syn));
  }
  // The descriptor is level-triggered, but what was received and not yet read is not in the kernel any more.
  raise();
}

// Where the SYN's digest stands if its client is in already. Direct-mapped: a digest in the same place is forgotten, and with it only a convenience.
std::uint64_t& Usher::recent(const Syn& syn, std::uint64_t& digest) {
  digest = UpstreamSet::Hash{}(UpstreamSet::key(syn.client, syn.server)) ^ (std::uint64_t{syn.sequence} << 32U | syn.sequence);
  return recent_[digest % kRecent];
}

void Usher::onSyn(Syn syn) {
  // Whether a proxy reaches its server is not for us to try first.
  if (shared_.handOvers.of(syn.server) != nullptr) {
    sender_.release(syn, fromHere(own_, syn.client, syn.server));
    return;
  }
  const UpstreamSet::Key ends = UpstreamSet::key(syn.client, syn.server);
  std::uint8_t again = 0;
  if (const auto known = byEnds_.find(ends); known != byEnds_.end()) {
    Pending& pending = pending_.at(known->second);
    if (pending.syn.sequence == syn.sequence) {
      pending.lastSyn = now_;
      // The first one may have been lost on its way; when the client is in already, a second one does no harm.
      if (pending.stage == Pending::Stage::kReleased) sender_.release(pending.syn, pending.local);
      return;
    }
    // Its client gave that up and begins anew; or a connection of ours that bears its client's port has come back.
    const bool ours = pending.stage == Pending::Stage::kConnecting && pending.upstreamEnd == syn.client;
    if (ours && pending.again < kLoopDepth) again = static_cast<std::uint8_t>(pending.again + 1);
    letGo(pending);
  }
  std::uint64_t digest = 0;
  if (pending_.size() >= kMost || recent(syn, digest) == digest) return;

  const std::uint64_t id = shared_.nextId.fetch_add(1, std::memory_order_relaxed);
  Pending& pending = pending_[id];
  byEnds_[ends] = id;
  pending.id = id;
  ++under_;
  pending.syn = std::move(syn);
  pending.asked = pending.lastSyn = now_;
  pending.local = fromHere(own_, pending.syn.client, pending.syn.server);
  pending.again = again;
  if (const int witness = shared_.witness.load(std::memory_order_relaxed); pending.local && witness >= 0) {
    // The program waits in connect(2), so it is there to be found.
    pending.naming = sendQuestion(witness, WitnessQuestion{id | kTokenBit, pending.syn.client, pending.syn.server});
  }
  connect(pending);
}

void Usher::connect(Pending& pending) {
  const Syn& syn = pending.syn;
  const auto fail = [&](int error) {
    pending.error = error;
    pending.stage = Pending::Stage::kFailed;
    settle(pending);
  };
  const std::uint8_t depth = std::max(shared_.upstreams.depth(UpstreamSet::key(syn.client, syn.server)), pending.again);
  if (depth >= kLoopDepth) {
    shared_.warn(kLoopRefused);
    return fail(ELOOP);
  }
  if (shared_.active.load(std::memory_order_relaxed) >= shared_.options.maxFlows) return fail(EMFILE);
  Upstream upstream = openUpstream({syn.client, syn.server, pending.local, own_.contains(syn.server), true, shared_.options.uplinkMark, shared_.options.keptPort != 0, syn.look});
  if (upstream.fd < 0) return fail(upstream.error);
  pending.upstream.reset(upstream.fd);
  pending.upstreamEnd = upstream.local;
  pending.key = UpstreamSet::key(upstream.local, syn.server);
  shared_.upstreams.insert(*pending.key, static_cast<std::uint8_t>(depth + 1));
  if (upstream.connected) {
    pending.connected = now_;
    pending.stage = Pending::Stage::kConnected;
    return settle(pending);
  }
  epoll_event event{};
  event.events = EPOLLOUT | EPOLLONESHOT;
  event.data.u64 = kFirstTag + pending.id;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, pending.upstream.get(), &event) != 0) fail(errno);
}

void Usher::onUpstream(std::uint64_t id) {
  const auto found = pending_.find(id);
  if (found == pending_.end() || found->second.stage != Pending::Stage::kConnecting) return;
  Pending& pending = found->second;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, pending.upstream.get(), nullptr);
  const int error = takeError(pending.upstream.get());
  // Reset after the handshake: the client is let in, and gets what came before the reset, then the reset (Worker::onEvent looks again).
  pending.stage = error == 0 || error == ECONNRESET || error == EPIPE ? Pending::Stage::kConnected : Pending::Stage::kFailed;
  pending.error = error;
  pending.connected = now_;
  settle(pending);
}

// The client hears nothing before the program behind it has been found: afterwards it may be gone.
void Usher::settle(Pending& pending) {
  if (pending.naming && now_ < pending.asked + kWitnessPatience) return;
  if (pending.stage == Pending::Stage::kConnected) release(pending);
  else if (pending.stage == Pending::Stage::kFailed) refuse(pending);
}

void Usher::release(Pending& pending) {
  Held held;
  held.id = pending.id;
  held.upstream = pending.upstream.release();
  held.upstreamEnd = pending.upstreamEnd;
  held.key = *pending.key;
  held.asked = pending.asked;
  held.connected = pending.connected;
  held.program = std::move(pending.program);
  pending.key.reset();
  pending.stage = Pending::Stage::kReleased;
  --under_;
  pending.until = now_ + kReleasedPatience;
  shared_.held.put(pending.syn.client, pending.syn.server, std::move(held));
  // Told before anybody can accept it, or it would be counted twice.
  pendingCount_.store(under_, std::memory_order_relaxed);
  sender_.release(pending.syn, pending.local);
}

void Usher::refuse(Pending& pending) {
  const CloseReason reason = refusalOf(pending.error);
  if (reason == CloseReason::kShed) shared_.countShed();
  // Silence is answered by silence: a client whose server says nothing waits as long as it likes.
  const bool silent = reason == CloseReason::kTimedOut;
  if (!silent && !sender_.unreachable(pending.syn, pending.error)) sender_.reset(pending.syn);
  const bool ours = reason == CloseReason::kShed || reason == CloseReason::kFailed;
  record(pending, reason, reason == CloseReason::kRefused ? ClosedBy::kServer : ours ? ClosedBy::kGate : ClosedBy::kNone);
  forget(pending.id);
}

void Usher::record(const Pending& pending, CloseReason reason, ClosedBy by) {
  FlowRecord flow;
  flow.id = pending.id;
  flow.client = pending.syn.client;
  flow.server = pending.syn.server;
  track_.opened(flow, scopeOf(pending.local, flow.server, own_), pending.asked);
  if (pending.program) track_.program(flow, *pending.program, now_);
  track_.closed(flow, reason, by, now_);
  refused_.fetch_add(1, std::memory_order_relaxed);
}

void Usher::forget(std::uint64_t id) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;
  Pending& pending = found->second;
  if (pending.key) shared_.upstreams.erase(*pending.key);
  if (pending.stage != Pending::Stage::kReleased) --under_;
  const auto ends = byEnds_.find(UpstreamSet::key(pending.syn.client, pending.syn.server));
  if (ends != byEnds_.end() && ends->second == id) byEnds_.erase(ends);
  pending_.erase(found);
}

// Its client is gone: what was reached for it is reset, and recorded unless a worker has it.
void Usher::letGo(Pending& pending) {
  if (pending.stage == Pending::Stage::kReleased) {
    if (const auto held = shared_.held.take(pending.syn.client, pending.syn.server)) {
      shared_.upstreams.erase(held->key);
      ::close(held->upstream);
      record(pending, CloseReason::kClientReset, ClosedBy::kClient);
    }
  } else {
    record(pending, CloseReason::kTimedOut, ClosedBy::kNone);
  }
  forget(pending.id);
}

void Usher::expire() {
  looked_ = now_;
  std::vector<std::uint64_t> over, unnamed, in;
  for (const auto& [id, pending] : pending_) {
    const bool released = pending.stage == Pending::Stage::kReleased;
    if (released && !shared_.held.has(pending.syn.client, pending.syn.server)) in.push_back(id);
    else if (now_ >= (released ? pending.until : patience(pending.asked, pending.lastSyn))) over.push_back(id);
    else if (pending.naming && !released && now_ >= pending.asked + kWitnessPatience) unnamed.push_back(id);
  }
  for (const std::uint64_t id : in) {
    std::uint64_t digest = 0;
    std::uint64_t& place = recent(pending_.at(id).syn, digest);
    place = digest;
    forget(id);
  }
  for (const std::uint64_t id : unnamed) settle(pending_.at(id));
  for (const std::uint64_t id : over) {
    if (const auto found = pending_.find(id); found != pending_.end()) letGo(found->second);
  }
}

void Usher::resetAll() {
  while (!pending_.empty()) {
    Pending& pending = pending_.begin()->second;
    if (pending.stage == Pending::Stage::kReleased) {
      letGo(pending);
      continue;
    }
    sender_.reset(pending.syn);
    record(pending, CloseReason::kGateClosed, ClosedBy::kGate);
    forget(pending.id);
  }
}

}  // namespace sluice
