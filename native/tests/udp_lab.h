// Sockets of UDP that do one thing at a time, for the relay's laboratory.
#pragma once

#include <ctime>

#include <linux/errqueue.h>
#include <netinet/udp.h>

#include <optional>
#include <set>

#include "relay_lab.h"

namespace lab {

inline Descriptor datagramSocket(int family) {
  Descriptor fd{socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  CHECK(fd);
  patient(fd.get());
  const int room = 4 << 20;
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  return fd;
}
inline Descriptor serveAt(const Endpoint& endpoint, bool shared = false) {
  Descriptor fd = datagramSocket(endpoint.family());
  const int one = 1;
  if (shared) CHECK_EQ(setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
  CHECK_EQ(bind(fd.get(), endpoint.raw(), endpoint.size()), 0);
  return fd;
}
// Connected; errors of ICMP are all told, as to a program that asks.
inline Descriptor speakTo(const Endpoint& server) {
  Descriptor fd = datagramSocket(server.family());
  const int one = 1;
  CHECK_EQ(server.v4() ? setsockopt(fd.get(), SOL_IP, IP_RECVERR, &one, sizeof one) : setsockopt(fd.get(), SOL_IPV6, IPV6_RECVERR, &one, sizeof one), 0);
  CHECK_EQ(connect(fd.get(), server.raw(), server.size()), 0);
  return fd;
}
inline Descriptor serveIn(const Namespace& where, const Endpoint& endpoint) {
  Descriptor fd;
  where.inside([&] { fd = serveAt(endpoint); });
  return fd;
}
inline Descriptor speakFrom(const Namespace& where, const Endpoint& server) {
  Descriptor fd;
  where.inside([&] { fd = speakTo(server); });
  return fd;
}

inline void say(const Descriptor& fd, std::string_view bytes) {
  CHECK_EQ(send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
}
inline void sayTo(const Descriptor& fd, const Endpoint& peer, std::string_view bytes) {
  CHECK_EQ(sendto(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL, peer.raw(), peer.size()), static_cast<ssize_t>(bytes.size()));
}
inline std::string hear(const Descriptor& fd, Endpoint* peer = nullptr) {
  static thread_local char buffer[65536];
  Endpoint from;
  socklen_t length = sizeof from.storage;
  const ssize_t got = recvfrom(fd.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from.storage), &length);
  CHECK(got >= 0);
  if (peer != nullptr) *peer = from;
  return {buffer, static_cast<std::size_t>(got)};
}
inline int errorOf(const Descriptor& fd) {
  char byte;
  CHECK(recv(fd.get(), &byte, 1, 0) < 0);
  return errno;
}

struct IcmpSeen {
  int error;
  unsigned type, code, info;
  std::string offender;
};
// Waits for an error of ICMP.
inline IcmpSeen awaitIcmp(const Descriptor& fd) {
  pollfd waiting{fd.get(), 0, 0};
  CHECK_EQ(poll(&waiting, 1, kPatience * 1000), 1);
  char payload[2048];
  alignas(cmsghdr) char control[512];
  iovec piece{payload, sizeof payload};
  msghdr header{};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  CHECK(recvmsg(fd.get(), &header, MSG_ERRQUEUE) >= 0);
  for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr; each = CMSG_NXTHDR(&header, each)) {
    if (each->cmsg_type != IP_RECVERR && each->cmsg_type != IPV6_RECVERR) continue;
    const auto* error = reinterpret_cast<const sock_extended_err*>(CMSG_DATA(each));
    CHECK(error->ee_origin == SO_EE_ORIGIN_ICMP || error->ee_origin == SO_EE_ORIGIN_ICMP6);
    Endpoint offender;
    const sockaddr* from = SO_EE_OFFENDER(error);
    std::memcpy(&offender.storage, from, from->sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    return {static_cast<int>(error->ee_errno), error->ee_type, error->ee_code, error->ee_info, offender.address()};
  }
  check::fail(__FILE__, __LINE__, "no error of ICMP");
}

// One byte, and the class of service it came with; the socket must have been told to say so.
inline unsigned serviceOf(const Descriptor& fd, Endpoint& from) {
  char byte;
  alignas(cmsghdr) char control[128];
  iovec piece{&byte, 1};
  msghdr header{};
  header.msg_name = &from.storage;
  header.msg_namelen = sizeof from.storage;
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  CHECK_EQ(recvmsg(fd.get(), &header, 0), 1);
  const cmsghdr* tos = CMSG_FIRSTHDR(&header);
  CHECK(tos != nullptr);
  return static_cast<unsigned>(*reinterpret_cast<const std::uint8_t*>(CMSG_DATA(tos)));
}
// The class of service goes with each datagram, both ways; ECN's two bits, too.
inline void checkService(const Descriptor& server, const Descriptor& client) {
  const bool v4 = localEnd(client).v4();
  const auto set = [&](const Descriptor& fd, int option4, int option6, int value) {
    CHECK_EQ(setsockopt(fd.get(), v4 ? SOL_IP : SOL_IPV6, v4 ? option4 : option6, &value, sizeof value), 0);
  };
  for (const Descriptor* each : {&server, &client}) set(*each, IP_RECVTOS, IPV6_RECVTCLASS, 1);
  for (const unsigned tos : {0x48U, 0x00U, 0xb9U}) {
    for (const Descriptor* each : {&server, &client}) set(*each, IP_TOS, IPV6_TCLASS, static_cast<int>(tos));
    say(client, "x");
    Endpoint from, back;
    CHECK_EQ(serviceOf(server, from), tos);
    sayTo(server, from, "y");
    CHECK_EQ(serviceOf(client, back), tos);
  }
}

inline RelaySettings withUdp(unsigned threads = 1, unsigned idle = 60) {
  RelaySettings settings;
  settings.udp = true;
  settings.threads = threads;
  settings.idle = idle;
  return settings;
}
inline void awaitFlows(Relay& relay, std::int64_t wanted) {
  while (relay.udpFlows() != wanted) relay.read();
}
// How long silence lasts from now on, in seconds; every thread knows when this returns. A test that needs a flow to live and then to end says so here: by time alone, one
// that does not get its turn for a second would find its flow ended.
inline void setIdle(Relay& relay, unsigned other, unsigned quic, unsigned dns) {
  relay.send("{\"type\":\"udp\",\"udpIdle\":{\"dns\":" + std::to_string(dns) + ",\"quic\":" + std::to_string(quic) + ",\"other\":" + std::to_string(other) + "}}");
  relay.ping();
}
inline void setIdle(Relay& relay, unsigned seconds) { setIdle(relay, seconds, seconds, seconds); }
// What the record says of its only flow, and that it says it exactly.
inline capture_reader::Account onlyAccount(const std::vector<capture_reader::Item>& items) {
  const auto accounts = capture_reader::accounts(items);
  CHECK_EQ(accounts.size(), 1U);
  const auto& account = accounts.begin()->second;
  CHECK(account.udp && account.closed);
  for (int way = 0; way < 2; ++way) CHECK_EQ(account.keptDatagrams[way] + account.gapDatagrams[way], account.closeDatagrams[way]);
  for (int way = 0; way < 2; ++way) CHECK_EQ(account.kept[way] + account.gaps[way], account.closeBytes[way]);
  return account;
}

}  // namespace lab
