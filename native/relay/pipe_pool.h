// Pipes of one relaying thread, through which the bytes of a busy flow go from socket to socket without being copied (splice(2)). A direction
// holds one only while bytes are in it; who finds none left copies, which is slower and nothing else.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "net/descriptor_room.h"

namespace sluice {

struct Pipe {
  Descriptor out, in;  // out: read from; in: written to
  std::uint32_t size = 0;
};

class PipePool {
 public:
  // All threads together stay below what the kernel lends one user without asking (pipe-user-pages-soft, 64 MiB), beyond which a pipe holds two pages.
  static constexpr std::size_t kMostOfAll = 48;
  static constexpr int kSize = 1 << 20;
  static constexpr std::uint32_t kLeast = 256U << 10U;  // a smaller one moves less a call than a copy does

  // An empty pipe, or null: `most` are lent already, or the kernel gives none of use.
  std::unique_ptr<Pipe> take(std::size_t most) {
    if (spare_.empty()) {
      if (made_ >= most) return nullptr;
      auto fresh = make();
      if (fresh) ++made_;
      return fresh;
    }
    auto pipe = std::move(spare_.back());
    spare_.pop_back();
    return pipe;
  }
  void give(std::unique_ptr<Pipe> empty) { spare_.push_back(std::move(empty)); }
  void discard(std::unique_ptr<Pipe> full) {
    full.reset();
    --made_;
  }

  // One of about that size; null where the kernel gives a smaller one than kLeast.
  static std::unique_ptr<Pipe> make(int wanted = kSize) {
    int ends[2];
    if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) return nullptr;
    auto pipe = std::make_unique<Pipe>();
    pipe->out.reset(ends[0]);
    pipe->in.reset(ends[1]);
    if (!forFlows(ends[0]) || !forFlows(ends[1])) return nullptr;
    ::fcntl(ends[0], F_SETPIPE_SZ, wanted);
    const int size = ::fcntl(ends[0], F_GETPIPE_SZ);
    if (size < static_cast<int>(kLeast)) return nullptr;
    pipe->size = static_cast<std::uint32_t>(size);
    return pipe;
  }

 private:
  std::vector<std::unique_ptr<Pipe>> spare_;
  std::size_t made_ = 0;
};

}  // namespace sluice
