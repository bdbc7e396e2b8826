// Which thread has the flow of a client and a server. The kernel chooses a listener by the client's end alone, so the answer is nearly always
// the thread that asks; should it ever choose anew, the datagram goes to the flow and no second flow is made.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>
#include <unordered_map>

#include "relay/upstream_set.h"

namespace sluice {

class UdpOwners {
 public:
  // Who has it: `thread` itself where nobody had.
  std::size_t claim(const UpstreamSet::Key& key, std::size_t thread) {
    Shard& shard = shardOf(key);
    const std::scoped_lock lock(shard.mutex);
    return shard.owners.try_emplace(key, thread).first->second;
  }
  [[nodiscard]] bool known(const UpstreamSet::Key& key) {
    Shard& shard = shardOf(key);
    const std::scoped_lock lock(shard.mutex);
    return shard.owners.contains(key);
  }
  void release(const UpstreamSet::Key& key) {
    Shard& shard = shardOf(key);
    const std::scoped_lock lock(shard.mutex);
    shard.owners.erase(key);
  }

 private:
  struct alignas(64) Shard {
    std::mutex mutex;
    std::unordered_map<UpstreamSet::Key, std::size_t, UpstreamSet::Hash> owners;
  };
  Shard& shardOf(const UpstreamSet::Key& key) { return shards_[key.fromPort % shards_.size()]; }

  std::array<Shard, 32> shards_;
};

}  // namespace sluice
