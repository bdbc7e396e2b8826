// What is about to leave through one socket: datagrams, and runs of equal ones that the kernel may carry as one (UDP_SEGMENT, udp(7)).
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sluice {

struct UdpPiece {
  std::span<const std::byte> bytes;
  std::uint16_t segment = 0;   // 0: one datagram; else several of that size, the last may be shorter
  std::uint8_t tos = 0;
};

struct UdpRun {
  const UdpPiece* pieces;
  std::size_t count;           // of pieces
  std::uint16_t segment;       // 0: one datagram
};

// Calls `each` with every datagram of a run.
template <typename Each>
void eachDatagram(const UdpRun& run, Each each) {
  for (const UdpPiece& piece : std::span(run.pieces, run.count)) {
    if (piece.segment == 0) {
      each(piece.bytes);
      continue;
    }
    for (std::size_t at = 0; at < piece.bytes.size(); at += piece.segment) each(piece.bytes.subspan(at, std::min<std::size_t>(piece.segment, piece.bytes.size() - at)));
  }
}

class UdpOutbox {
 public:
  static constexpr std::size_t kMost = 64;

  void clear() { runs_ = pieces_ = 0; }
  [[nodiscard]] bool full(std::size_t pieces) const { return runs_ == kMost || pieces_ + pieces > kMost; }
  void add(const UdpRun& run, int family);
  [[nodiscard]] std::size_t size() const { return runs_; }
  [[nodiscard]] const UdpRun& run(std::size_t index) const { return run_[index]; }
  // sendmmsg(2) from `first` on: how many left, or -1 and errno of the first.
  int send(int fd, std::size_t first);

 private:
  struct alignas(cmsghdr) Control { std::byte bytes[64]; };
  std::array<mmsghdr, kMost> headers_{};
  std::array<iovec, kMost> vectors_{};
  std::array<Control, kMost> controls_{};
  std::array<UdpRun, kMost> run_{};
  std::size_t runs_ = 0, pieces_ = 0;
};

// How many of the pieces, from the first on, may leave as one run whose datagrams are at most `largest` bytes.
UdpRun longestRun(std::span<const UdpPiece> pieces, std::size_t largest, bool v4);

}  // namespace sluice
