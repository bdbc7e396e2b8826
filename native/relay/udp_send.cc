// Sending on, many datagrams a call and equal ones as one.
#include <sys/socket.h>

#include <cerrno>

#include "net/udp_socket.h"
#include "relay/udp_relay.h"

namespace sluice {
namespace {

constexpr int kStale = 3;                    // errors of earlier datagrams that one flush believes to have met instead of its own
constexpr std::size_t kFragment = 1280;      // what every path of IPv6 carries, RFC 8200, 5

std::uint64_t countOf(const UdpRun& run) {
  std::uint64_t count = 0;
  eachDatagram(run, [&](std::span<const std::byte>) { ++count; });
  return count;
}

}  // namespace

void UdpRelay::sent(UdpFlow& flow, Direction direction, std::span<const std::byte> bytes) {
  track_.datagram(flow.record, direction, bytes, surroundings_.now);
  counts_.bytes += bytes.size();
  ++counts_.datagrams;
}

void UdpRelay::relay(UdpFlow& flow, Direction direction, std::span<const UdpPiece> pieces) {
  const Side to = direction == Direction::kUp ? kServer : kClient;
  if (flow.fd[to] < 0) {
    answerRaw(flow, pieces);
  } else {
    const bool v4 = flow.record.server.v4();
    outbox_.clear();
    for (std::size_t at = 0; at < pieces.size();) {
      const UdpRun run = longestRun(pieces.subspan(at), flow.largest[to], v4);
      if (outbox_.full(run.count)) flush(flow, direction);
      if (run.segment > flow.largest[to]) {
        flush(flow, direction);
        sendSingly(flow, direction, run);
      } else {
        outbox_.add(run, v4 ? AF_INET : AF_INET6);
      }
      at += run.count;
    }
    flush(flow, direction);
  }
  if (direction == Direction::kDown && flow.kind == UdpKind::kFailing) {
    byAge_[static_cast<std::size_t>(flow.kind)].remove(flow);
    flow.kind = flow.ordinary;
    byAge_[static_cast<std::size_t>(flow.kind)].append(flow);
    flow.failure = CloseReason::kIdle;
  }
  touch(flow);
}

void UdpRelay::flush(UdpFlow& flow, Direction direction) {
  const Side to = direction == Direction::kUp ? kServer : kClient;
  std::uint64_t& lost = flow.record.lost[static_cast<std::size_t>(direction)];
  int stale = 0;
  for (std::size_t at = 0; at < outbox_.size();) {
    const int count = outbox_.send(flow.fd[to], at);
    if (count > 0) {
      for (const std::size_t end = at + static_cast<std::size_t>(count); at < end; ++at) {
        eachDatagram(outbox_.run(at), [&](std::span<const std::byte> bytes) { sent(flow, direction, bytes); });
      }
      continue;
    }
    const UdpRun run = outbox_.run(at);
    switch (errno) {
      case EINTR:
        continue;
      case EAGAIN:  // full: who waited here would hold up the others
        for (; at < outbox_.size(); ++at) lost += countOf(outbox_.run(at));
        continue;
      case ECONNREFUSED: case EHOSTUNREACH: case ENETUNREACH: case EHOSTDOWN: case ENETDOWN: case ENOPROTOOPT: case EPROTO: case EACCES: case EMSGSIZE:
        if (stale < kStale) {  // most likely the error of an earlier one, and this one was not sent for it
          ++stale;
          takeErrors(flow, to);
          continue;
        }
        [[fallthrough]];
      default:
        if (run.segment != 0 && errno != ENOBUFS && errno != EPERM) {
          // A run it will not carry: its datagrams are larger than the path's packets, or the device computes no checksums.
          flow.largest[to] = errno == EIO ? std::uint16_t{0} : std::min<std::uint16_t>(flow.largest[to], static_cast<std::uint16_t>(run.segment - 1));
          sendSingly(flow, direction, run);
        } else {
          lost += countOf(run);
        }
        ++at;
    }
  }
  outbox_.clear();
}

void UdpRelay::sendSingly(UdpFlow& flow, Direction direction, const UdpRun& run) {
  const Side to = direction == Direction::kUp ? kServer : kClient;
  const bool v4 = flow.record.server.v4();
  UdpOutbox single;
  int stale = 0;
  eachDatagram(run, [&](std::span<const std::byte> bytes) {
    const UdpPiece piece{bytes, 0, run.pieces[0].tos};
    single.clear();
    single.add({&piece, 1, 0}, v4 ? AF_INET : AF_INET6);
    while (single.send(flow.fd[to], 0) != 1) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == ENOBUFS || stale >= kStale) {
        ++flow.record.lost[static_cast<std::size_t>(direction)];
        return;
      }
      ++stale;
      takeErrors(flow, to);
    }
    sent(flow, direction, bytes);
  });
}

void UdpRelay::answerRaw(UdpFlow& flow, std::span<const UdpPiece> pieces) {
  for (const UdpPiece& piece : pieces) {
    eachDatagram({&piece, 1, piece.segment}, [&](std::span<const std::byte> bytes) {
      const std::size_t size = buildUdpPacket(packet_.data(), flow.record.server, flow.record.client, piece.tos, bytes);
      if (size != 0 && sendRaw(flow.record.server.family(), {packet_.data(), size}, flow.record.client)) {
        sent(flow, Direction::kDown, bytes);
      } else {
        ++flow.record.lost[1];
      }
    });
  }
}

bool UdpRelay::sendRaw(int family, std::span<const std::byte> packet, const Endpoint& to) {
  Descriptor& raw = raw_[family == AF_INET ? 0 : 1];
  if (!raw) raw = openRawSender(family, shared_.options.uplinkMark);
  struct Target {
    int fd;
    Endpoint to;
  } target{raw.get(), to};
  target.to.setPort(0);  // of a raw socket it would be a protocol
  const auto send = [](void* with, std::span<const std::byte> bytes) {
    const Target& out = *static_cast<const Target*>(with);
    ssize_t sent = 0;
    do sent = ::sendto(out.fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL, out.to.raw(), out.to.size());
    while (sent < 0 && errno == EINTR);
    return sent == static_cast<ssize_t>(bytes.size());
  };
  if (send(&target, packet)) return true;
  return errno == EMSGSIZE && eachFragment(packet, kFragment, ++identification_, send, &target);
}

}  // namespace sluice
