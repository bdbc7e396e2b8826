#include "net/forget_marks.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "net/descriptor.h"

namespace sluice {
namespace {

constexpr std::size_t kHead = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(nfgenmsg));

constexpr std::uint16_t typeOf(unsigned message) { return static_cast<std::uint16_t>(NFNL_SUBSYS_CTNETLINK << 8U | message); }

template <typename Value>
void put(std::vector<std::byte>& into, const Value& value) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  into.insert(into.end(), bytes, bytes + sizeof value);
}
void begin(std::vector<std::byte>& into, std::uint16_t type, std::uint16_t flags, std::uint8_t family) {
  put(into, nlmsghdr{0, type, static_cast<std::uint16_t>(NLM_F_REQUEST | flags), 0, 0});
  put(into, nfgenmsg{family, NFNETLINK_V0, 0});
}
void putNumber(std::vector<std::byte>& into, std::uint16_t type, std::uint32_t value) {
  put(into, nlattr{NLA_HDRLEN + sizeof value, type});
  put(into, htonl(value));
}
void end(std::vector<std::byte>& into, std::size_t start) {
  const auto length = static_cast<std::uint32_t>(into.size() - start);
  std::memcpy(into.data() + start, &length, sizeof length);
}

void takeMark(std::span<const std::byte> message, std::uint32_t bits, std::vector<std::byte>& orders) {
  if (message.size() < kHead) return;
  nfgenmsg head;
  std::memcpy(&head, message.data() + NLMSG_HDRLEN, sizeof head);
  std::span<const std::byte> tuple, zone;
  std::uint32_t mark = 0;
  for (std::size_t at = kHead; at + NLA_HDRLEN <= message.size();) {
    nlattr attribute;
    std::memcpy(&attribute, message.data() + at, sizeof attribute);
    if (attribute.nla_len < NLA_HDRLEN || attribute.nla_len > message.size() - at) break;
    const auto whole = message.subspan(at, attribute.nla_len);
    switch (attribute.nla_type & NLA_TYPE_MASK) {
      case CTA_TUPLE_ORIG: tuple = whole; break;
      case CTA_ZONE: zone = whole; break;
      case CTA_MARK:
        if (whole.size() >= NLA_HDRLEN + sizeof mark) {
          std::memcpy(&mark, whole.data() + NLA_HDRLEN, sizeof mark);
          mark = ntohl(mark);
        }
        break;
      default: break;
    }
    at += NLA_ALIGN(attribute.nla_len);
  }
  if (tuple.empty() || (mark & bits) == 0) return;
  const std::size_t start = orders.size();
  begin(orders, typeOf(IPCTNL_MSG_CT_NEW), 0, head.nfgen_family);  // without NLM_F_CREATE: what has gone meanwhile stays gone
  for (const auto& part : {tuple, zone}) {
    orders.insert(orders.end(), part.begin(), part.end());
    orders.resize(start + NLMSG_ALIGN(orders.size() - start));
  }
  putNumber(orders, CTA_MARK, 0);
  putNumber(orders, CTA_MARK_MASK, bits);
  end(orders, start);
}

Descriptor conntrackSocket() { return Descriptor{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER)}; }

// Of one bit: the kernel can be asked for those whose mark is such and such, not for those that have any of several bits.
bool forgetBit(std::uint32_t bit) {
  const Descriptor asking = conntrackSocket(), telling = conntrackSocket();
  if (!asking || !telling) return false;
  std::vector<std::byte> request, orders;
  begin(request, typeOf(IPCTNL_MSG_CT_GET), NLM_F_DUMP, AF_UNSPEC);
  putNumber(request, CTA_MARK, bit);
  putNumber(request, CTA_MARK_MASK, bit);
  end(request, 0);
  if (::send(asking.get(), request.data(), request.size(), 0) < 0) return false;
  alignas(nlmsghdr) char buffer[65536];
  for (bool more = true; more;) {
    const ssize_t got = ::recv(asking.get(), buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    nlmsghdr first;
    if (static_cast<std::size_t>(got) < NLMSG_HDRLEN + sizeof(int)) return errno = EPROTO, false;
    std::memcpy(&first, buffer, sizeof first);
    if (first.nlmsg_type == NLMSG_ERROR) {
      int error = 0;
      std::memcpy(&error, buffer + NLMSG_HDRLEN, sizeof error);
      return errno = -error, false;
    }
    orders.clear();
    more = takeMarks(std::as_bytes(std::span(buffer, static_cast<std::size_t>(got))), bit, orders);
    // The kernel carries each out before send() returns. What it answers is only that a flow has gone, and is not read.
    if (!orders.empty() && ::send(telling.get(), orders.data(), orders.size(), 0) < 0) return false;
  }
  return true;
}

}  // namespace

bool takeMarks(std::span<const std::byte> reply, std::uint32_t bits, std::vector<std::byte>& orders) {
  for (std::size_t at = 0; at + NLMSG_HDRLEN <= reply.size();) {
    nlmsghdr header;
    std::memcpy(&header, reply.data() + at, sizeof header);
    if (header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > reply.size() - at) break;
    if (header.nlmsg_type == NLMSG_DONE || header.nlmsg_type == NLMSG_ERROR) return false;
    if (header.nlmsg_type == typeOf(IPCTNL_MSG_CT_NEW)) takeMark(reply.subspan(at, header.nlmsg_len), bits, orders);
    at += NLMSG_ALIGN(header.nlmsg_len);
  }
  return true;
}

bool forgetMarks(std::uint32_t bits) {
  for (; bits != 0; bits &= bits - 1) {
    if (!forgetBit(bits & (~bits + 1U))) return false;
  }
  return true;
}

}  // namespace sluice
