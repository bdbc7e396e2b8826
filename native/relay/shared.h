// What the relaying threads and the control loop have in common.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "net/descriptor.h"
#include "net/own_addresses.h"
#include "relay/hand_over.h"
#include "relay/held.h"
#include "relay/udp_choices.h"
#include "relay/udp_flow.h"
#include "relay/udp_owners.h"
#include "relay/upstream_set.h"

namespace sluice {

enum Warning : std::uint32_t { kFlowsShed = 1, kLoopRefused = 2, kWitnessLost = 4, kDatagramsLost = 8, kHandOverUnsure = 16 };
inline constexpr std::size_t kWarnings = 5;

struct RelayOptions {
  std::uint32_t uplinkMark = 0;
  unsigned maxFlows = 0;
  std::uint16_t port = 0;  // the listeners'
  std::size_t threads = 1;
  std::uint16_t keptPort = 0;  // of those whose flows keep their clients' ports; 0: none does
  bool redirected = false; // rules translate destinations instead of handing connections over: conntrack knows where they were going
};

class Usher;

struct RelayShared {
  RelayOptions options;
  OwnAddresses own;
  UpstreamSet upstreams;
  HandOvers handOvers;
  HeldTable held;
  Usher* usher = nullptr;                  // where SYNs are held; set before any thread starts
  SharedUdpChoices udpChoices;
  UpstreamSet udpUpstreams;
  UdpOwners udpOwners;
  std::atomic<std::uint64_t> nextId{1};
  std::atomic<std::uint32_t> active{0};    // flows of all threads
  std::atomic<int> witness{-1};            // channel to the witness; -1: nobody to ask
  std::atomic<std::uint32_t> warnings{0};  // Warning bits, taken by the control loop; it leaves one set for a while, so that a flood does not wake it each time
  std::atomic<std::uint64_t> shed{0};      // flows for which there was no room, or that made room
  std::atomic<bool> changed{false};        // a counter did, since the control loop last looked
  Descriptor wake{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};  // of the control loop

  void wakeControl() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake.get(), &one, sizeof one);  // full means awake already
  }
  void warn(Warning warning) {
    if ((warnings.fetch_or(warning, std::memory_order_relaxed) & warning) == 0) wakeControl();
  }
  void countShed() {
    shed.fetch_add(1, std::memory_order_relaxed);
    warn(kFlowsShed);
  }
};

}  // namespace sluice
