// Connections whose server has answered and whose client may go on: between the usher, who reached the server, and the thread that accepts the client.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "capture/recorder.h"
#include "net/endpoint.h"
#include "relay/upstream_set.h"

namespace sluice {

struct Held {
  std::uint64_t id = 0;                // of the flow
  int upstream = -1;                   // connected; whoever takes it owns it
  Endpoint upstreamEnd;
  UpstreamSet::Key key;                // in the set of upstreams already
  std::int64_t asked = 0, connected = 0;  // when the SYN came and when the server had answered
  std::optional<Program> program;
};

class HeldTable {
 public:
  void put(const Endpoint& client, const Endpoint& server, Held held) {
    const std::scoped_lock lock(mutex_);
    entries_.insert_or_assign(UpstreamSet::key(client, server), std::move(held));
    waiting_.store(entries_.size(), std::memory_order_relaxed);
  }
  std::optional<Held> take(const Endpoint& client, const Endpoint& server) {
    if (waiting() == 0) return std::nullopt;
    const std::scoped_lock lock(mutex_);
    const auto found = entries_.find(UpstreamSet::key(client, server));
    if (found == entries_.end()) return std::nullopt;
    std::optional<Held> held(std::move(found->second));
    entries_.erase(found);
    waiting_.store(entries_.size(), std::memory_order_relaxed);
    return held;
  }
  [[nodiscard]] bool has(const Endpoint& client, const Endpoint& server) {
    if (waiting() == 0) return false;
    const std::scoped_lock lock(mutex_);
    return entries_.contains(UpstreamSet::key(client, server));
  }
  [[nodiscard]] std::size_t waiting() const { return waiting_.load(std::memory_order_relaxed); }

 private:
  std::mutex mutex_;
  std::unordered_map<UpstreamSet::Key, Held, UpstreamSet::Hash> entries_;
  std::atomic<std::size_t> waiting_{0};
};

}  // namespace sluice
