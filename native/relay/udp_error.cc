// What ICMP says of a relayed datagram goes to the one who sent it, as it would have without the relay.
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <sys/socket.h>

#include "net/socket.h"
#include "relay/udp_relay.h"

namespace sluice {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr unsigned kErrorsASecond = 1000;  // a thread; the kernel's own icmp_msgs_per_sec
constexpr int kErrorsATurn = 16;

bool meansRefused(const UdpError& error) {
  if (error.family == AF_INET) return error.type == ICMP_DEST_UNREACH && (error.code == ICMP_PORT_UNREACH || error.code == ICMP_PROT_UNREACH);
  return (error.type == ICMP6_DST_UNREACH && error.code == ICMP6_DST_UNREACH_NOPORT) || error.type == ICMP6_PARAM_PROB;
}
bool meansTooBig(const UdpError& error) {
  return error.family == AF_INET ? error.type == ICMP_DEST_UNREACH && error.code == ICMP_FRAG_NEEDED : error.type == ICMP6_PACKET_TOO_BIG;
}

}  // namespace

void UdpRelay::takeErrors(UdpFlow& flow, Side side) {
  for (int taken = 0; taken < kErrorsATurn; ++taken) {
    std::byte payload[2048];
    alignas(cmsghdr) std::byte control[512];
    iovec piece{payload, sizeof payload};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(flow.fd[side], &header, MSG_ERRQUEUE | MSG_DONTWAIT);
    if (got < 0) break;
    const auto error = parseUdpError({control, header.msg_controllen});
    const auto length = static_cast<std::size_t>(got);
    if (!error || error->family != flow.record.server.family()) continue;
    const Endpoint& server = flow.record.server;
    if (side == kServer) {
      tellError(error->offender.value_or(server), *error, {flow.record.client, server, length, {payload, std::min(length, sizeof payload)}});
      failing(flow, *error);
    } else {
      tellError(error->offender.value_or(flow.record.client), *error, {server, flow.upstreamEnd, length, {payload, std::min(length, sizeof payload)}});
    }
  }
  takeError(flow.fd[side]);  // one whose details found no room
}

void UdpRelay::tellError(const Endpoint& source, const UdpError& error, const Quoted& quoted) {
  if (surroundings_.now - errorsSince_ >= kSecond) {
    errorsSince_ = surroundings_.now;
    errors_ = 0;
  }
  if (++errors_ > kErrorsASecond) return;
  const std::size_t size = buildIcmpError(packet_.data(), source, error, quoted);
  sendRaw(source.family(), {packet_.data(), size}, quoted.from);
}

// A server that has answered before may answer again; one that never did is not waited for.
void UdpRelay::failing(UdpFlow& flow, const UdpError& error) {
  if (flow.record.datagrams[1] != 0 || meansTooBig(error)) return;
  flow.failure = meansRefused(error) ? CloseReason::kRefused : CloseReason::kUnreachable;
  if (flow.kind == UdpKind::kFailing || !flow.listed) return;
  byAge_[static_cast<std::size_t>(flow.kind)].remove(flow);
  flow.kind = UdpKind::kFailing;
  byAge_[static_cast<std::size_t>(flow.kind)].append(flow);
}

}  // namespace sluice
