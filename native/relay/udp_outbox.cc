#include "relay/udp_outbox.h"

#include <netinet/in.h>
#include <netinet/udp.h>

#include <cstring>

namespace sluice {
namespace {

constexpr int kSegment = 103;                    // UDP_SEGMENT, linux/udp.h
constexpr std::size_t kMostSegments = 64;        // UDP_MAX_SEGMENTS of every kernel that has it

template <typename Value>
std::size_t putControl(std::byte* at, int level, int type, Value value) {
  cmsghdr header{};
  header.cmsg_len = CMSG_LEN(sizeof value);
  header.cmsg_level = level;
  header.cmsg_type = type;
  std::memcpy(at, &header, sizeof header);
  std::memcpy(at + CMSG_LEN(0), &value, sizeof value);
  return CMSG_SPACE(sizeof value);
}

}  // namespace

void UdpOutbox::add(const UdpRun& run, int family) {
  msghdr& header = headers_[runs_].msg_hdr;
  header.msg_iov = &vectors_[pieces_];
  header.msg_iovlen = run.count;
  for (const UdpPiece& piece : std::span(run.pieces, run.count)) vectors_[pieces_++] = {const_cast<std::byte*>(piece.bytes.data()), piece.bytes.size()};
  std::byte* const control = controls_[runs_].bytes;
  std::size_t size = 0;
  if (run.segment != 0) size += putControl(control, SOL_UDP, kSegment, run.segment);
  const std::uint8_t tos = run.pieces[0].tos;
  if (tos != 0) size += family == AF_INET ? putControl(control + size, SOL_IP, IP_TOS, int{tos}) : putControl(control + size, SOL_IPV6, IPV6_TCLASS, int{tos});
  header.msg_control = size == 0 ? nullptr : control;
  header.msg_controllen = size;
  run_[runs_++] = run;
}

int UdpOutbox::send(int fd, std::size_t first) {
  return ::sendmmsg(fd, headers_.data() + first, static_cast<unsigned>(runs_ - first), MSG_DONTWAIT | MSG_NOSIGNAL);
}

UdpRun longestRun(std::span<const UdpPiece> pieces, std::size_t largest, bool v4) {
  const UdpPiece& first = pieces[0];
  UdpRun run{&first, 1, first.segment};
  if (first.segment != 0) return run;  // the kernel made a run of it already
  const std::size_t size = first.bytes.size();
  if (size == 0 || size > largest) return run;
  std::size_t total = size;
  const std::size_t most = v4 ? 65'507 : 65'487;  // of one packet of IP before it is cut
  while (run.count < pieces.size() && run.count < kMostSegments) {
    const UdpPiece& next = pieces[run.count];
    if (next.segment != 0 || next.bytes.empty() || next.bytes.size() > size || next.tos != first.tos || total + next.bytes.size() > most) break;
    total += next.bytes.size();
    ++run.count;
    if (next.bytes.size() < size) break;  // a shorter one can only be the last
  }
  if (run.count > 1) run.segment = static_cast<std::uint16_t>(size);
  return run;
}

}  // namespace sluice
