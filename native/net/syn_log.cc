#include "net/syn_log.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace sluice {
namespace {

constexpr std::uint32_t kCopied = 160;  // bytes of a packet: the longest IPv4 and TCP headers are 120
constexpr int kRoom = 4 << 20;          // of the socket: SYNs of a burst wait here

// Sends one configuration attribute and waits for its acknowledgement. errno, 0 on success.
int configure(int fd, std::uint16_t group, std::uint16_t attribute, std::span<const std::byte> value) {
  struct {
    nlmsghdr header;
    nfgenmsg body;
    nlattr attribute;
    std::array<std::byte, 8> value;
  } request{};
  request.header.nlmsg_len = static_cast<std::uint32_t>(NLMSG_LENGTH(sizeof(nfgenmsg)) + NLA_HDRLEN + NLA_ALIGN(value.size()));
  request.header.nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  request.body.nfgen_family = AF_UNSPEC;
  request.body.version = NFNETLINK_V0;
  request.body.res_id = htons(group);
  request.attribute.nla_type = attribute;
  request.attribute.nla_len = static_cast<std::uint16_t>(NLA_HDRLEN + value.size());
  std::memcpy(request.value.data(), value.data(), value.size());
  if (::send(fd, &request, request.header.nlmsg_len, 0) < 0) return errno;
  for (;;) {
    alignas(nlmsghdr) std::array<std::byte, 8192> buffer;
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    nlmsghdr header;
    if (static_cast<std::size_t>(got) < NLMSG_LENGTH(sizeof(nlmsgerr))) return EPROTO;
    std::memcpy(&header, buffer.data(), sizeof header);
    if (header.nlmsg_type != NLMSG_ERROR) continue;  // a packet that was logged already
    int error = 0;
    std::memcpy(&error, buffer.data() + NLMSG_HDRLEN, sizeof error);
    return -error;
  }
}

template <typename Value>
int configure(int fd, std::uint16_t group, std::uint16_t attribute, const Value& value) {
  return configure(fd, group, attribute, std::as_bytes(std::span(&value, 1)));
}

}  // namespace

std::optional<LoggedPacket> loggedPacket(std::span<const std::byte> message) {
  LoggedPacket packet;
  nlmsghdr header;
  if (message.size() < NLMSG_LENGTH(sizeof(nfgenmsg))) return std::nullopt;
  std::memcpy(&header, message.data(), sizeof header);
  if (header.nlmsg_type != (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET)) return std::nullopt;
  for (std::size_t at = NLMSG_LENGTH(sizeof(nfgenmsg)); at + NLA_HDRLEN <= message.size();) {
    nlattr attribute;
    std::memcpy(&attribute, message.data() + at, sizeof attribute);
    if (attribute.nla_len < NLA_HDRLEN || at + attribute.nla_len > message.size()) return std::nullopt;
    const auto value = message.subspan(at + NLA_HDRLEN, attribute.nla_len - NLA_HDRLEN);
    const int type = attribute.nla_type & NLA_TYPE_MASK;
    if (type == NFULA_IFINDEX_OUTDEV && value.size() == sizeof packet.outgoing) {
      std::memcpy(&packet.outgoing, value.data(), sizeof packet.outgoing);
      packet.outgoing = ntohl(packet.outgoing);
    } else if (type == NFULA_PAYLOAD) {  // the last of them, nfnetlink_log.c
      packet.bytes = value;
      return packet;
    }
    at += NLA_ALIGN(attribute.nla_len);
  }
  return std::nullopt;
}

std::optional<LoggedPacket> nextLogged(std::span<const std::byte> read, std::size_t& at) {
  while (at + NLMSG_HDRLEN <= read.size()) {
    nlmsghdr header;
    std::memcpy(&header, read.data() + at, sizeof header);
    if (header.nlmsg_len < NLMSG_HDRLEN || header.nlmsg_len > read.size() - at) break;
    const auto message = read.subspan(at, header.nlmsg_len);
    at += NLMSG_ALIGN(header.nlmsg_len);
    if (const auto packet = loggedPacket(message)) return packet;
  }
  return std::nullopt;
}

SynLog SynLog::open(std::uint16_t group, int& error) {
  SynLog log;
  Descriptor socket{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER)};
  const sockaddr_nl address{.nl_family = AF_NETLINK, .nl_pad = 0, .nl_pid = 0, .nl_groups = 0};
  if (!socket || ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    error = errno;
    return log;
  }
  // Beyond the system's limit where we may; the default of 208 KiB holds some 300 SYNs.
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kRoom, sizeof kRoom) != 0) ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &kRoom, sizeof kRoom);
  const int on = 1;
  ::setsockopt(socket.get(), SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on);
  nfulnl_msg_config_cmd bind{};
  bind.command = NFULNL_CFG_CMD_BIND;
  nfulnl_msg_config_mode mode{};
  mode.copy_range = htonl(kCopied);
  mode.copy_mode = NFULNL_COPY_PACKET;
  // One packet a message, at once: by default the kernel gathers for a second, and a client waits.
  const std::uint32_t threshold = htonl(1);
  error = configure(socket.get(), group, NFULA_CFG_CMD, bind);
  if (error == 0) error = configure(socket.get(), group, NFULA_CFG_MODE, mode);
  if (error == 0) error = configure(socket.get(), group, NFULA_CFG_QTHRESH, threshold);
  if (error == 0) log.socket_ = std::move(socket);
  return log;
}

std::optional<LoggedPacket> SynLog::next() {
  for (;;) {
    if (const auto packet = nextLogged({buffer_.data(), end_}, at_)) return packet;
    at_ = end_ = 0;
    const ssize_t got = ::recv(socket_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return std::nullopt;
    end_ = static_cast<std::size_t>(got);
  }
}

}  // namespace sluice
