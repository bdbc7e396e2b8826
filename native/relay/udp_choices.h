// What a person chose for UDP and may choose anew while flows run.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "relay/udp_flow.h"

namespace sluice {

struct UdpChoices {
  std::array<std::int64_t, kUdpKinds> idle{};                     // ns, by UdpKind
  std::vector<std::pair<std::uint16_t, std::uint16_t>> refuse{};  // ports, from and to

  [[nodiscard]] bool refuses(std::uint16_t port) const {
    for (const auto& [from, to] : refuse) {
      if (from <= port && port <= to) return true;
    }
    return false;
  }
};

// Written by the control loop; each relaying thread has a copy, which it looks after once a turn.
class SharedUdpChoices {
 public:
  void set(UdpChoices choices) {
    const std::scoped_lock lock(mutex_);
    choices_ = std::move(choices);
    generation_.fetch_add(1, std::memory_order_release);
  }
  [[nodiscard]] UdpChoices get() const {
    const std::scoped_lock lock(mutex_);
    return choices_;
  }
  [[nodiscard]] std::uint32_t generation() const { return generation_.load(std::memory_order_acquire); }

 private:
  mutable std::mutex mutex_;
  UdpChoices choices_;
  std::atomic<std::uint32_t> generation_{1};
};

}  // namespace sluice
