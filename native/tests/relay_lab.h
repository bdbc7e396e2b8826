// A laboratory for the relay: network namespaces of its own, the interception rules, the relay as the helper would start it, and sockets
// that do one thing at a time. Every wait is for an event and has a limit, so that a broken relay fails and does not hang.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "capture_reader.h"
#include "check.h"
#include "control/json.h"
#include "net/descriptor.h"
#include "net/endpoint.h"

extern char** environ;

namespace lab {

using sluice::Descriptor;
using sluice::Endpoint;
using sluice::Json;

constexpr int kPatience = 30;  // seconds until a wait is a failure; generous, for sanitizers on a busy machine
constexpr uid_t kPerson = 65534;
constexpr std::uint32_t kMark = 0x80000000;

inline std::int64_t milliseconds() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Runs a program to its end; it must succeed.
inline void run(const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  for (const auto& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t pid = 0;
  CHECK_EQ(posix_spawnp(&pid, arguments[0], nullptr, nullptr, arguments.data(), environ), 0);
  int status = 0;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  if (status != 0) {
    std::string text;
    for (const auto& word : words) text += word + " ";
    check::fail(__FILE__, __LINE__, "failed: " + text);
  }
}
inline void ip(const std::string& line) {
  std::vector<std::string> words{"ip"};
  std::istringstream in(line);
  for (std::string word; in >> word;) words.push_back(word);
  run(words);
}

// ---- namespaces

// A network namespace: work done inside() leaves its sockets there.
class Namespace {
 public:
  Namespace() {
    std::thread([this] {
      CHECK_EQ(unshare(CLONE_NEWNET), 0);
      fd_.reset(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
      ip("link set lo up");
    }).join();
    CHECK(fd_);
  }
  void inside(const std::function<void()>& work) const {
    std::thread([&] {
      CHECK_EQ(setns(fd_.get(), CLONE_NEWNET), 0);
      work();
    }).join();
  }
  [[nodiscard]] std::string path() const { return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(fd_.get()); }

 private:
  Descriptor fd_;
};

// The rules of the project in their least form: SYNs and datagrams to ports 8000-8999, of UDP to 53 too, forwarded from cl0 or of programs of
// this machine. Without fwd_port nothing new is taken: a gate that drains.
// `hold`: SYNs go to the log and are dropped, until the relay sends them again with its released mark.
inline std::string rules(bool exempt, bool hold) {
  const std::string held = hold ? "tcp flags & (fin|syn|rst|ack) == syn log group 7701 snaplen 160 drop\n" : "";
  return R"(table inet lab {
  chain pre { type filter hook prerouting priority filter + 50; policy accept;
    meta l4proto udp socket transparent 1 jump divert_udp
    tcp flags & (fin|syn|rst|ack) != syn socket transparent 1 meta mark set meta mark | 0x02000000 accept
    meta l4proto { icmp, icmpv6 } socket transparent 1 meta mark set meta mark | 0x02000000 accept
    iifname "lo" meta mark & 0x90000000 == 0x90000000 tcp flags & (fin|syn|rst|ack) == syn jump take_lo
    iifname "lo" ct direction original meta mark & 0x10000000 == 0x10000000 jump take_lo
    iifname "cl0" udp dport { 53, 8000-8999 } fib daddr type local ct direction original ct mark & 0x02000000 == 0x02000000 jump take
    iifname "cl0" tcp flags & (fin|syn|rst|ack) != syn ct direction original ct mark & 0x02000000 == 0x02000000 jump take
    iifname "cl0" jump fwd_port
  }
  chain divert_udp {
    meta nfproto ipv4 udp dport { 53, 8000-8999 } tproxy ip to 127.0.0.1:50080 meta mark set meta mark | 0x02000000 accept
    meta nfproto ipv6 udp dport { 53, 8000-8999 } tproxy ip6 to [::1]:50080 meta mark set meta mark | 0x02000000 accept
    meta mark set meta mark | 0x02000000 accept
  }
  chain fwd_port {
    tcp flags & (fin|syn|rst|ack) == syn tcp dport 8000-8999 ct mark set ct mark | 0x02000000 jump take
    udp dport { 53, 8000-8999 } ct mark set ct mark | 0x02000000 jump take
  }
  chain take {
    )" + held + R"(
    meta nfproto ipv4 meta l4proto { tcp, udp } tproxy ip to 127.0.0.1:50080 meta mark set meta mark | 0x02000000 accept
    meta nfproto ipv6 meta l4proto { tcp, udp } tproxy ip6 to [::1]:50080 meta mark set meta mark | 0x02000000 accept
  }
  chain take_lo {
    )" + (hold ? "meta mark & 0x80000000 == 0 " + held : "") + R"(
    meta nfproto ipv4 meta l4proto { tcp, udp } tproxy ip to 127.0.0.1:50080 accept
    meta nfproto ipv6 meta l4proto { tcp, udp } tproxy ip6 to [::1]:50080 accept
    meta l4proto tcp reject with tcp reset
    drop
  }
  chain out { type route hook output priority mangle; policy accept;
    meta mark & 0x90000000 == 0x90000000 ct mark set ct mark | 0x10000000 return
    meta mark & 0x80000000 == 0x80000000 ct direction original fib daddr type local fib saddr type != local ct mark set ct mark | 0x80000000
    meta l4proto udp meta mark & 0x80000000 == 0x80000000 ct direction original ct mark set ct mark | 0x02000000
    )" + std::string(exempt ? "meta mark & 0x80000000 == 0x80000000 return\n" : "") +
         R"(
    ct direction reply ct mark & 0x80000000 == 0x80000000 meta mark set meta mark | 0x10000000 return
    ct direction original ct mark & 0x10000000 == 0x10000000 meta mark set meta mark | 0x10000000 return
    ct mark & 0x10000000 == 0x10000000 return
    tcp flags & (fin|syn|rst|ack) == syn tcp dport 8000-8999 jump out_take
    udp dport { 53, 8000-8999 } ct state new jump out_take
    udp dport { 53, 8000-8999 } ct direction original ct mark & 0x02000000 == 0x02000000 jump out_take
  }
  chain out_take { ct mark set ct mark | 0x10000000
    meta mark set meta mark | 0x10000000
  }
}
)";
}

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/sluice-lab-XXXXXX";
    CHECK(mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline void applyTable(bool exempt = true, bool hold = false) {
  const Folder folder;
  const std::string file = folder.path() + "/rules";
  std::ofstream(file) << rules(exempt, hold);
  run({"nft", "-f", file});
}
inline void applyRules(bool exempt = true, bool hold = false) {
  applyTable(exempt, hold);
  for (const std::string family : {"-4", "-6"}) {
    ip(family + " rule add pref 0 fwmark 0x10000000/0x10000000 lookup 7701 protocol 77");
    ip(family + " rule add pref 0 iif lo fwmark 0x02000000/0x02000000 lookup main protocol 77");
    ip(family + " rule add pref 0 fwmark 0x02000000/0x02000000 lookup 7701 protocol 77");
    ip(family + " route replace local default dev lo table 7701 protocol 77");
  }
}

// One machine with servers of its own on 203.0.113.2 and 2001:db8:2::2, whose programs' connections are intercepted. The calling
// process is in it from here on.
inline void becomeMachine(bool exempt = true, bool hold = false) {
  needRoot();
  CHECK_EQ(unshare(CLONE_NEWNET), 0);
  ip("link set lo up");
  ip("addr add 203.0.113.2/32 dev lo");
  ip("-6 addr add 2001:db8:2::2/128 dev lo nodad");
  applyRules(exempt, hold);
}

// client (198.51.100.2, 2001:db8:1::2) - gateway (this process; cl0, sv0) - server (203.0.113.2, 2001:db8:2::2).
struct Gateway {
  explicit Gateway(bool hold = false) {
    needRoot();
    CHECK_EQ(unshare(CLONE_NEWNET), 0);
    ip("link set lo up");
    client = std::make_unique<Namespace>();
    server = std::make_unique<Namespace>();
    join(*client, "cl0", "198.51.100", "2001:db8:1::");
    join(*server, "sv0", "203.0.113", "2001:db8:2::");
    for (const std::string file : {"ipv4/ip_forward", "ipv6/conf/all/forwarding"}) std::ofstream("/proc/sys/net/" + file) << "1";
    applyRules(true, hold);
  }
  static void join(const Namespace& other, const std::string& name, const std::string& v4, const std::string& v6) {
    ip("link add " + name + " type veth peer name p0 netns " + other.path());
    ip("addr add " + v4 + ".1/24 dev " + name);
    ip("-6 addr add " + v6 + "1/64 dev " + name + " nodad");
    ip("link set " + name + " up");
    other.inside([&] {
      ip("addr add " + v4 + ".2/24 dev p0");
      ip("-6 addr add " + v6 + "2/64 dev p0 nodad");
      ip("link set p0 up");
      ip("route add default via " + v4 + ".1");
      ip("-6 route add default via " + v6 + "1");
    });
  }
  std::unique_ptr<Namespace> client, server;
};

// ---- sockets

inline Endpoint at(const std::string& address, std::uint16_t port) {
  Endpoint endpoint;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&endpoint.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&endpoint.storage);
  if (inet_pton(AF_INET, address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
  } else {
    CHECK_EQ(inet_pton(AF_INET6, address.c_str(), &v6->sin6_addr), 1);
    v6->sin6_family = AF_INET6;
  }
  endpoint.setPort(port);
  return endpoint;
}

inline void patient(int fd) {
  const timeval limit{kPatience, 0};
  CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), 0);
}
inline Descriptor socketFor(const Endpoint& endpoint) {
  Descriptor fd{socket(endpoint.family(), SOCK_STREAM | SOCK_CLOEXEC, 0)};
  CHECK(fd);
  patient(fd.get());
  return fd;
}
inline Descriptor listenAt(const Endpoint& endpoint, int receiveBuffer = 0) {
  Descriptor fd = socketFor(endpoint);
  const int one = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (receiveBuffer != 0) setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &receiveBuffer, sizeof receiveBuffer);
  CHECK_EQ(bind(fd.get(), endpoint.raw(), endpoint.size()), 0);
  CHECK_EQ(listen(fd.get(), 4096), 0);
  return fd;
}
inline Descriptor acceptFrom(const Descriptor& listener, Endpoint* peer = nullptr) {
  Endpoint from;
  socklen_t length = sizeof from.storage;
  Descriptor fd{accept4(listener.get(), reinterpret_cast<sockaddr*>(&from.storage), &length, SOCK_CLOEXEC)};
  CHECK(fd);
  patient(fd.get());
  if (peer != nullptr) *peer = from;
  return fd;
}
inline Descriptor connectTo(const Endpoint& server, int receiveBuffer = 0) {
  Descriptor fd = socketFor(server);
  if (receiveBuffer != 0) setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &receiveBuffer, sizeof receiveBuffer);
  CHECK_EQ(connect(fd.get(), server.raw(), server.size()), 0);
  return fd;
}
inline Endpoint localEnd(const Descriptor& fd) {
  Endpoint endpoint;
  socklen_t length = sizeof endpoint.storage;
  CHECK_EQ(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&endpoint.storage), &length), 0);
  return endpoint;
}
inline void writeAll(const Descriptor& fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    CHECK(sent > 0);
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}
inline std::string readExactly(const Descriptor& fd, std::size_t size) {
  std::string bytes(size, '\0');
  std::size_t have = 0;
  while (have < size) {
    const ssize_t got = recv(fd.get(), bytes.data() + have, size - have, 0);
    CHECK(got > 0);
    have += static_cast<std::size_t>(got);
  }
  return bytes;
}
inline std::string readToEnd(const Descriptor& fd) {
  std::string bytes;
  char buffer[65536];
  for (;;) {
    const ssize_t got = recv(fd.get(), buffer, sizeof buffer, 0);
    CHECK(got >= 0);
    if (got == 0) return bytes;
    bytes.append(buffer, static_cast<std::size_t>(got));
  }
}
// The errno with which reading ends, 0 for an orderly end; what came before goes to `bytes`.
inline int readToError(const Descriptor& fd, std::string* bytes = nullptr) {
  char buffer[65536];
  for (;;) {
    const ssize_t got = recv(fd.get(), buffer, sizeof buffer, 0);
    if (got < 0) return errno;
    if (got == 0) return 0;
    if (bytes != nullptr) bytes->append(buffer, static_cast<std::size_t>(got));
  }
}
// The errno that tells a client that nobody is there. Where the relay's reset is quicker than the client, connect(2) says it, not the read after it.
inline int refusal(const Endpoint& server) {
  const Descriptor fd = socketFor(server);
  if (connect(fd.get(), server.raw(), server.size()) != 0) return errno;
  return readToError(fd);
}
inline void resetOnClose(const Descriptor& fd) {
  const linger abrupt{1, 0};
  CHECK_EQ(setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt), 0);
}
// Bytes that differ at each place and for each seed.
inline std::string noise(std::size_t size, std::uint64_t seed) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    byte = static_cast<char>(seed >> 56U);
  }
  return bytes;
}

// ---- the relay

struct RelaySettings {
  uid_t uid = kPerson;
  unsigned port = 50080, portTries = 0, threads = 1, maxFlows = 8192;
  bool ipv6 = true, attribute = false, payload = true, hold = false;
  std::string maxBytesPerFlow = "null";
  rlim_t descriptors = 0;  // hard limit; 0: this process's
  std::string folder;      // instead of one of its own
  bool udp = false;
  unsigned idle = 60;      // seconds, of every kind of UDP
  unsigned refuse = 0;     // a port of UDP
};

class Relay {
 public:
  explicit Relay(const RelaySettings& settings = {}, bool expectReady = true) {
    CHECK_EQ(chown(folder_.path().c_str(), settings.uid, settings.uid), 0);
    int ends[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    control_.reset(ends[0]);
    Descriptor theirs{ends[1]};
    setenv("TSAN_OPTIONS", "halt_on_error=1", 1);
    const rlimit low{settings.descriptors, settings.descriptors};
    pid_ = fork();
    CHECK(pid_ >= 0);
    if (pid_ == 0) {
      if (settings.descriptors != 0) setrlimit(RLIMIT_NOFILE, &low);
      if (theirs.get() == 3) fcntl(3, F_SETFD, 0);
      else dup2(theirs.get(), 3);
      execl(SLUICE_BUILD_FOLDER "/sluice-relay", "sluice-relay", static_cast<char*>(nullptr));
      _exit(127);
    }
    theirs.reset();  // so that a relay that could not be started is heard of at once
    const auto flag = [](bool value) { return std::string(value ? "true" : "false"); };
    send("{\"type\":\"start\",\"uid\":" + std::to_string(settings.uid) + ",\"gid\":" + std::to_string(settings.uid) + ",\"groups\":[" +
         std::to_string(settings.uid) + "],\"port\":" + std::to_string(settings.port) + ",\"portTries\":" + std::to_string(settings.portTries) +
         ",\"ipv6\":" + flag(settings.ipv6) + ",\"threads\":" + std::to_string(settings.threads) + ",\"uplinkMark\":" + std::to_string(kMark) +
         ",\"capture\":{\"folder\":" + sluice::quoteJson(settings.folder.empty() ? folder_.path() : settings.folder) + ",\"payload\":" +
         flag(settings.payload) + ",\"maxBytesPerFlow\":" + settings.maxBytesPerFlow + ",\"maxBytes\":null},\"attribute\":" + flag(settings.attribute) +
         (settings.hold ? ",\"hold\":{\"group\":7701,\"releasedMark\":2415919104}" : "") +
         ",\"maxFlows\":" + std::to_string(settings.maxFlows) + ",\"version\":\"0.0.0-test\",\"udp\":" + flag(settings.udp) + ",\"udpIdle\":{\"dns\":" + std::to_string(settings.idle) +
         ",\"quic\":" + std::to_string(settings.idle) + ",\"other\":" + std::to_string(settings.idle) + "},\"refuse\":[" +
         (settings.refuse == 0 ? "" : "{\"from\":" + std::to_string(settings.refuse) + ",\"to\":" + std::to_string(settings.refuse) + "}") + "]}");
    if (expectReady) {
      first_ = read();
      CHECK_EQ(text(first_, "type"), "ready");
    }
  }
  ~Relay() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] const Json& ready() const { return first_; }
  [[nodiscard]] std::string capture() const { return folder_.path() + "/capture-000001.pcapng"; }

  void send(const std::string& line) const {
    const std::string whole = line + "\n";
    CHECK_EQ(::send(control_.get(), whole.data(), whole.size(), MSG_NOSIGNAL), static_cast<ssize_t>(whole.size()));
  }
  // The next line, within the patience.
  Json read() {
    const std::int64_t until = milliseconds() + kPatience * 1000;
    for (;;) {
      if (const auto at = in_.find('\n'); at != std::string::npos) {
        const auto json = sluice::parseJson(std::string_view(in_).substr(0, at));
        CHECK(json.has_value());
        in_.erase(0, at + 1);
        if (text(*json, "type") == "warning") warnings_.push_back(text(*json, "code"));
        if (text(*json, "type") == "flows") udpFlows_ = number(*json, "udpFlows");
        return *json;
      }
      pollfd waiting{control_.get(), POLLIN, 0};
      CHECK(poll(&waiting, 1, static_cast<int>(std::max<std::int64_t>(0, until - milliseconds()))) == 1);
      char buffer[4096];
      const ssize_t got = ::recv(control_.get(), buffer, sizeof buffer, 0);
      CHECK(got > 0);  // the relay went away
      in_.append(buffer, static_cast<std::size_t>(got));
    }
  }
  Json await(const std::string& type) {
    for (;;) {
      Json json = read();
      if (text(json, "type") == type) return json;
    }
  }
  void awaitWarning(const std::string& code) {
    while (std::find(warnings_.begin(), warnings_.end(), code) == warnings_.end()) read();
  }
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }
  // Flows of UDP as last told, by whichever line was read; -1: nothing yet.
  [[nodiscard]] std::int64_t udpFlows() const { return udpFlows_; }
  Json ping() {
    send("{\"type\":\"ping\",\"id\":" + std::to_string(++pings_) + "}");
    Json pong = await("pong");
    CHECK_EQ(number(pong, "id"), pings_);
    return pong;
  }
  std::int64_t active() { return number(ping(), "active"); }
  // Until so many flows are active; the relay tells of changes by itself.
  void awaitActive(std::int64_t wanted) {
    while (active() != wanted) await("flows");
  }
  int exitStatus() {
    control_.reset();
    return waitStatus();
  }
  int waitStatus() {
    const std::int64_t until = milliseconds() + kPatience * 1000;
    int status = 0;
    while (waitpid(pid_, &status, WNOHANG) == 0) {
      CHECK(milliseconds() < until);
      usleep(2000);  // no event tells a parent with other children of this one's end
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }
  // Ends it as the gate does; what it recorded can be read then.
  std::vector<capture_reader::Item> finish() {
    send(R"({"type":"quit"})");
    CHECK_EQ(waitStatus(), 0);
    return capture_reader::read(capture_reader::readFile(capture()));
  }
  // The end of input, without a word.
  void hangUp() { control_.reset(); }

  static std::string text(const Json& json, std::string_view key) {
    const Json* value = json.member(key);
    return value != nullptr && value->text() != nullptr ? *value->text() : std::string{};
  }
  static std::int64_t number(const Json& json, std::string_view key) {
    const Json* value = json.member(key);
    CHECK(value != nullptr && value->integer() != nullptr);
    return *value->integer();
  }

 private:
  Folder folder_;
  Descriptor control_;
  std::string in_;
  pid_t pid_ = -1;
  Json first_;
  std::int64_t pings_ = 0, udpFlows_ = -1;
  std::vector<std::string> warnings_;
};

// A relay's own memory, without the recorder's: that is bounded by itself, and large pages (flag "hg", proc(5)) come and go by two mebibytes as the kernel finds them. Pages of programs do
// likewise when memory is scarce, so they do not count either.
inline std::int64_t ownKiB(pid_t pid) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/smaps");
  std::int64_t sum = 0, anonymous = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.starts_with("Anonymous:")) anonymous = std::stoll(line.substr(10));
    if (line.starts_with("VmFlags:") && line.find(" hg") == std::string::npos) sum += anonymous;
  }
  CHECK(sum > 0);
  return sum;
}

// ---- the record

inline std::vector<Json> facts(const std::vector<capture_reader::Item>& items, std::string_view kind) {
  std::vector<Json> found;
  for (const auto& item : items) {
    if (!item.isFact) continue;
    auto json = sluice::parseJson(item.json);
    CHECK(json.has_value());
    if (Relay::text(*json, "t") == kind) found.push_back(std::move(*json));
  }
  return found;
}
inline std::string payload(const std::vector<capture_reader::Item>& items, bool up) {
  std::string bytes;
  for (const auto& item : items) {
    if (!item.isFact && !item.wireshark && item.packet.up == up) bytes += item.packet.payload;
  }
  return bytes;
}
// The one flow of a session ended so.
inline void checkClosed(const std::vector<capture_reader::Item>& items, const std::string& reason, const std::string& by) {
  const auto closed = facts(items, "close");
  CHECK_EQ(closed.size(), 1U);
  CHECK_EQ(Relay::text(closed[0], "reason"), reason);
  CHECK_EQ(Relay::text(closed[0], "closedBy"), by);
}

}  // namespace lab
