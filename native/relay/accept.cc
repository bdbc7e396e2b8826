// New flows: taken, refused, or shed when there is no room for them.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>

#include "net/descriptor_room.h"
#include "net/socket.h"
#include "relay/refusal.h"
#include "relay/worker.h"

namespace sluice {
namespace {

constexpr int kAcceptsATurn = 64;
constexpr std::int64_t kWitnessPatience = 50'000'000;  // ns a flow's answer is held back for its program to be found alive
constexpr std::int64_t kPause = 100'000'000;           // ns without accepting when not even shedding is possible

}  // namespace

bool Worker::acceptAll(std::size_t which) {
  if (paused_ || !listeners_[which]) return true;
  const int listener = listeners_[which].get();
  for (int i = 0; i < kAcceptsATurn; ++i) {
    Endpoint client;
    socklen_t length = sizeof client.storage;
    const int fd = ::accept4(listener, reinterpret_cast<sockaddr*>(&client.storage), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      begin(fd, client);
      continue;
    }
    if (errno == EAGAIN) return true;
    if (exhausted(errno)) {
      shed(listener);
      if (paused_) return true;
      continue;
    }
    // Anything else belongs to a connection that died while it waited (accept(2)): the next one is another matter.
  }
  return false;
}

void Worker::begin(int fd, const Endpoint& client) {
  const bool redirected = shared_.options.redirected;
  const std::optional<Arrival> arrival = arrivalOf(fd, redirected);
  const Endpoint server = arrival ? arrival->server : Endpoint{};
  // Somebody who speaks to the relay itself was not intercepted and has no destination. Where it listens everywhere, that may be anybody.
  if (!arrival || ((server.port() == shared_.options.port || server.port() == shared_.options.keptPort) && (redirected ? own_ : AddressList{}).contains(server))) {
    ::close(fd);
    return;
  }
  // Whose SYN was held has its server already.
  std::optional<Held> held = shared_.held.take(client, server);
  auto owned = std::make_unique<Flow>();
  Flow& flow = *owned;
  flow.record.id = held ? held->id : shared_.nextId.fetch_add(1, std::memory_order_relaxed);
  flow.record.client = client;
  flow.record.server = server;
  flow.look = arrival->look;
  flow.side[kClient].fd = fd;
  flow.side[kClient].writable = true;
  flow.local = fromHere(own_, client, server);
  flow.next = first_;
  if (first_ != nullptr) first_->previous = &flow;
  first_ = owned.release();
  ++active_;
  ++total_;
  // A flow of UDP that is silent makes room.
  const bool wanted = shared_.active.fetch_add(1, std::memory_order_relaxed) < shared_.options.maxFlows || udp_.shedOldest();
  const bool room = wanted && forFlows(fd);
  if (held) return adopt(flow, *held, room);
  std::shared_ptr<HandOver> via = shared_.handOvers.of(server);
  // What the proxy's own machine sends through us comes from the proxy, for all we can know.
  if (via != nullptr && !flow.local && via->wish().path.empty() && via->wish().proxy.address() == client.address()) via = nullptr;
  // A proxy that goes on to a service here in its client's name would not hear its answers: they are the client's.
  if (via != nullptr && !flow.local && via->transparent() && own_.contains(server)) via = nullptr;
  const std::uint8_t depth = depthBehind(client, server);
  const bool loop = depth >= kLoopDepth;

  const int witness = shared_.witness.load(std::memory_order_relaxed);
  if (flow.local && room && !loop && witness >= 0) {  // before anything else: the program may be gone in a millisecond
    const std::uint64_t token = flow.record.id * siblings_.size() + index_;
    if ((via == nullptr || askListener(*via)) && sendQuestion(witness, WitnessQuestion{token, client, server, false, via != nullptr})) {
      flow.awaiting = true;
      awaiting_.emplace(token, &flow);
      askedBy_.emplace_back(now_ + kWitnessPatience, token);
    }
  }
  track_.opened(flow.record, scopeOf(flow.local, server, own_), now_);
  if (loop) {
    shared_.warn(kLoopRefused);
    return close(flow, CloseReason::kFailed, ClosedBy::kGate);
  }
  if (!room) return close(flow, CloseReason::kShed, ClosedBy::kGate);
  if (!watch(flow, kClient)) return close(flow, CloseReason::kShed, ClosedBy::kGate);
  if (via == nullptr) return goStraight(flow, depth);
  flow.via = std::move(via);
  if (!flow.local) return handTo(flow, *flow.via);
  flow.choosing = true;
  if (!flow.awaiting) choose(flow, nullptr);
}

void Worker::goStraight(Flow& flow, std::uint8_t depth) { launch(flow, connectUpstream(flow, depth)); }

void Worker::launch(Flow& flow, const Upstream& upstream) {
  if (upstream.fd < 0 ? exhausted(upstream.error) : !watch(flow, kServer)) return close(flow, CloseReason::kShed, ClosedBy::kGate);
  if (flow.greeting) {
    if (upstream.fd < 0) return close(flow, CloseReason::kFailed, ClosedBy::kGate);
    if (upstream.connected) greet(flow);
    return;
  }
  if (upstream.fd < 0) return fail(flow, kServer, upstream.error);
  if (upstream.connected) onConnected(flow, now_);
}

// A flow that the usher began: found, connected, and not yet in the record.
void Worker::adopt(Flow& flow, const Held& held, bool room) {
  flow.side[kServer].fd = held.upstream;
  flow.upstream = held.key;
  flow.inUpstreams = true;
  flow.upstreamEnd = held.upstreamEnd;
  track_.opened(flow.record, scopeOf(flow.local, flow.record.server, own_), held.asked);
  if (held.program) track_.program(flow.record, *held.program, now_);
  if (!room || !watch(flow, kServer) || !watch(flow, kClient)) return close(flow, CloseReason::kShed, ClosedBy::kGate);
  onConnected(flow, held.connected);
}

// A connection that comes back can be accepted by another thread before the connect() that made it returns, and its port is not known until then.
// So each thread says what it is about, and who accepts something for the same server waits until that is in the set: some
// microseconds, and only where a sibling is in just that call.
std::uint8_t Worker::depthBehind(const Endpoint& client, const Endpoint& server) const {
  const std::uint32_t tag = UpstreamSet::serverTag(server);
  for (const auto& sibling : siblings_) {
    const std::uint64_t seen = sibling->connecting_.load(std::memory_order_acquire);
    if (static_cast<std::uint32_t>(seen) == tag) sibling->connecting_.wait(seen, std::memory_order_acquire);
  }
  return shared_.upstreams.depth(UpstreamSet::key(client, server));
}

Upstream Worker::connectUpstream(Flow& flow, std::uint8_t depth) {
  const Endpoint& server = flow.record.server;
  connecting_.store(static_cast<std::uint64_t>(++connects_) << 32U | UpstreamSet::serverTag(server), std::memory_order_release);
  UpstreamRequest request{flow.record.client, server, flow.local, own_.contains(server), !shared_.options.redirected, shared_.options.uplinkMark};
  request.look = flow.look;
  request.lateAck = true;
  const Upstream upstream = openUpstream(request);
  flow.side[kServer].fd = upstream.fd;
  flow.owesAck = upstream.fd >= 0;
  if (upstream.fd >= 0) {
    flow.upstream = UpstreamSet::key(upstream.local, server);
    shared_.upstreams.insert(flow.upstream, static_cast<std::uint8_t>(depth + 1));
    flow.inUpstreams = true;
    flow.upstreamEnd = upstream.local;
  }
  connecting_.store(0, std::memory_order_release);
  connecting_.notify_all();
  return upstream;
}

bool Worker::watch(Flow& flow, Side side) {
  // Once and for all: edge-triggered, every direction. What is known of readiness is kept in the flow.
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
  event.data.u64 = reinterpret_cast<std::uint64_t>(&flow) | side;
  return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, flow.side[side].fd, &event) == 0;
}

// Not even one of those kept back is left, or none in the whole system (ENFILE). The reserve is given up for a moment, so that who waits is told and
// does not wait for ever.
void Worker::shed(int listener) {
  shared_.warn(kFlowsShed);
  if (!reserve_) return pauseListeners();
  reserve_.reset();
  const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) {
    shared_.countShed();
    ::close(fd);  // linger is armed: a reset
  }
  reserve_.reset(::eventfd(0, EFD_CLOEXEC));
  if (fd < 0 || !reserve_) pauseListeners();
}

void Worker::pauseListeners() {
  paused_ = true;
  resumeAt_ = now_ + kPause;
  for (std::size_t which = 0; which < listeners_.size(); ++which) {
    epoll_event none{};
    none.data.u64 = listenerTag(which);
    if (listeners_[which]) ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listeners_[which].get(), &none);
  }
}

void Worker::resumeListeners() {
  paused_ = false;
  if (!reserve_) reserve_.reset(::eventfd(0, EFD_CLOEXEC));
  for (std::size_t which = 0; which < listeners_.size(); ++which) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = listenerTag(which);
    if (listeners_[which]) ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listeners_[which].get(), &event);
  }
}

void Worker::fail(Flow& flow, Side side, int error) {
  if (flow.state == FlowState::kConnecting && side == kServer) {
    const CloseReason reason = refusalOf(error);
    return close(flow, reason, reason == CloseReason::kRefused ? ClosedBy::kServer : ClosedBy::kNone);
  }
  const ClosedBy by = side == kClient ? ClosedBy::kClient : ClosedBy::kServer;
  switch (error) {
    case ETIMEDOUT: return close(flow, CloseReason::kTimedOut, by);
    case EHOSTUNREACH: case ENETUNREACH: case ENETDOWN: return close(flow, CloseReason::kUnreachable, by);
    default: return close(flow, side == kClient ? CloseReason::kClientReset : CloseReason::kServerReset, by);
  }
}

}  // namespace sluice
