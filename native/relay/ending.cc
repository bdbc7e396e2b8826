// How flows end: orderly, when the kernel has delivered everything, or at once with a reset on both sides.
#include <unistd.h>

#include <algorithm>

#include "net/socket.h"
#include "relay/worker.h"

namespace sluice {
namespace {

template <typename Item>
void drop(std::vector<Item>& items, const Item& item) {
  const auto found = std::find(items.begin(), items.end(), item);
  if (found == items.end()) return;
  *found = items.back();
  items.pop_back();
}

}  // namespace

// Closing a socket sends a reset where its directions have not ended, for linger is armed; where they have, nothing.
void Worker::closeSockets(Flow& flow) {
  endGreeting(flow);
  if (flow.inUpstreams) shared_.upstreams.erase(flow.upstream);
  flow.inUpstreams = false;
  for (const Side side : {kClient, kServer}) {
    int& fd = flow.side[side].fd;
    if (fd < 0) continue;
    if (flow.record.opened) flow.record.legs[side] = measure(fd);
    ::close(fd);
    fd = -1;
  }
  for (Way& way : flow.way) {
    if (way.pending) pool_.give(std::move(way.pending));
    way.pending.reset();
    if (way.pipe && way.piped == 0) pipes_.give(std::move(way.pipe));
    else if (way.pipe) pipes_.discard(std::move(way.pipe));
    way.pipe.reset();
  }
  if (flow.ready) drop(ready_, &flow);
  flow.ready = false;
  if (flow.owesAck) drop(owing_, &flow);
  flow.owesAck = false;
  if (flow.state == FlowState::kDraining) drop(draining_, &flow);
}

void Worker::close(Flow& flow, CloseReason reason, ClosedBy by) {
  flow.reason = reason;
  flow.by = by;
  if (reason == CloseReason::kShed) shared_.countShed();
  if (flow.awaiting && by != ClosedBy::kClient && by != ClosedBy::kGate && reason != CloseReason::kFinished) {
    flow.state = FlowState::kCondemned;  // the program would be gone before the witness could look
    return;
  }
  closeSockets(flow);
  if (flow.awaiting && by != ClosedBy::kGate) {
    flow.state = FlowState::kEpilogue;
    return;
  }
  forget(flow);
}

void Worker::forget(Flow& flow) {
  if (flow.awaiting) awaiting_.erase(flow.record.id * siblings_.size() + index_);
  flow.awaiting = false;
  track_.closed(flow.record, flow.reason, flow.by, now_);
  flow.state = FlowState::kDead;
  if (flow.previous != nullptr) flow.previous->next = flow.next;
  if (flow.next != nullptr) flow.next->previous = flow.previous;
  if (first_ == &flow) first_ = flow.next;
  --active_;
  shared_.active.fetch_sub(1, std::memory_order_relaxed);
  dead_.emplace_back(&flow);  // events of this turn may still point at it
}

void Worker::release(Flow& flow, const Program* program) {
  awaiting_.erase(flow.record.id * siblings_.size() + index_);
  flow.awaiting = false;
  switch (flow.state) {
    case FlowState::kCondemned:
      closeSockets(flow);
      return forget(flow);
    case FlowState::kEpilogue:
      return forget(flow);
    case FlowState::kOpen:
      return pump(flow);
    case FlowState::kConnecting:
      if (flow.choosing) choose(flow, program);
      return;
    default:
      return;
  }
}

void Worker::checkEnd(Flow& flow) {
  if (!flow.way[0].passed || !flow.way[1].passed) return;
  flow.reason = CloseReason::kFinished;
  flow.state = FlowState::kDraining;
  draining_.push_back(&flow);
  checkDrained(flow);
}

// The flow counts until the kernel has delivered what it holds: who takes the rules away earlier strands those bytes. However long its reader stops:
// it may, and one that is gone is found by the kernel (tcp(7), tcp_retries2).
void Worker::checkDrained(Flow& flow) {
  for (const Side side : {kClient, kServer}) {
    if (!flow.side[side].failed) continue;
    if (const int error = takeError(flow.side[side].fd); error != 0) return fail(flow, side, error);
    flow.side[side].failed = false;
  }
  if (undelivered(flow.side[kClient].fd) + undelivered(flow.side[kServer].fd) == 0) close(flow, CloseReason::kFinished, flow.by);
}

void Worker::resetAll() {
  udp_.closeAll();
  while (first_ != nullptr) {
    Flow& flow = *first_;
    // All may have been delivered since it was looked at last.
    if (flow.state == FlowState::kDraining) {
      checkDrained(flow);
      if (first_ != &flow) continue;
    }
    if (flow.state != FlowState::kEpilogue && flow.state != FlowState::kCondemned) {
      flow.reason = CloseReason::kGateClosed;
      flow.by = ClosedBy::kGate;
    }
    closeSockets(flow);
    forget(flow);
  }
}

}  // namespace sluice
