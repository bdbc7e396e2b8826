#include "net/own_addresses.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sluice {
namespace {

AddressBytes mapped(const void* ipv4) {
  AddressBytes bytes{};
  bytes[10] = bytes[11] = 0xff;
  std::memcpy(bytes.data() + 12, ipv4, 4);
  return bytes;
}

void collect(std::span<const std::byte> message, std::vector<AddressBytes>& into) {
  ifaddrmsg header;
  if (message.size() < sizeof header) return;
  std::memcpy(&header, message.data(), sizeof header);
  const void* local = nullptr;
  const void* address = nullptr;
  const std::size_t width = header.ifa_family == AF_INET ? 4 : 16;
  for (std::size_t at = NLMSG_ALIGN(sizeof header); at + sizeof(rtattr) <= message.size();) {
    rtattr attribute;
    std::memcpy(&attribute, message.data() + at, sizeof attribute);
    if (attribute.rta_len < sizeof attribute || attribute.rta_len > message.size() - at) break;
    if (attribute.rta_len >= RTA_LENGTH(width)) {
      if (attribute.rta_type == IFA_LOCAL) local = message.data() + at + RTA_LENGTH(0);
      if (attribute.rta_type == IFA_ADDRESS) address = message.data() + at + RTA_LENGTH(0);
    }
    at += RTA_ALIGN(attribute.rta_len);
  }
  // On a point-to-point link IFA_ADDRESS is the other end.
  const void* own = local != nullptr ? local : address;
  if (own == nullptr) return;
  if (header.ifa_family == AF_INET) {
    into.push_back(mapped(own));
  } else if (header.ifa_family == AF_INET6) {
    AddressBytes bytes;
    std::memcpy(bytes.data(), own, bytes.size());
    into.push_back(bytes);
  }
}

// A dump on a socket of its own, so that its answers never mix with announcements.
std::optional<std::vector<AddressBytes>> readAddresses() {
  const Descriptor socket{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)};
  if (!socket) return std::nullopt;
  struct {
    nlmsghdr header;
    ifaddrmsg body;
  } request{};
  request.header.nlmsg_len = NLMSG_LENGTH(sizeof(ifaddrmsg));
  request.header.nlmsg_type = RTM_GETADDR;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.body.ifa_family = AF_UNSPEC;
  if (::send(socket.get(), &request, request.header.nlmsg_len, 0) < 0) return std::nullopt;
  std::vector<AddressBytes> addresses;
  alignas(nlmsghdr) static thread_local char buffer[32768];
  for (;;) {
    const ssize_t got = ::recv(socket.get(), buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return std::nullopt;
    const auto more = takeAddresses(std::as_bytes(std::span(buffer, static_cast<std::size_t>(got))), addresses);
    if (!more) return std::nullopt;
    if (!*more) return addresses;
  }
}

}  // namespace

std::optional<bool> takeAddresses(std::span<const std::byte> reply, std::vector<AddressBytes>& into) {
  for (std::size_t at = 0; at + NLMSG_HDRLEN <= reply.size();) {
    nlmsghdr header;
    std::memcpy(&header, reply.data() + at, sizeof header);
    if (header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > reply.size() - at) break;
    if (header.nlmsg_type == NLMSG_DONE) return false;
    if (header.nlmsg_type == NLMSG_ERROR) return std::nullopt;
    if (header.nlmsg_type == RTM_NEWADDR) collect(reply.subspan(at + NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN), into);
    at += NLMSG_ALIGN(header.nlmsg_len);
  }
  return true;
}

AddressBytes addressBytes(const Endpoint& endpoint) {
  if (endpoint.v4()) return mapped(&reinterpret_cast<const sockaddr_in&>(endpoint.storage).sin_addr);
  AddressBytes bytes;
  std::memcpy(bytes.data(), &reinterpret_cast<const sockaddr_in6&>(endpoint.storage).sin6_addr, bytes.size());
  return bytes;
}

AddressList::AddressList(std::vector<AddressBytes> addresses) : addresses_(std::move(addresses)) {
  std::sort(addresses_.begin(), addresses_.end());
}

bool AddressList::contains(const Endpoint& endpoint) const {
  const AddressBytes bytes = addressBytes(endpoint);
  if (endpoint.v4() ? bytes[12] == 127 : std::memcmp(bytes.data(), &in6addr_loopback, bytes.size()) == 0) return true;
  return std::binary_search(addresses_.begin(), addresses_.end(), bytes);
}

bool AddressList::containsOnce(const Endpoint& endpoint) const {
  const auto [first, last] = std::equal_range(addresses_.begin(), addresses_.end(), addressBytes(endpoint));
  return last - first == 1;
}

OwnAddresses::OwnAddresses() : socket_(::socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE)) {
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
  if (socket_ && ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) socket_.reset();
  refresh();
}

void OwnAddresses::refresh() {
  // What was announced does not matter, only that something was; ENOBUFS (announcements lost) is such news too.
  char buffer[8192];
  for (int round = 0; socket_ && round < 256; ++round) {
    if (::recv(socket_.get(), buffer, sizeof buffer, 0) < 0 && errno != EINTR && errno != ENOBUFS) break;
  }
  auto addresses = readAddresses();
  if (!addresses) return;  // the old list is better than none
  const std::scoped_lock lock(mutex_);
  list_ = AddressList(std::move(*addresses));
  generation_.fetch_add(1, std::memory_order_release);
}

AddressList OwnAddresses::list() const {
  const std::scoped_lock lock(mutex_);
  return list_;
}

}  // namespace sluice
