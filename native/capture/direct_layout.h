// How runs of pcapng blocks lie so that they can go to the disk past the page cache (O_DIRECT): such a write wants the place in the file, every piece
// of memory and its length to be whole pages. Most of a run is written from where it lies; the ends that fill no page are copied, and what is
// missing to one is filled with a padding block, of a type that pcapng leaves to everybody and every reader skips.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace sluice {

class DirectLayout {
 public:
  static constexpr std::size_t kPage = 4096;
  static constexpr int kMostRuns = 20;
  static constexpr std::size_t kMostWaste = 4 * kPage;  // of a run; as much again before the first

  // Bytes that bring a file of that size to a whole page: nothing, or a padding block.
  [[nodiscard]] std::span<std::byte> fill(std::uint64_t size);
  // What to write behind that: whole pages, of memory at whole pages. At most kMostRuns runs, each of whole pcapng blocks; they and this stay as they are until it is written.
  [[nodiscard]] std::span<iovec> lay(std::span<const iovec> runs);

 private:
  struct alignas(kPage) Page { std::array<std::byte, kPage> bytes; };
  std::byte* stage(std::size_t pages);

  std::unique_ptr<Page[]> pages_ = std::unique_ptr<Page[]>(new Page[kMostRuns * 4 + 2]);
  std::size_t used_ = 0;
  std::array<iovec, kMostRuns * 3> pieces_{};
  std::size_t count_ = 0;
};

}  // namespace sluice
