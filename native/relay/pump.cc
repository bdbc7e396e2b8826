// Moving bytes: read, record, hand on, all at once; what the other side does not take is the only thing kept.
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <span>

#include "net/conntrack.h"
#include "net/socket.h"
#include "net/upstream.h"
#include "relay/worker.h"

namespace sluice {
namespace {

constexpr std::uint8_t kStreaming = 2;           // full buffers in a row after which a flow may be spliced: smaller ones are moved faster by copying
constexpr std::size_t kLeastBranched = 16U << 10U;  // room in the record below which pourBoth() with its four calls is not worth it
constexpr std::size_t kShare = 256U << 10U;  // bytes a direction may move in one turn, so that a busy flow starves nobody

/** The next byte to be read is urgent (tcp(7), SIOCATMARK). */
bool atMark(int fd) {
  int at = 0;
  return ::ioctl(fd, SIOCATMARK, &at) == 0 && at == 1;
}

}  // namespace

void Worker::onEvent(Flow& flow, Side side, std::uint32_t events) {
  if (flow.state == FlowState::kDead || flow.state == FlowState::kEpilogue) return;
  Link& link = flow.side[side];
  if ((events & EPOLLIN) != 0) link.readable = true;
  if ((events & (EPOLLRDHUP | EPOLLPRI | EPOLLHUP)) != 0) link.readable = link.exhaustive = true;
  if ((events & EPOLLRDHUP) != 0) link.ending = true;
  if ((events & EPOLLPRI) != 0) link.urgent = true;
  if ((events & EPOLLOUT) != 0) link.writable = true;
  if ((events & EPOLLERR) != 0) link.failed = true;
  switch (flow.state) {
    case FlowState::kConnecting:
      if (side == kServer && flow.greeting) return greet(flow);
      if (link.failed || (side == kServer && (events & EPOLLHUP) != 0)) {
        const int error = takeError(link.fd);
        if (side == kClient || (error != ECONNRESET && error != EPIPE)) return fail(flow, side, error);
        // Connected and reset before we looked (a handshake that is reset says ECONNREFUSED): what it sent comes first.
        link.failed = true;
        link.error = error;
        return onConnected(flow, now_);
      }
      if (side == kServer && link.writable) onConnected(flow, now_);
      return;
    case FlowState::kDraining:
      return checkDrained(flow);
    case FlowState::kCondemned:
      if (side == kClient && link.failed) fail(flow, kClient, takeError(link.fd));
      return;
    default:
      pump(flow);
  }
}

void Worker::onConnected(Flow& flow, std::int64_t when) {
  flow.state = FlowState::kOpen;
  flow.side[kServer].writable = true;
  track_.connected(flow.record, flow.upstreamEnd, when);
  if (!flow.record.server.v4()) answerInKind(flow.side[kServer].fd, flow.side[kClient].fd);
  // What a client says at once carries the last ACK of the handshake, which is a packet less. Who says nothing by the next turn may be waiting for the server to begin.
  if (flow.side[kClient].readable) flow.owesAck = false;
  if (flow.owesAck) owing_.push_back(&flow);
  pump(flow);
}

void Worker::ackOwed(const std::vector<Flow*>& flows) {
  for (Flow* flow : flows) {
    const bool spoken = flow->record.bytes[0] > 0 || flow->way[0].passed;
    if (flow->owesAck && !spoken) ackNow(flow->side[kServer].fd);
    flow->owesAck = false;
  }
}

void Worker::pump(Flow& flow) {
  move(flow, Direction::kUp);
  if (flow.state == FlowState::kOpen) move(flow, Direction::kDown);
  if (flow.state != FlowState::kOpen) return;
  // What came before a reset has been handed on as far as it goes; the reset itself does not wait for slow readers.
  for (const Side side : {kClient, kServer}) {
    if (!flow.side[side].failed) continue;
    if (side == kServer && flow.awaiting) continue;  // release() looks again
    const int error = flow.side[side].error != 0 ? flow.side[side].error : takeError(flow.side[side].fd);
    return fail(flow, side, error != 0 ? error : ECONNRESET);
  }
  checkEnd(flow);
}

void Worker::move(Flow& flow, Direction direction) {
  const Side from = direction == Direction::kUp ? kClient : kServer;
  const Side to = direction == Direction::kUp ? kServer : kClient;
  Link& source = flow.side[from];
  Link& target = flow.side[to];
  Way& way = flow.way[static_cast<std::size_t>(direction)];
  if (way.passed || (direction == Direction::kDown && flow.awaiting)) return;

  for (std::size_t moved = 0;;) {
    if (way.pending) {
      if (!target.writable) return;
      const ssize_t sent = ::send(target.fd, way.pending->bytes.data() + way.begin, way.end - way.begin, MSG_NOSIGNAL | (way.urgent ? MSG_OOB : 0));
      if (sent < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return fail(flow, to, errno == EPIPE ? ECONNRESET : errno);
        target.writable = false;
        return;
      }
      way.begin += static_cast<std::uint32_t>(sent);
      if (way.begin < way.end) {  // the kernel took what it had room for, and tells when there is more
        target.writable = false;
        return;
      }
      pool_.give(std::move(way.pending));
      way.pending.reset();
    }
    if (way.piped > 0) {
      const Step step = pourOut(flow, direction);
      if (step != Step::kMoved) return;
      continue;
    }
    if (way.ended) {
      if (way.pipe) pipes_.give(std::move(way.pipe));
      if (to == kClient && flow.record.server.linkLocal() && own_.containsOnce(flow.record.client)) leaveLink(target.fd);
      ::shutdown(target.fd, SHUT_WR);
      way.passed = true;
      return;
    }
    if (!source.readable) {
      if (way.pipe) pipes_.give(std::move(way.pipe));
      if (moved < Buffer::kSize) way.full = 0;
      return;
    }
    if (moved >= kShare) {
      if (!flow.ready) {
        flow.ready = true;
        ready_.push_back(&flow);
      }
      return;
    }
    if (way.full >= kStreaming && !source.urgent && !track_.keeps(flow.record)) {
      if (lendPipe(way)) {
        if (pourIn(flow, direction, moved) == Step::kFailed) return;
        continue;
      }
    }
    // Into the record at once, where it takes all that comes, and on from there.
    std::span<std::byte> place = track_.reserve(flow.record, Buffer::kSize);
    const bool recorded = !place.empty();
    if (recorded && way.full >= kStreaming && !source.urgent && branch_ && place.size() >= kLeastBranched && lendPipe(way)) {
      if (pourBoth(flow, direction, place, moved) == Step::kFailed) return;
      continue;
    }
    if (!recorded) place = scratch_->bytes;
    // The urgent byte goes on as one. It stands first when read, as recv(2) stops in front of it; once it has been seen that there is such data.
    const bool urgent = source.urgent && atMark(source.fd);
    if (urgent) place = place.first(1);
    const ssize_t got = ::recv(source.fd, place.data(), place.size(), 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) return fail(flow, from, errno);
      source.readable = false;
      return;
    }
    if (got == 0 && source.error != 0) return fail(flow, from, source.error);  // the error is taken, so the kernel says "end"
    if (got == 0) {
      readEnd(flow, direction);
      continue;
    }
    const auto size = static_cast<std::size_t>(got);
    if (size == place.size()) way.full = std::min<std::uint8_t>(way.full + 1, kStreaming);
    if (size < place.size() && !source.exhaustive) source.readable = false;
    moved += size;
    bytes_ += size;
    if (recorded) {
      track_.commit(flow.record, direction, size, now_);
    } else {
      track_.data(flow.record, direction, place.first(size), now_);
    }
    std::size_t sent = 0;
    if (target.writable) {
      // Where these are the last ones, as the end of stream has come, they leave together with it, which is a packet less.
      const bool last = source.ending && !source.failed && !urgent && size < place.size();
      const ssize_t taken = ::send(target.fd, place.data(), size, MSG_NOSIGNAL | (urgent ? MSG_OOB : 0) | (last ? MSG_MORE : 0));
      if (taken < 0 && errno != EAGAIN && errno != EINTR) return fail(flow, to, errno == EPIPE ? ECONNRESET : errno);
      if (taken > 0) sent = static_cast<std::size_t>(taken);
      if (sent < size) target.writable = taken < 0 && errno == EINTR;
    }
    if (sent < size) {
      way.begin = static_cast<std::uint32_t>(sent);
      way.end = static_cast<std::uint32_t>(size);
      way.urgent = urgent;
      if (recorded) std::copy(place.begin() + static_cast<std::ptrdiff_t>(sent), place.begin() + got, scratch_->bytes.begin() + static_cast<std::ptrdiff_t>(sent));
      way.pending = std::move(scratch_);
      scratch_ = pool_.take();
    }
  }
}

void Worker::readEnd(Flow& flow, Direction direction) {
  flow.way[static_cast<std::size_t>(direction)].ended = true;
  if (!flow.way[0].ended || !flow.way[1].ended) {
    flow.by = direction == Direction::kUp ? ClosedBy::kClient : ClosedBy::kServer;
    if (flow.local || shared_.options.redirected) keepKnown(flow.side[kClient].fd, now_);
    if (flow.record.scope == FlowScope::kIncoming && flow.side[kServer].fd >= 0) keepKnown(flow.side[kServer].fd, now_);
  }
  track_.finished(flow.record, direction, now_);
}

// A flow that streams and whose payload is not kept goes through a pipe: the kernel hands its pages on. The pipe is emptied before anything else is
// read, so what is in it is bounded by its size, as `pending` is by a buffer's.
Worker::Step Worker::pourIn(Flow& flow, Direction direction, std::size_t& moved) {
  Way& way = flow.way[static_cast<std::size_t>(direction)];
  std::size_t got = 0;
  const Step step = draw(flow, direction, *way.pipe, way.pipe->size, got);
  if (got == 0) return step;
  way.piped = static_cast<std::uint32_t>(got);
  moved += got;
  bytes_ += got;
  track_.passed(flow.record, direction, got, now_);
  return Step::kMoved;
}

// The same where payload is kept: the pages go on, and are copied once, into the record, instead of once more out of it.
Worker::Step Worker::pourBoth(Flow& flow, Direction direction, std::span<std::byte> place, std::size_t& moved) {
  Way& way = flow.way[static_cast<std::size_t>(direction)];
  std::size_t got = 0;
  const Step step = draw(flow, direction, *branch_, place.size(), got);
  if (got == 0) return step;
  // The way's pipe is empty and larger, so it takes all.
  const ssize_t doubled = ::tee(branch_->out.get(), way.pipe->in.get(), got, SPLICE_F_NONBLOCK);
  for (std::size_t at = 0; at < got;) {
    const ssize_t part = ::read(branch_->out.get(), place.data() + at, got - at);
    if (part <= 0) std::abort();  // the pipe is not what we believe it to be
    at += static_cast<std::size_t>(part);
  }
  if (doubled == static_cast<ssize_t>(got)) {
    way.piped = static_cast<std::uint32_t>(got);
  } else {
    pipes_.discard(std::move(way.pipe));
    std::copy_n(place.begin(), got, scratch_->bytes.begin());
    way.begin = 0;
    way.end = static_cast<std::uint32_t>(got);
    way.urgent = false;
    way.pending = std::move(scratch_);
    scratch_ = pool_.take();
  }
  moved += got;
  bytes_ += got;
  track_.commit(flow.record, direction, got, now_);
  return Step::kMoved;
}

bool Worker::lendPipe(Way& way) {
  if (!way.pipe) way.pipe = pipes_.take(std::max<std::size_t>(2, PipePool::kMostOfAll / siblings_.size()));
  return way.pipe != nullptr;
}

// `drawn` bytes from the socket into an empty pipe; 0: it had none, and what that means has been seen to.
Worker::Step Worker::draw(Flow& flow, Direction direction, Pipe& pipe, std::size_t most, std::size_t& drawn) {
  const Side from = direction == Direction::kUp ? kClient : kServer;
  Link& source = flow.side[from];
  const ssize_t got = ::splice(source.fd, nullptr, pipe.in.get(), nullptr, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
  if (got < 0) {
    if (errno == EINTR) return Step::kMoved;
    if (errno != EAGAIN) {
      fail(flow, from, errno);
      return Step::kFailed;
    }
    source.readable = false;  // the pipe was empty, so it is the source that has nothing
    return Step::kWaiting;
  }
  if (got == 0 && source.error != 0) {
    fail(flow, from, source.error);
    return Step::kFailed;
  }
  if (got == 0) {
    readEnd(flow, direction);
    return Step::kMoved;
  }
  drawn = static_cast<std::size_t>(got);
  return Step::kMoved;
}

Worker::Step Worker::pourOut(Flow& flow, Direction direction) {
  const Side to = direction == Direction::kUp ? kServer : kClient;
  Link& target = flow.side[to];
  Way& way = flow.way[static_cast<std::size_t>(direction)];
  if (!target.writable) return Step::kWaiting;
  const ssize_t sent = ::splice(way.pipe->out.get(), nullptr, target.fd, nullptr, way.piped, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
  if (sent < 0) {
    if (errno == EINTR) return Step::kMoved;
    if (errno != EAGAIN) {
      fail(flow, to, errno == EPIPE ? ECONNRESET : errno);
      return Step::kFailed;
    }
    target.writable = false;
    return Step::kWaiting;
  }
  if (sent == 0 || static_cast<std::size_t>(sent) > way.piped) std::abort();  // the pipe is not what we believe it to be
  way.piped -= static_cast<std::uint32_t>(sent);
  return Step::kMoved;
}

}  // namespace sluice
