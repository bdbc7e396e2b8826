#include "capture/block_pool.h"

#include <sys/mman.h>

namespace sluice {

namespace {

// In large pages, blocks are written to the disk past the page cache in few, long pieces instead of one for each 4 KiB.
constexpr std::size_t kHuge = 2U << 20U;

}  // namespace

BlockPool::BlockPool(std::size_t blocks, std::size_t blockSize) : blockSize_(blockSize), total_(blocks) {
  mapped_ = blocks * blockSize + kHuge;
  void* const memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;
  mapping_ = memory;
  memory_ = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory) + kHuge - 1) & ~(kHuge - 1));
  madvise(memory_, blocks * blockSize, MADV_HUGEPAGE);  // a wish: without, all is as it was, and slower
  blocks_ = std::make_unique<Block[]>(blocks);
  for (std::size_t index = blocks; index-- > 0;) {
    blocks_[index].data = memory_ + index * blockSize;
    give(&blocks_[index]);
  }
}

BlockPool::~BlockPool() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
}

Block* BlockPool::take(std::size_t leave) {
  // The count is claimed first; a claimed block is certain to be on the stack, since give() pushes before it counts.
  std::size_t free = free_.load(std::memory_order_acquire);
  do {
    if (free <= leave) return nullptr;
  } while (!free_.compare_exchange_weak(free, free - 1, std::memory_order_acq_rel, std::memory_order_acquire));

  std::uint64_t top = top_.load(std::memory_order_acquire);
  Block* block = nullptr;
  std::uint64_t next = 0;
  do {
    block = &blocks_[static_cast<std::uint32_t>(top) - 1];
    next = ((top >> 32U) + 1) << 32U | block->below.load(std::memory_order_relaxed);
  } while (!top_.compare_exchange_weak(top, next, std::memory_order_acq_rel, std::memory_order_acquire));

  block->committed.store(0, std::memory_order_relaxed);
  block->next.store(nullptr, std::memory_order_relaxed);
  block->written = 0;
  block->factsOnly = false;
  return block;
}

void BlockPool::give(Block* block) {
  const auto index = static_cast<std::uint32_t>(block - blocks_.get()) + 1;
  std::uint64_t top = top_.load(std::memory_order_relaxed);
  std::uint64_t next = 0;
  do {
    block->below.store(static_cast<std::uint32_t>(top), std::memory_order_relaxed);
    next = ((top >> 32U) + 1) << 32U | index;
  } while (!top_.compare_exchange_weak(top, next, std::memory_order_acq_rel, std::memory_order_relaxed));
  free_.fetch_add(1, std::memory_order_release);
}

}  // namespace sluice
