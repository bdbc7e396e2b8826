// Buffers of one relaying thread. A direction holds one only while it has bytes the other side did not take, so an idle flow holds none.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace sluice {

struct Buffer {
  static constexpr std::size_t kSize = 64U << 10U;
  std::array<std::byte, kSize> bytes;
};

class BufferPool {
 public:
  std::unique_ptr<Buffer> take() {
    if (spare_.empty()) return std::unique_ptr<Buffer>(new Buffer);  // not make_unique: that would zero it
    auto buffer = std::move(spare_.back());
    spare_.pop_back();
    return buffer;
  }
  void give(std::unique_ptr<Buffer> buffer) {
    if (spare_.size() < kSpare) spare_.push_back(std::move(buffer));
  }

 private:
  static constexpr std::size_t kSpare = 32;  // what a burst leaves behind: 2 MiB a thread
  std::vector<std::unique_ptr<Buffer>> spare_;
};

}  // namespace sluice
