// The relay's own connections, by both their ends: one that comes back to the relay as a client would go round for ever.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string_view>
#include <unordered_set>

#include "net/own_addresses.h"

namespace sluice {

class UpstreamSet {
 public:
  struct Key {
    AddressBytes from{}, to{};
    std::uint16_t fromPort = 0, toPort = 0;
    bool operator==(const Key&) const = default;
  };

  // `from` is the end that connects. Both ends and not one: the kernel lends one port to connections with different servers, so a
  // program's end alone may equal one of ours without any harm.
  static Key key(const Endpoint& from, const Endpoint& to) { return Key{addressBytes(from), addressBytes(to), from.port(), to.port()}; }

  void insert(const Key& key) {
    Shard& shard = shardOf(key);
    const std::scoped_lock lock(shard.mutex);
    shard.keys.insert(key);
  }
  void erase(const Key& key) {
    Shard& shard = shardOf(key);
    const std::scoped_lock lock(shard.mutex);
    shard.keys.erase(key);
  }
  [[nodiscard]] bool contains(const Key& key) {
    Shard& shard = shardOf(key);
    const std::scoped_lock lock(shard.mutex);
    return shard.keys.contains(key);
  }

 private:
  struct Hash {
    std::size_t operator()(const Key& key) const {
      static_assert(sizeof(Key) == 36);
      return std::hash<std::string_view>{}({reinterpret_cast<const char*>(&key), sizeof key});
    }
  };
  struct alignas(64) Shard {
    std::mutex mutex;
    std::unordered_set<Key, Hash> keys;
  };
  Shard& shardOf(const Key& key) { return shards_[(key.fromPort ^ key.toPort) % shards_.size()]; }

  std::array<Shard, 32> shards_;
};

}  // namespace sluice
