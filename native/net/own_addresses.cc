#include "net/own_addresses.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

namespace sluice {
namespace {

AddressBytes mapped(const void* ipv4) {
  AddressBytes bytes{};
  bytes[10] = bytes[11] = 0xff;
  std::memcpy(bytes.data() + 12, ipv4, 4);
  return bytes;
}

void collect(const nlmsghdr* message, std::vector<AddressBytes>& into) {
  if (message->nlmsg_len < NLMSG_LENGTH(sizeof(ifaddrmsg))) return;
  const auto* header = static_cast<const ifaddrmsg*>(NLMSG_DATA(message));
  auto left = static_cast<int>(IFA_PAYLOAD(message));
  const void* local = nullptr;
  const void* address = nullptr;
  const std::size_t width = header->ifa_family == AF_INET ? 4 : 16;
  for (const rtattr* attribute = IFA_RTA(header); RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    if (RTA_PAYLOAD(attribute) < width) continue;
    if (attribute->rta_type == IFA_LOCAL) local = RTA_DATA(attribute);
    if (attribute->rta_type == IFA_ADDRESS) address = RTA_DATA(attribute);
  }
  // On a point-to-point link IFA_ADDRESS is the other end.
  const void* own = local != nullptr ? local : address;
  if (own == nullptr) return;
  if (header->ifa_family == AF_INET) {
    into.push_back(mapped(own));
  } else if (header->ifa_family == AF_INET6) {
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
    auto left = static_cast<unsigned>(got);
    for (const auto* message = reinterpret_cast<const nlmsghdr*>(buffer); NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
      if (message->nlmsg_type == NLMSG_DONE) return addresses;
      if (message->nlmsg_type == NLMSG_ERROR) return std::nullopt;
      if (message->nlmsg_type == RTM_NEWADDR) collect(message, addresses);
    }
  }
}

}  // namespace

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
