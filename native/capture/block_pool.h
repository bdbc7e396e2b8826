// The bounded memory between the relaying threads and the disk: blocks of one size, taken and given back without a lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace sluice {

// A piece of one track's stream. The owner of the track fills it and publishes how far; the writer follows behind. Blocks of a track
// form a chain: once `next` is set, `committed` is final and the writer may give the block back when it has written that much.
struct Block {
  std::byte* data = nullptr;
  std::atomic<std::size_t> committed{0};   // owner stores, writer loads; always between two pcapng blocks
  std::atomic<std::uint32_t> segment{0};   // which file its bytes belong to; owner stores, final once anything is committed
  std::atomic<Block*> next{nullptr};       // owner stores once, writer loads
  std::size_t written = 0;                 // writer's alone
  bool factsOnly = false;                  // owner's alone: came out of the reserve, so no payload goes in
  std::atomic<std::uint32_t> below{0};     // of the free stack
};

class BlockPool {
 public:
  // Address space for all is set aside at once; pages are touched only as blocks are used, and the stack hands out the warmest
  // first, so a disk that keeps up costs a large page or two (2 MiB each) where there are such, else a few hundred kilobytes. `good()` is false when there was no address space.
  BlockPool(std::size_t blocks, std::size_t blockSize);
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  [[nodiscard]] bool good() const { return memory_ != nullptr; }
  [[nodiscard]] std::size_t blockSize() const { return blockSize_; }
  [[nodiscard]] std::size_t total() const { return total_; }
  [[nodiscard]] std::size_t free() const { return free_.load(std::memory_order_relaxed); }

  // A fresh block, or null when that would leave fewer than `leave` behind. Any thread.
  Block* take(std::size_t leave);
  void give(Block* block);  // any thread

 private:
  std::size_t blockSize_, total_;
  void* mapping_ = nullptr;
  std::size_t mapped_ = 0;
  std::byte* memory_ = nullptr;            // in it, at a large page
  std::unique_ptr<Block[]> blocks_;
  std::atomic<std::uint64_t> top_{0};      // tag in the upper half against ABA, index + 1 in the lower, 0: empty
  std::atomic<std::size_t> free_{0};
};

}  // namespace sluice
