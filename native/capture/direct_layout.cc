#include "capture/direct_layout.h"

#include <cstring>

#include "capture/pcapng.h"

namespace sluice {

namespace {

constexpr std::size_t kPage = DirectLayout::kPage;

// How long a padding block must be that fills `bytes`, less than a page; the smallest block has 12.
std::size_t paddingFor(std::size_t bytes) { return bytes == 0 || bytes >= 12 ? bytes : bytes + kPage; }

}  // namespace

std::byte* DirectLayout::stage(std::size_t pages) {
  std::byte* const at = pages_[used_].bytes.data();
  used_ += pages;
  pieces_[count_++] = {at, pages * kPage};
  return at;
}

std::span<std::byte> DirectLayout::fill(std::uint64_t size) {
  const std::size_t bytes = paddingFor((kPage - size % kPage) % kPage);
  std::byte* const at = pages_[kMostRuns * 4].bytes.data();
  if (bytes > 0) pcapng::writePadding(at, bytes);
  return {at, bytes};
}

std::span<iovec> DirectLayout::lay(std::span<const iovec> runs) {
  used_ = count_ = 0;
  for (const iovec& run : runs) {
    auto* from = static_cast<const std::byte*>(run.iov_base);
    std::size_t left = run.iov_len;
    // Its beginning, where the page before was written already.
    if (const std::size_t into = reinterpret_cast<std::uintptr_t>(from) % kPage; into != 0 && left > 2 * kPage) {
      const std::size_t padding = paddingFor(into), begun = kPage - into;
      std::byte* const at = stage((padding + begun) / kPage);
      pcapng::writePadding(at, padding);
      std::memcpy(at + padding, from, begun);
      from += begun;
      left -= begun;
    }
    if (reinterpret_cast<std::uintptr_t>(from) % kPage == 0 && left >= kPage) {
      const std::size_t whole = left / kPage * kPage;
      pieces_[count_++] = {const_cast<std::byte*>(from), whole};
      from += whole;
      left -= whole;
    }
    if (left > 0) {
      const std::size_t padding = paddingFor((kPage - left % kPage) % kPage);
      std::byte* const at = stage((left + padding) / kPage);
      std::memcpy(at, from, left);
      if (padding > 0) pcapng::writePadding(at + left, padding);
    }
  }
  return {pieces_.data(), count_};
}

}  // namespace sluice
