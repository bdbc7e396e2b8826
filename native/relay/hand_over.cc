#include "relay/hand_over.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "control/json.h"
#include "net/descriptor.h"

namespace sluice {
namespace {

// Address and port as both protocols write them: network order.
std::size_t putAddress(std::byte* out, const Endpoint& endpoint) {
  if (endpoint.v4()) {
    std::memcpy(out, &reinterpret_cast<const sockaddr_in&>(endpoint.storage).sin_addr, 4);
    return 4;
  }
  std::memcpy(out, &reinterpret_cast<const sockaddr_in6&>(endpoint.storage).sin6_addr, 16);
  return 16;
}

std::size_t putPort(std::byte* out, std::uint16_t port) {
  out[0] = static_cast<std::byte>(port >> 8U);
  out[1] = static_cast<std::byte>(port & 0xFFU);
  return 2;
}

std::size_t putProxyV2(std::byte* out, const Endpoint& client, const Endpoint& server) {
  static constexpr unsigned char kSignature[12] = {0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A};
  std::memcpy(out, kSignature, sizeof kSignature);
  std::size_t at = sizeof kSignature;
  out[at++] = std::byte{0x21};                                   // version 2, PROXY
  out[at++] = client.v4() ? std::byte{0x11} : std::byte{0x21};   // TCP over IPv4, IPv6
  at += putPort(out + at, client.v4() ? 12 : 36);                // length of what follows
  at += putAddress(out + at, client);
  at += putAddress(out + at, server);
  at += putPort(out + at, client.port());
  at += putPort(out + at, server.port());
  return at;
}

std::string describe(const HandOverWish& wish) {
  static constexpr const char* kKinds[] = {"proxy-v2", "socks5", "tproxy"};
  const char* const kind = kKinds[static_cast<std::size_t>(wish.kind)];
  std::string json = std::string("{\"kind\":\"") + kind + "\",";
  if (!wish.path.empty()) return json + "\"path\":" + quoteJson(wish.path) + "}";
  return json + "\"address\":" + quoteJson(wish.proxy.address()) + ",\"port\":" + std::to_string(wish.proxy.port()) + "}";
}

}  // namespace

HandOver::HandOver(HandOverWish wish, std::uint64_t number) : wish_(std::move(wish)), number_(number), name_(describe(wish_)) {}

bool HandOver::takes(const Endpoint& server) const {
  const std::uint16_t port = server.port();
  if (server.linkLocal()) return false;  // no proxy is told of which link
  if (transparent() && server.family() != wish_.proxy.family()) return false;
  return std::any_of(wish_.ports.begin(), wish_.ports.end(), [&](const auto& range) { return range.from <= port && port <= range.to; });
}

Upstream HandOver::connect(std::uint32_t mark) const { return wish_.path.empty() ? openProxy(wish_.proxy, mark) : openProxy(wish_.path); }

void HandOver::learn(std::optional<Program> program) {
  const std::scoped_lock lock(mutex_);
  asked_ = true;
  program_ = std::move(program);
}

HandOver::Same HandOver::same(const Program& program, std::uint32_t mark) {
  if (program.pid <= 0) return Same::kUnknown;
  if (!wish_.path.empty()) {
    // The kernel says who made the socket listen, unix(7). A connection that says nothing is what every proxy knows.
    const Descriptor probe{connect(mark).fd};
    ucred owner{};
    socklen_t length = sizeof owner;
    if (!probe || ::getsockopt(probe.get(), SOL_SOCKET, SO_PEERCRED, &owner, &length) != 0) return Same::kNo;  // nobody listens
    if (owner.pid <= 0) return Same::kUnknown;
    return owner.pid == program.pid || owner.pid == program.ppid ? Same::kYes : Same::kNo;
  }
  const std::scoped_lock lock(mutex_);
  if (!asked_) return Same::kUnknown;
  if (!program_) return Same::kNo;  // nobody of this machine listens there
  if (program_->pid <= 0) return Same::kUnknown;
  if (program.pid == program_->pid) return Same::kYes;
  const bool kin = program.ppid == program_->pid || program.pid == program_->ppid || program.ppid == program_->ppid;
  return kin && !program.path.empty() && program.path == program_->path ? Same::kYes : Same::kNo;
}

void HandOvers::set(std::vector<HandOverWish> wishes) {
  const std::scoped_lock lock(mutex_);
  chosen_.clear();
  std::erase_if(known_, [](const auto& each) { return each.expired(); });
  for (HandOverWish& wish : wishes) known_.emplace_back(chosen_.emplace_back(std::make_shared<HandOver>(std::move(wish), next_++)));
  any_.store(!chosen_.empty(), std::memory_order_release);
}

std::shared_ptr<HandOver> HandOvers::of(const Endpoint& server) const {
  if (!any_.load(std::memory_order_acquire)) return nullptr;
  const std::scoped_lock lock(mutex_);
  const auto found = std::find_if(chosen_.begin(), chosen_.end(), [&](const auto& each) { return each->takes(server); });
  return found == chosen_.end() ? nullptr : *found;
}

std::shared_ptr<HandOver> HandOvers::numbered(std::uint64_t number) const {
  const std::scoped_lock lock(mutex_);
  for (const auto& each : known_) {
    if (auto found = each.lock(); found && found->number() == number) return found;
  }
  return nullptr;
}

Greeting::Greeting(HandOverWish::Kind kind, const Endpoint& client, const Endpoint& server) {
  if (kind == HandOverWish::Kind::kProxyV2) {
    toSend_ = putProxyV2(out_.data(), client, server);
    return;
  }
  if (kind == HandOverWish::Kind::kTproxy) return;  // nothing is said: that it is connected is all
  const std::byte offer[3] = {std::byte{5}, std::byte{1}, std::byte{0}};  // one method: no authentication
  std::memcpy(out_.data(), offer, sizeof offer);
  toSend_ = sizeof offer;
  wanted_ = 2;
  request_[0] = std::byte{5};
  request_[1] = std::byte{1};  // CONNECT
  request_[3] = server.v4() ? std::byte{1} : std::byte{4};
  requestSize_ = 4;
  requestSize_ += putAddress(request_.data() + requestSize_, server);
  requestSize_ += putPort(request_.data() + requestSize_, server.port());
  stage_ = Stage::kMethod;
}

Greeting::Outcome Greeting::step(int fd) {
  for (;;) {
    while (sent_ < toSend_) {
      const ssize_t count = ::send(fd, out_.data() + sent_, toSend_ - sent_, MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return errno == EAGAIN ? Outcome::kMore : Outcome::kFailed;
      sent_ += static_cast<std::size_t>(count);
    }
    while (got_ < wanted_) {
      const ssize_t count = ::recv(fd, in_.data() + got_, wanted_ - got_, 0);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return errno == EAGAIN ? Outcome::kMore : Outcome::kFailed;
      if (count == 0) return Outcome::kFailed;
      got_ += static_cast<std::size_t>(count);
    }
    if (const Outcome outcome = answered(); outcome != Outcome::kMore || stage_ == Stage::kDone) return outcome;
  }
}

// All that was wanted of this stage is there: on to the next.
Greeting::Outcome Greeting::answered() {
  const auto at = [&](std::size_t place) { return std::to_integer<unsigned>(in_[place]); };
  switch (stage_) {
    case Stage::kMethod:
      if (at(0) != 5 || at(1) != 0) return Outcome::kFailed;
      std::memcpy(out_.data(), request_.data(), requestSize_);
      toSend_ = requestSize_;
      sent_ = got_ = 0;
      wanted_ = 5;  // up to the first byte of the address, which is its length where it is a name
      stage_ = Stage::kReplyHead;
      return Outcome::kMore;
    case Stage::kReplyHead:
      if (at(0) != 5) return Outcome::kFailed;
      switch (at(1)) {  // REP, RFC 1928, 6
        case 0: break;
        case 3: case 4: return Outcome::kUnreachable;
        case 5: return Outcome::kRefused;
        case 6: return Outcome::kTimedOut;
        default: return Outcome::kFailed;
      }
      switch (at(3)) {
        case 1: wanted_ = 4 + 4 + 2; break;
        case 3: wanted_ = 5 + at(4) + 2; break;
        case 4: wanted_ = 4 + 16 + 2; break;
        default: return Outcome::kFailed;
      }
      stage_ = Stage::kReplyRest;
      return Outcome::kMore;
    default:
      stage_ = Stage::kDone;
      return Outcome::kDone;
  }
}

}  // namespace sluice
