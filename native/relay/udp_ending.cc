// How flows of UDP end: nobody says so, they are silent for long, or there is no room for them.
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>

#include "net/resting_ports.h"
#include "net/udp_socket.h"
#include "relay/udp_relay.h"

namespace sluice {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
// A flow counts as active for so long after a datagram. Silent ones do not hold up a gate that closes: their next datagram goes its way without us.
constexpr std::int64_t kBusy = 5 * kSecond;
constexpr std::int64_t kSlack = kSecond / 20;  // so that the ends of many flows are one wake

}  // namespace

void UdpRelay::touch(UdpFlow& flow) {
  flow.last = surroundings_.now;
  if (!flow.listed) return;
  auto& list = byAge_[static_cast<std::size_t>(flow.kind)];
  list.remove(flow);
  list.append(flow);
  if (flow.busy) busy_.remove(flow);
  else ++counts_.busy;
  flow.busy = true;
  busy_.append(flow);
}

void UdpRelay::close(UdpFlow& flow, CloseReason reason, ClosedBy by) {
  if (flow.dead) return;
  flow.dead = true;
  if (reason == CloseReason::kShed) shared_.countShed();
  if (flow.listed) byAge_[static_cast<std::size_t>(flow.kind)].remove(flow);
  if (flow.busy) {
    busy_.remove(flow);
    --counts_.busy;
  }
  if (flow.fresh) std::erase(fresh_[flow.record.server.v4() ? 0 : 1], &flow);
  if (flow.awaiting) awaiting_.erase(token(flow));
  if (flow.inUpstreams) {
    shared_.udpUpstreams.erase(flow.upstream);
    restingUdpPorts().ended(flow.upstreamEnd.port(), flow.record.server);
    if (flow.local) restingUdpPorts().ended(flow.record.client.port(), flow.record.server);
  }
  shared_.udpOwners.release(flow.key);
  for (const Side side : {kClient, kServer}) {
    if (flow.fd[side] < 0) continue;
    flow.record.lost[side] += droppedByKernel(flow.fd[side]);
    ::close(flow.fd[side]);
  }
  track_.closed(flow.record, reason, by, surroundings_.now);
  --counts_.flows;
  shared_.active.fetch_sub(1, std::memory_order_relaxed);
  auto node = flows_.extract(flow.key);
  dead_.push_back(std::move(node.mapped()));
}

bool UdpRelay::shedOldest() {
  UdpFlow* oldest = nullptr;
  for (const auto& list : byAge_) {
    UdpFlow* const first = list.first();
    if (first != nullptr && (oldest == nullptr || first->last < oldest->last)) oldest = first;
  }
  if (oldest == nullptr) return false;
  close(*oldest, CloseReason::kShed, ClosedBy::kGate);
  return true;
}

void UdpRelay::closeAll() {
  while (!flows_.empty()) close(*flows_.begin()->second, CloseReason::kGateClosed, ClosedBy::kGate);
}

bool UdpRelay::settle(const WitnessAnswer& answer) {
  const auto found = awaiting_.find(answer.token);
  if (found == awaiting_.end()) return false;
  UdpFlow& flow = *found->second;
  if (answer.program) track_.program(flow.record, *answer.program, surroundings_.now);
  release(flow);
  return true;
}

void UdpRelay::release(UdpFlow& flow) {
  awaiting_.erase(token(flow));
  flow.awaiting = false;
  watch(flow, kServer, EPOLLIN, EPOLL_CTL_MOD);
}

void UdpRelay::expire() {
  const std::int64_t now = surroundings_.now;
  while (!askedBy_.empty() && askedBy_.front().first <= now) {
    const std::uint64_t asked = askedBy_.front().second;
    askedBy_.pop_front();
    if (const auto found = awaiting_.find(asked); found != awaiting_.end()) release(*found->second);
  }
  while (busy_.first() != nullptr && busy_.first()->last + kBusy <= now) {
    UdpFlow& flow = *busy_.first();
    busy_.remove(flow);
    flow.busy = false;
    --counts_.busy;
  }
  for (std::size_t kind = 0; kind < kUdpKinds; ++kind) {
    for (UdpFlow* flow; (flow = byAge_[kind].first()) != nullptr && flow->last + patience(static_cast<UdpKind>(kind)) <= now;) {
      close(*flow, flow->failure, flow->failure == CloseReason::kRefused ? ClosedBy::kServer : ClosedBy::kNone);
    }
  }
  if (now - dropsLook_ < kSecond || counts_.flows == 0) return;
  dropsLook_ = now;
  for (std::size_t family = 0; family < 2; ++family) {
    const std::uint64_t dropped = listeners_[family] ? droppedByKernel(listeners_[family].get()) : 0;
    if (dropped != dropped_[family]) shared_.warn(kDatagramsLost);
    dropped_[family] = dropped;
  }
}

std::int64_t UdpRelay::due() const {
  std::int64_t until = -1;
  const auto sooner = [&](std::int64_t when) { until = until < 0 ? when : std::min(until, when); };
  if (!askedBy_.empty()) sooner(askedBy_.front().first);
  if (busy_.first() != nullptr) sooner(busy_.first()->last + kBusy + kSlack);
  for (std::size_t kind = 0; kind < kUdpKinds; ++kind) {
    if (const UdpFlow* first = byAge_[kind].first(); first != nullptr) sooner(first->last + patience(static_cast<UdpKind>(kind)) + kSlack);
  }
  return until;
}

}  // namespace sluice
