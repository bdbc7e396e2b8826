// Load for the benchmark: a server and a client of few system calls, so that what stands between them is what is measured.
//
//   sluice-load serve ADDRESS PORT
//   sluice-load bulk|connect|request|rtt|http|http-connect|idle|udp-64|udp-1200|udp-idle ADDRESS PORT SECONDS CONNECTIONS
//
// The first byte a client sends says what it wants of the server: 'B' bytes until it closes, 'C' one byte and the end, 'R' an answer of 128
// bytes for each 64 bytes, 'G' (of "GET") HTTP/1.1. The client prints one number: bytes a second, connections a second, requests a second, or the median
// round trip in microseconds. `idle` opens its connections, prints how many, and holds them until its input ends. The server returns every datagram; `udp-64`
// and `udp-1200` keep 64 of them under way on each of their sockets and print datagrams a second, both ways together, and how many of a million never came back.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

Address parseAddress(const std::string& text, int port) {
  Address result;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&result.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&result.storage);
  if (inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<std::uint16_t>(port));
    result.size = sizeof *v4;
  } else if (inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<std::uint16_t>(port));
    result.size = sizeof *v6;
  } else {
    std::fprintf(stderr, "not an address: %s\n", text.c_str());
    std::exit(2);
  }
  return result;
}

void setOption(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

constexpr std::size_t kChunk = 256U << 10U;
std::array<char, kChunk> chunk{};
constexpr int kRequest = 64;
constexpr int kAnswer = 128;

struct Peer {
  char kind = 0;
  int pending = 0;    // bytes of a request seen so far
  std::string head{};  // of an HTTP request so far
};

constexpr std::string_view kHttpAnswer =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n"
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
constexpr std::string_view kHttpLast =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\nConnection: close\r\n\r\n"
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";

// Answers whole requests; false when the connection is to end.
bool answerHttp(int fd, Peer& peer, std::string_view bytes) {
  peer.head.append(bytes);
  for (std::size_t end; (end = peer.head.find("\r\n\r\n")) != std::string::npos;) {
    const bool last = std::string_view(peer.head).substr(0, end).find("onnection: close") != std::string_view::npos;
    const std::string_view answer = last ? kHttpLast : kHttpAnswer;
    peer.head.erase(0, end + 4);
    if (write(fd, answer.data(), answer.size()) != static_cast<ssize_t>(answer.size()) || last) return false;
  }
  return peer.head.size() < 16384;
}

// Datagrams in batches: else it would be the load's own system calls that are measured.
struct Batch {
  static constexpr std::size_t kMost = 64, kSlot = 2048;
  std::array<std::array<char, kSlot>, kMost> bytes{};
  std::array<sockaddr_storage, kMost> names{};
  std::array<iovec, kMost> pieces{};
  std::array<mmsghdr, kMost> headers{};

  Batch() {
    for (std::size_t i = 0; i < kMost; ++i) {
      pieces[i] = {bytes[i].data(), kSlot};
      headers[i].msg_hdr.msg_iov = &pieces[i];
      headers[i].msg_hdr.msg_iovlen = 1;
    }
  }
  // How many came, or -1.
  int receive(int fd, bool named) {
    for (std::size_t i = 0; i < kMost; ++i) {
      pieces[i].iov_len = kSlot;
      headers[i].msg_hdr.msg_name = named ? &names[i] : nullptr;
      headers[i].msg_hdr.msg_namelen = named ? sizeof names[i] : 0;
    }
    return recvmmsg(fd, headers.data(), kMost, MSG_DONTWAIT, nullptr);
  }
  // The first `count`, of `size` bytes each or, for 0, as they came. How many left.
  int send(int fd, std::size_t count, std::size_t size) {
    for (std::size_t i = 0; i < count; ++i) pieces[i].iov_len = size != 0 ? size : headers[i].msg_len;
    return sendmmsg(fd, headers.data(), static_cast<unsigned>(count), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
};

int openDatagrams(const Address& address) {
  const int fd = socket(address.storage.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20);
  setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20);
  return fd;
}

[[noreturn]] void serve(const Address& address) {
  const int listener = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setOption(listener, SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0) fail("bind");
  if (listen(listener, 4096) != 0) fail("listen");
  const int loop = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = listener;
  epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
  const int datagrams = openDatagrams(address);
  if (bind(datagrams, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0) fail("bind");
  event.data.fd = datagrams;
  epoll_ctl(loop, EPOLL_CTL_ADD, datagrams, &event);
  const auto batch = std::make_unique<Batch>();
  std::vector<Peer> peers(65536);
  std::array<epoll_event, 256> ready{};
  std::puts("ready");
  std::fflush(stdout);
  for (;;) {
    const int count = epoll_wait(loop, ready.data(), static_cast<int>(ready.size()), -1);
    for (int i = 0; i < count; ++i) {
      const int fd = ready[static_cast<std::size_t>(i)].data.fd;
      if (fd == listener) {
        for (int n = 0; n < 64; ++n) {
          const int peer = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
          if (peer < 0) break;
          if (peer >= static_cast<int>(peers.size())) {
            close(peer);
            continue;
          }
          peers[static_cast<std::size_t>(peer)] = Peer{};
          setOption(peer, IPPROTO_TCP, TCP_NODELAY, 1);
          epoll_event added{};
          added.events = EPOLLIN | EPOLLRDHUP;
          added.data.fd = peer;
          epoll_ctl(loop, EPOLL_CTL_ADD, peer, &added);
        }
        continue;
      }
      if (fd == datagrams) {
        if (const int got = batch->receive(datagrams, true); got > 0) batch->send(datagrams, static_cast<std::size_t>(got), 0);
        continue;
      }
      Peer& peer = peers[static_cast<std::size_t>(fd)];
      bool over = (ready[static_cast<std::size_t>(i)].events & (EPOLLERR | EPOLLHUP)) != 0;
      if (!over && (ready[static_cast<std::size_t>(i)].events & EPOLLIN) != 0) {
        std::array<char, 8192> input{};
        const ssize_t got = read(fd, input.data(), input.size());
        if (got <= 0) {
          over = got == 0 || errno != EAGAIN;
        } else {
          int from = 0;
          if (peer.kind == 0) {
            peer.kind = input[0];
            from = 1;
            if (peer.kind == 'C') {
              if (write(fd, "c", 1) != 1) over = true;
              over = true;
            } else if (peer.kind == 'B') {
              epoll_event changed{};
              changed.events = EPOLLOUT | EPOLLIN | EPOLLRDHUP;
              changed.data.fd = fd;
              epoll_ctl(loop, EPOLL_CTL_MOD, fd, &changed);
            }
          }
          if (peer.kind == 'G' && !answerHttp(fd, peer, {input.data(), static_cast<std::size_t>(got)})) over = true;
          if (peer.kind == 'R') {
            peer.pending += static_cast<int>(got) - from;
            while (peer.pending >= kRequest) {
              peer.pending -= kRequest;
              if (write(fd, chunk.data(), kAnswer) != kAnswer) over = true;
            }
          }
        }
      }
      if (!over && peer.kind == 'B' && (ready[static_cast<std::size_t>(i)].events & EPOLLOUT) != 0) {
        const ssize_t sent = send(fd, chunk.data(), chunk.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) over = true;
      }
      if (over) close(fd);
    }
  }
}

int connectBlocking(const Address& address) {
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0) fail("connect");
  return fd;
}

void writeAll(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent <= 0) fail("send");
    data += sent;
    size -= static_cast<std::size_t>(sent);
  }
}

void readAll(int fd, std::size_t size) {
  while (size > 0) {
    const ssize_t got = read(fd, chunk.data(), std::min(size, chunk.size()));
    if (got <= 0) fail("read");
    size -= static_cast<std::size_t>(got);
  }
}

double seconds(Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); }

double bulk(const Address& address, double duration, int connections) {
  const int loop = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < connections; ++i) {
    const int fd = connectBlocking(address);
    writeAll(fd, "B", 1);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
  }
  std::array<epoll_event, 64> ready{};
  const auto start = Clock::now();
  double bytes = 0;
  while (seconds(start) < duration) {
    const int count = epoll_wait(loop, ready.data(), static_cast<int>(ready.size()), 100);
    for (int i = 0; i < count; ++i) {
      const ssize_t got = recv(ready[static_cast<std::size_t>(i)].data.fd, chunk.data(), chunk.size(), MSG_DONTWAIT);
      if (got == 0 || (got < 0 && errno != EAGAIN)) fail("recv");
      if (got > 0) bytes += static_cast<double>(got);
    }
  }
  return bytes / seconds(start);
}

// Connections one after another on each of `connections` lanes: connect, one byte, one byte, end of data, close.
double connections(const Address& address, double duration, int lanes) {
  const int loop = epoll_create1(EPOLL_CLOEXEC);
  long done = 0;
  std::unordered_map<int, bool> asked;
  auto begin = [&] {
    const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket");
    // The client leaves with a reset, so that its ports are free again: TIME_WAIT would end the run after 28,000 connections.
    const linger hard{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0 && errno != EINPROGRESS) fail("connect");
    epoll_event event{};
    event.events = EPOLLOUT;
    event.data.fd = fd;
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
    asked[fd] = false;
  };
  for (int i = 0; i < lanes; ++i) begin();
  std::array<epoll_event, 256> ready{};
  const auto start = Clock::now();
  while (seconds(start) < duration) {
    const int count = epoll_wait(loop, ready.data(), static_cast<int>(ready.size()), 100);
    for (int i = 0; i < count; ++i) {
      const int fd = ready[static_cast<std::size_t>(i)].data.fd;
      if (!asked[fd]) {
        if (send(fd, "C", 1, MSG_NOSIGNAL) != 1) fail("connect");
        asked[fd] = true;
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        epoll_ctl(loop, EPOLL_CTL_MOD, fd, &event);
        continue;
      }
      char byte = 0;
      const ssize_t got = read(fd, &byte, 1);
      if (got < 0 && errno == EAGAIN) continue;
      if (got != 1) fail("answer");
      close(fd);
      ++done;
      begin();
    }
  }
  return static_cast<double>(done) / seconds(start);
}

double requests(const Address& address, double duration, int lanes) {
  const int loop = epoll_create1(EPOLL_CLOEXEC);
  std::unordered_map<int, int> missing;
  for (int i = 0; i < lanes; ++i) {
    const int fd = connectBlocking(address);
    writeAll(fd, "R", 1);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
    missing[fd] = kAnswer;
    writeAll(fd, chunk.data(), kRequest);
  }
  std::array<epoll_event, 256> ready{};
  const auto start = Clock::now();
  long done = 0;
  while (seconds(start) < duration) {
    const int count = epoll_wait(loop, ready.data(), static_cast<int>(ready.size()), 100);
    for (int i = 0; i < count; ++i) {
      const int fd = ready[static_cast<std::size_t>(i)].data.fd;
      const ssize_t got = recv(fd, chunk.data(), kAnswer, MSG_DONTWAIT);
      if (got < 0 && errno == EAGAIN) continue;
      if (got <= 0) fail("recv");
      int& left = missing[fd];
      left -= static_cast<int>(got);
      if (left > 0) continue;
      left = kAnswer;
      ++done;
      writeAll(fd, chunk.data(), kRequest);
    }
  }
  return static_cast<double>(done) / seconds(start);
}

double roundTrip(const Address& address, double duration) {
  const int fd = connectBlocking(address);
  writeAll(fd, "R", 1);
  std::vector<double> taken;
  const auto start = Clock::now();
  while (seconds(start) < duration) {
    const auto before = Clock::now();
    writeAll(fd, chunk.data(), kRequest);
    readAll(fd, kAnswer);
    taken.push_back(seconds(before) * 1e6);
  }
  std::nth_element(taken.begin(), taken.begin() + static_cast<std::ptrdiff_t>(taken.size() / 2), taken.end());
  return taken[taken.size() / 2];
}

std::string httpRequest(const Address& address, bool last) {
  char host[INET6_ADDRSTRLEN] = "";
  const bool v6 = address.storage.ss_family == AF_INET6;
  const void* raw = v6 ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_addr)
                       : static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_addr);
  inet_ntop(address.storage.ss_family, raw, host, sizeof host);
  return std::string("GET /bench HTTP/1.1\r\nHost: ") + (v6 ? "[" : "") + host + (v6 ? "]" : "") + ":" +
         std::to_string(ntohs(reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port)) + "\r\nUser-Agent: sluice-load\r\nAccept: */*\r\n" +
         (last ? "Connection: close\r\n" : "") + "\r\n";
}

// One HTTP request after another on each lane, on a kept connection or on a new one each. An answer is whole with its 64 bytes of body.
double http(const Address& address, double duration, int lanes, bool fresh) {
  const int loop = epoll_create1(EPOLL_CLOEXEC);
  const std::string request = httpRequest(address, fresh);
  std::unordered_map<int, std::string> answers;
  auto begin = [&] {
    const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket");
    setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    const linger hard{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0 && errno != EINPROGRESS) fail("connect");
    epoll_event event{};
    event.events = EPOLLOUT;
    event.data.fd = fd;
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
    answers.emplace(fd, std::string{});
  };
  for (int i = 0; i < lanes; ++i) begin();
  std::array<epoll_event, 256> ready{};
  const auto start = Clock::now();
  long done = 0;
  while (seconds(start) < duration) {
    const int count = epoll_wait(loop, ready.data(), static_cast<int>(ready.size()), 100);
    for (int i = 0; i < count; ++i) {
      const int fd = ready[static_cast<std::size_t>(i)].data.fd;
      if ((ready[static_cast<std::size_t>(i)].events & EPOLLOUT) != 0) {
        writeAll(fd, request.data(), request.size());
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        epoll_ctl(loop, EPOLL_CTL_MOD, fd, &event);
        continue;
      }
      const ssize_t got = recv(fd, chunk.data(), chunk.size(), MSG_DONTWAIT);
      if (got < 0 && errno == EAGAIN) continue;
      if (got <= 0) fail("answer");
      std::string& answer = answers[fd];
      answer.append(chunk.data(), static_cast<std::size_t>(got));
      const std::size_t end = answer.find("\r\n\r\n");
      if (end == std::string::npos || answer.size() < end + 4 + 64) continue;
      if (!answer.starts_with("HTTP/1.1 200")) {
        std::fprintf(stderr, "%s\n", answer.c_str());
        std::exit(1);
      }
      ++done;
      answer.clear();
      if (fresh) {
        close(fd);
        answers.erase(fd);
        begin();
      } else {
        writeAll(fd, request.data(), request.size());
      }
    }
  }
  return static_cast<double>(done) / seconds(start);
}

int connectDatagrams(const Address& address) {
  const int fd = openDatagrams(address);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0) fail("connect");
  return fd;
}

// As many under way on each lane as a batch holds: what comes back goes out again. Where nothing comes back for a while, what was under way is lost, and the lane begins anew.
double datagramsThere(const Address& address, double duration, int lanes, std::size_t size, double& lostShare) {
  const int loop = epoll_create1(EPOLL_CLOEXEC);
  const auto batch = std::make_unique<Batch>();
  struct Lane {
    std::size_t underWay = 0;
    Clock::time_point heard{};
  };
  std::unordered_map<int, Lane> all;
  double back = 0, sent = 0, lost = 0;
  const auto send = [&](int fd, Lane& lane, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) batch->headers[i].msg_hdr.msg_namelen = 0, batch->headers[i].msg_hdr.msg_name = nullptr;
    const int gone = batch->send(fd, count, size);
    if (gone <= 0) return;
    lane.underWay += static_cast<std::size_t>(gone);
    sent += gone;
  };
  for (int i = 0; i < lanes; ++i) {
    const int fd = connectDatagrams(address);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
    Lane& lane = all[fd];
    lane.heard = Clock::now();
    send(fd, lane, Batch::kMost);
  }
  std::array<epoll_event, 64> ready{};
  const auto start = Clock::now();
  for (auto now = start; std::chrono::duration<double>(now - start).count() < duration; now = Clock::now()) {
    const int count = epoll_wait(loop, ready.data(), static_cast<int>(ready.size()), 50);
    for (int i = 0; i < count; ++i) {
      const int fd = ready[static_cast<std::size_t>(i)].data.fd;
      const int got = batch->receive(fd, false);
      if (got <= 0) continue;
      Lane& lane = all[fd];
      back += got;
      lane.heard = now;
      lane.underWay -= std::min(lane.underWay, static_cast<std::size_t>(got));
      send(fd, lane, Batch::kMost - lane.underWay);
    }
    for (auto& [fd, lane] : all) {
      if (std::chrono::duration<double>(now - lane.heard).count() < 0.2) continue;
      lost += static_cast<double>(lane.underWay);
      lane.underWay = 0;
      lane.heard = now;
      send(fd, lane, Batch::kMost);
    }
  }
  lostShare = sent == 0 ? 1 : lost / sent;
  return 2 * back / seconds(start);
}

int idleDatagrams(const Address& address, int lanes) {
  std::vector<int> held;
  for (int i = 0; i < lanes; ++i) {
    const int fd = connectDatagrams(address);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    const timeval patience{5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    writeAll(fd, chunk.data(), kRequest);
    readAll(fd, kRequest);
    held.push_back(fd);
  }
  std::printf("%zu\n", held.size());
  std::fflush(stdout);
  char byte = 0;
  while (read(0, &byte, 1) > 0) {
  }
  return 0;
}

int idle(const Address& address, int lanes) {
  std::vector<int> held;
  for (int i = 0; i < lanes; ++i) {
    const int fd = connectBlocking(address);
    writeAll(fd, "R", 1);
    writeAll(fd, chunk.data(), kRequest);
    readAll(fd, kAnswer);
    held.push_back(fd);
  }
  std::printf("%zu\n", held.size());
  std::fflush(stdout);
  char byte = 0;
  while (read(0, &byte, 1) > 0) {
  }
  return 0;
}

}  // namespace

int main(int count, char** words) {
  std::signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (count < 4) return 2;
  const std::string verb = words[1];
  const Address address = parseAddress(words[2], std::atoi(words[3]));
  if (verb == "serve") serve(address);
  if (count < 6) return 2;
  const double duration = std::atof(words[4]);
  const int lanes = std::atoi(words[5]);
  if (verb == "idle") return idle(address, lanes);
  if (verb == "udp-idle") return idleDatagrams(address, lanes);
  if (verb == "udp-64" || verb == "udp-1200") {
    double lost = 0;
    const double rate = datagramsThere(address, duration, lanes, verb == "udp-64" ? 64 : 1200, lost);
    std::printf("%.3f %.0f\n", rate, lost * 1e6);
    return 0;
  }
  double value = 0;
  if (verb == "bulk") value = bulk(address, duration, lanes);
  else if (verb == "connect") value = connections(address, duration, lanes);
  else if (verb == "request") value = requests(address, duration, lanes);
  else if (verb == "rtt") value = roundTrip(address, duration);
  else if (verb == "http") value = http(address, duration, lanes, false);
  else if (verb == "http-connect") value = http(address, duration, lanes, true);
  else return 2;
  std::printf("%.3f\n", value);
  return 0;
}
