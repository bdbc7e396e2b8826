#include "control/channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "control/json.h"

namespace sluice {
namespace {

constexpr std::size_t kMaxWaiting = 256U << 10U;

}  // namespace

Channel::Channel(int fd) : fd_(fd) {
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  ::fcntl(fd, F_SETFL, O_NONBLOCK);
}

void Channel::receive() {
  char buffer[16384];
  // A line's worth at a time; more is read when these lines are dealt with.
  while (!ended_ && in_.size() <= kMaxControlLine) {
    const ssize_t got = ::read(fd_.get(), buffer, sizeof buffer);
    if (got > 0) {
      in_.append(buffer, static_cast<std::size_t>(got));
    } else if (got < 0 && errno == EINTR) {
      continue;
    } else if (got < 0 && errno == EAGAIN) {
      return;
    } else {
      ended_ = true;
    }
  }
}

std::optional<std::string> Channel::line() {
  const std::size_t at = in_.find('\n', scanned_);
  if (at == std::string::npos) {
    scanned_ = in_.size();
    if (in_.size() > kMaxControlLine) ended_ = true;
    return std::nullopt;
  }
  std::string result = in_.substr(0, at);
  in_.erase(0, at + 1);
  scanned_ = 0;
  return result;
}

void Channel::send(const std::string& line, bool mayDrop) {
  if (ended_) return;
  if (out_.size() + line.size() > kMaxWaiting) {
    if (!mayDrop) ended_ = true;
    return;
  }
  if (mayDrop && !out_.empty()) return;
  out_ += line;
  flush();
}

void Channel::flush() {
  while (!out_.empty()) {
    const ssize_t sent = ::send(fd_.get(), out_.data(), out_.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) {
        ended_ = true;
        out_.clear();
      }
      return;
    }
    out_.erase(0, static_cast<std::size_t>(sent));
  }
}

void Channel::finish(int milliseconds) {
  flush();
  pollfd waiting{fd_.get(), POLLOUT, 0};
  while (!out_.empty() && ::poll(&waiting, 1, milliseconds) > 0) flush();
}

}  // namespace sluice
