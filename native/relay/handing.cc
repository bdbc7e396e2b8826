// Flows whose port is sent to a proxy: which of them go there, and what passes before their own bytes do.
//
// What the proxy itself sends on passes the gate as well, when the gate takes local flows. It is told by its program (the witness) and goes straight to its
// server, recorded like any other; so a person need not exempt a user or an address. Not by user: many a proxy runs as the person.
#include <sys/socket.h>

#include "net/socket.h"
#include "relay/worker.h"
#include "witness/socket_diag.h"

namespace sluice {
namespace {

constexpr std::int64_t kProxyPatience = 15'000'000'000;  // ns for the connection to the proxy and its answers

// As far as the kernel tells: where it does not even know of our own listener, it tells nothing.
bool nobodyListens(const Endpoint& proxy, std::uint16_t ownPort) {
  thread_local SocketDiag diag;
  Endpoint own = proxy;
  own.setPort(ownPort);
  return !diag.listens(proxy) && diag.listens(own);
}

}  // namespace

bool Worker::askListener(const HandOver& via) {
  const HandOverWish& wish = via.wish();
  if (!wish.path.empty() || !own_.contains(wish.proxy)) return true;
  Endpoint nobody = wish.proxy;
  nobody.setPort(0);
  // Answers come in the order of the questions, and this one goes before that about the flow.
  return sendQuestion(shared_.witness.load(std::memory_order_relaxed), WitnessQuestion{via.number() | HandOver::kTokenBit, wish.proxy, nobody, false, true});
}

void Worker::choose(Flow& flow, const Program* program) {
  flow.choosing = false;
  HandOver& via = *flow.via;
  const HandOverWish& wish = via.wish();
  const bool here = !wish.path.empty() || own_.contains(wish.proxy);
  const HandOver::Same same = !here ? HandOver::Same::kNo : program == nullptr ? HandOver::Same::kUnknown : via.same(*program, shared_.options.uplinkMark);
  if (same == HandOver::Same::kNo) return handTo(flow, via);
  // Better past the proxy than round in circles.
  if (same == HandOver::Same::kUnknown) shared_.warn(kHandOverUnsure);
  flow.via = nullptr;
  goStraight(flow, depthBehind(flow.record.client, flow.record.server));
}

void Worker::handTo(Flow& flow, HandOver& via) {
  track_.handed(flow.record, via.name(), now_);
  flow.greeting = std::make_unique<Greeting>(via.wish().kind, flow.record.client, flow.record.server);
  greetings_.emplace(flow.record.id, &flow);
  greetBy_.emplace_back(now_ + kProxyPatience, flow.record.id);
  // Where nobody listens iptables' rules drop, and the client would wait for nothing.
  if (via.transparent() && nobodyListens(via.wish().proxy, shared_.options.port)) return close(flow, CloseReason::kFailed, ClosedBy::kGate);
  const Endpoint& server = flow.record.server;
  const Upstream upstream = via.transparent() ? openUpstream({flow.record.client, server, flow.local, own_.contains(server), true, via.wish().mark, false, flow.look}) : via.connect(shared_.options.uplinkMark);
  flow.side[kServer].fd = upstream.fd;
  flow.upstreamEnd = upstream.local;
  if (upstream.fd >= 0 && via.wish().path.empty()) {
    flow.upstream = UpstreamSet::key(upstream.local, via.transparent() ? server : via.wish().proxy);
    shared_.upstreams.insert(flow.upstream, 1);
    flow.inUpstreams = true;
  }
  launch(flow, upstream);
}

void Worker::greet(Flow& flow) {
  Link& link = flow.side[kServer];
  // One in TPROXY mode says nothing: whether it took the connection is all there is to know.
  if (flow.via->transparent() && link.failed && takeError(link.fd) != 0) return close(flow, CloseReason::kFailed, ClosedBy::kGate);
  // A proxy that answers and ends at once has still answered.
  if (link.failed && !link.readable && !link.writable) return close(flow, CloseReason::kFailed, ClosedBy::kGate);
  switch (flow.greeting->step(link.fd)) {
    case Greeting::Outcome::kMore: return;
    case Greeting::Outcome::kDone: break;
    case Greeting::Outcome::kRefused: return close(flow, CloseReason::kRefused, ClosedBy::kServer);
    case Greeting::Outcome::kUnreachable: return close(flow, CloseReason::kUnreachable, ClosedBy::kNone);
    case Greeting::Outcome::kTimedOut: return close(flow, CloseReason::kTimedOut, ClosedBy::kNone);
    case Greeting::Outcome::kFailed: return close(flow, CloseReason::kFailed, ClosedBy::kGate);
  }
  endGreeting(flow);
  link.readable = true;  // it may have sent more than we took
  onConnected(flow, now_);
}

void Worker::endGreeting(Flow& flow) {
  if (!flow.greeting) return;
  flow.greeting.reset();
  greetings_.erase(flow.record.id);
  while (!greetBy_.empty() && !greetings_.contains(greetBy_.front().second)) greetBy_.pop_front();
}

void Worker::expireGreetings() {
  while (!greetBy_.empty() && greetBy_.front().first <= now_) {
    const auto found = greetings_.find(greetBy_.front().second);
    greetBy_.pop_front();
    if (found != greetings_.end()) close(*found->second, CloseReason::kFailed, ClosedBy::kGate);
  }
}

}  // namespace sluice
