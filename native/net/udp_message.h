// Receiving many datagrams with one system call, and what the kernel says about each. Control messages are parsed apart, so that this can be tried alone.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "net/endpoint.h"

namespace sluice {

struct UdpControl {
  std::optional<Endpoint> destination;  // original destination (listeners only): ip(7) IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR
  std::uint8_t tos = 0;                 // IP_TOS, IPV6_TCLASS
  std::uint16_t segment = 0;            // UDP_GRO: what was received is several datagrams of this size, the last may be shorter; 0: one datagram
};
UdpControl parseUdpControl(std::span<const std::byte> control);

// Whether a datagram begins with QUIC's long header and a version there is (RFC 9000, 17.2; RFC 9369; drafts of 2019 to 2021).
bool isQuic(std::span<const std::byte> bytes);

struct UdpError {
  int family = AF_INET;                 // of the ICMP message
  std::uint8_t type = 0, code = 0;
  std::uint32_t info = 0;               // the next hop's MTU where it is about that
  std::optional<Endpoint> offender;     // who sent it
};
// The extended error among the control messages of an error queue (ip(7), IP_RECVERR); none if there is none, or it was no ICMP message.
std::optional<UdpError> parseUdpError(std::span<const std::byte> control);

// A batch of datagrams in memory of its own, used again for the next.
class UdpInbox {
 public:
  static constexpr std::size_t kMost = 64;
  static constexpr std::size_t kSlot = 64U << 10U;  // the largest datagram, or run of datagrams, there is

  UdpInbox();
  ~UdpInbox();
  UdpInbox(const UdpInbox&) = delete;
  UdpInbox& operator=(const UdpInbox&) = delete;
  [[nodiscard]] bool good() const { return memory_ != nullptr; }

  // As many as wait, up to kMost, without waiting: how many, or -1 and errno.
  int receive(int fd);
  [[nodiscard]] std::span<std::byte> bytes(std::size_t index) const { return {slot(index), headers_[index].msg_len}; }
  [[nodiscard]] const Endpoint& from(std::size_t index) const { return names_[index]; }
  [[nodiscard]] UdpControl control(std::size_t index) const;

 private:
  static constexpr std::size_t kControl = 192;
  // Not a power of two, or the beginnings of all slots would fight for one set of the processor's cache.
  static constexpr std::size_t kStride = kSlot + 4096 + 192;
  [[nodiscard]] std::byte* slot(std::size_t index) const { return memory_ + index * kStride; }

  std::byte* memory_ = nullptr;
  std::size_t used_ = kMost;                                   // headers the kernel wrote to since they were last prepared
  std::array<mmsghdr, kMost> headers_{};
  std::array<iovec, kMost> pieces_{};
  std::array<Endpoint, kMost> names_{};
  struct alignas(cmsghdr) Control { std::byte bytes[kControl]; };
  std::array<Control, kMost> controls_{};
};

}  // namespace sluice
