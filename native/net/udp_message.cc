#include "net/udp_message.h"

#include <time.h>
#include <linux/errqueue.h>
#include <netinet/udp.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

namespace sluice {
namespace {

constexpr int kOrigDestination4 = 20, kOrigDestination6 = 74, kUdpGro = 104;  // linux/in.h, linux/in6.h, linux/udp.h

// Calls `each` with level, type and data of every whole control message. Not through CMSG_NXTHDR: glibc's trusts the lengths of the kernel, and
// this is also fed by a fuzzer.
template <typename Each>
void eachControl(std::span<const std::byte> control, Each each) {
  constexpr std::size_t kHeader = CMSG_LEN(0);
  while (control.size() >= kHeader) {
    cmsghdr header;
    std::memcpy(&header, control.data(), sizeof header);
    if (header.cmsg_len < kHeader || header.cmsg_len > control.size()) return;
    each(header.cmsg_level, header.cmsg_type, control.subspan(kHeader, header.cmsg_len - kHeader));
    const std::size_t whole = CMSG_ALIGN(header.cmsg_len);
    if (whole >= control.size()) return;
    control = control.subspan(whole);
  }
}

template <typename Value>
std::optional<Value> read(std::span<const std::byte> data) {
  if (data.size() < sizeof(Value)) return std::nullopt;
  Value value;
  std::memcpy(&value, data.data(), sizeof value);
  return value;
}

std::optional<Endpoint> endpointOf(std::span<const std::byte> data) {
  const auto family = read<sa_family_t>(data);
  if (!family || (*family != AF_INET && *family != AF_INET6)) return std::nullopt;
  Endpoint endpoint;
  const std::size_t size = *family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  if (data.size() < size) return std::nullopt;
  std::memcpy(&endpoint.storage, data.data(), size);
  return endpoint;
}

}  // namespace

UdpControl parseUdpControl(std::span<const std::byte> control) {
  UdpControl result;
  eachControl(control, [&](int level, int type, std::span<const std::byte> data) {
    if ((level == SOL_IP && type == kOrigDestination4) || (level == SOL_IPV6 && type == kOrigDestination6)) {
      result.destination = endpointOf(data);
    } else if (level == SOL_IP && type == IP_TOS) {
      if (const auto tos = read<std::uint8_t>(data)) result.tos = *tos;
    } else if (level == SOL_IPV6 && type == IPV6_TCLASS) {
      if (const auto tos = read<int>(data)) result.tos = static_cast<std::uint8_t>(*tos);
    } else if (level == SOL_UDP && type == kUdpGro) {
      if (const auto segment = read<int>(data); segment && *segment > 0 && *segment <= 65535) result.segment = static_cast<std::uint16_t>(*segment);
    }
  });
  return result;
}

bool isQuic(std::span<const std::byte> bytes) {
  if (bytes.size() < 7 || (static_cast<std::uint8_t>(bytes[0]) & 0xC0U) != 0xC0) return false;
  std::uint32_t version = 0;
  for (std::size_t i = 1; i <= 4; ++i) version = version << 8U | static_cast<std::uint8_t>(bytes[i]);
  return version == 1 || version == 0x6b3343cf || version >> 8U == 0xff0000;
}

std::optional<UdpError> parseUdpError(std::span<const std::byte> control) {
  std::optional<UdpError> result;
  eachControl(control, [&](int level, int type, std::span<const std::byte> data) {
    if (!((level == SOL_IP && type == IP_RECVERR) || (level == SOL_IPV6 && type == IPV6_RECVERR))) return;
    const auto error = read<sock_extended_err>(data);
    if (!error || (error->ee_origin != SO_EE_ORIGIN_ICMP && error->ee_origin != SO_EE_ORIGIN_ICMP6)) return;
    UdpError found;
    found.family = error->ee_origin == SO_EE_ORIGIN_ICMP ? AF_INET : AF_INET6;
    found.type = error->ee_type;
    found.code = error->ee_code;
    found.info = error->ee_info;
    if (const auto offender = endpointOf(data.subspan(sizeof(sock_extended_err))); offender && offender->family() == found.family) found.offender = offender;
    result = found;
  });
  return result;
}

UdpInbox::UdpInbox() {
  void* const memory = mmap(nullptr, kMost * kStride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;
  memory_ = static_cast<std::byte*>(memory);
  for (std::size_t index = 0; index < kMost; ++index) {
    pieces_[index] = {slot(index), kSlot};
    msghdr& header = headers_[index].msg_hdr;
    header.msg_iov = &pieces_[index];
    header.msg_iovlen = 1;
    header.msg_name = &names_[index].storage;
    header.msg_control = controls_[index].bytes;
  }
}

UdpInbox::~UdpInbox() {
  if (memory_ != nullptr) munmap(memory_, kMost * kStride);
}

int UdpInbox::receive(int fd) {
  for (std::size_t index = 0; index < used_; ++index) {
    headers_[index].msg_hdr.msg_namelen = sizeof names_[index].storage;
    headers_[index].msg_hdr.msg_controllen = kControl;
  }
  used_ = 0;
  for (;;) {
    const int count = ::recvmmsg(fd, headers_.data(), kMost, MSG_DONTWAIT, nullptr);
    if (count < 0 && errno == EINTR) continue;
    if (count > 0) used_ = static_cast<std::size_t>(count);
    return count;
  }
}

UdpControl UdpInbox::control(std::size_t index) const {
  return parseUdpControl({controls_[index].bytes, headers_[index].msg_hdr.msg_controllen});
}

}  // namespace sluice
