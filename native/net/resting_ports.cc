#include "net/resting_ports.h"

#include <ctime>

#include "relay/upstream_set.h"

namespace sluice {
namespace {

std::uint32_t seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<std::uint32_t>(now.tv_sec);
}

}  // namespace

void RestingPorts::ended(std::uint16_t port, const Endpoint& server) {
  last_[port].store(std::uint64_t{UpstreamSet::serverTag(server)} << 32U | seconds(), std::memory_order_relaxed);
}

bool RestingPorts::rests(std::uint16_t port, const Endpoint& server) const {
  const std::uint64_t last = last_[port].load(std::memory_order_relaxed);
  return last >> 32U == UpstreamSet::serverTag(server) && seconds() - static_cast<std::uint32_t>(last) < kRest;
}

RestingPorts& restingUdpPorts() {
  static RestingPorts ports;
  return ports;
}

}  // namespace sluice
