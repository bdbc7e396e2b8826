// The relay's own connections, by both their ends: one that comes back to the relay as a client would go round for ever.
//
// Equal ends alone prove nothing: towards the server the relay bears the client's address with a port of its own, so a client may by chance choose the same
// port for another connection to the same server (one in a thousand, with 30 at a time; on the relay's own machine the kernel deals ports out of one row to both, and chance comes in runs). So each connection knows how many of ours it
// has behind it, and only a chain that a chance cannot make is a loop.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "net/own_addresses.h"

namespace sluice {

class UpstreamSet {
 public:
  struct Key {
    AddressBytes from{}, to{};
    std::uint16_t fromPort = 0, toPort = 0;
    std::uint32_t scope = 0;  // equal link-local addresses on two links are two machines
    bool operator==(const Key&) const = default;
  };

  // `from` is the end that connects. Both ends and not one: the kernel lends one port to connections with different servers, so a
  // program's end alone may equal one of ours without any harm.
  static Key key(const Endpoint& from, const Endpoint& to) { return Key{addressBytes(from), addressBytes(to), from.port(), to.port(), to.linkLocal() ? to.scope() : 0}; }

  struct Hash {
    std::size_t operator()(const Key& key) const {
      static_assert(sizeof(Key) == 40);
      return std::hash<std::string_view>{}({reinterpret_cast<const char*>(&key), sizeof key});
    }
  };

  // The same for the same server, never 0; others may share it.
  static std::uint32_t serverTag(const Endpoint& server) {
    return static_cast<std::uint32_t>(Hash{}(Key{{}, addressBytes(server), 0, server.port(), 0})) | 1U;
  }

  // `depth`: how many of the relay's own connections lead to this one, itself included.
  void insert(const Key& key, std::uint8_t depth) {
    Shard& shard = shardOf(key);
    const std::scoped_lock lock(shard.mutex);
    shard.keys.insert_or_assign(key, depth);
  }
  void erase(const Key& key) {
    Shard& shard = shardOf(key);
    const std::scoped_lock lock(shard.mutex);
    shard.keys.erase(key);
  }
  // 0: none of ours has these ends.
  [[nodiscard]] std::uint8_t depth(const Key& key) {
    Shard& shard = shardOf(key);
    const std::scoped_lock lock(shard.mutex);
    const auto found = shard.keys.find(key);
    return found == shard.keys.end() ? std::uint8_t{0} : found->second;
  }

 private:
  struct alignas(64) Shard {
    std::mutex mutex;
    std::unordered_map<Key, std::uint8_t, Hash> keys;
  };
  Shard& shardOf(const Key& key) { return shards_[(key.fromPort ^ key.toPort) % shards_.size()]; }

  std::array<Shard, 32> shards_;
};

}  // namespace sluice
