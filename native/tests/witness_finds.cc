// The witness, forked and sealed as the relay has it, names real programs behind real connections.
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <climits>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "capture/text.h"
#include "capture_fixture.h"
#include "check.h"
#include "witness/witness.h"

using namespace sluice;

namespace {

void upLoopback() {
  const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  CHECK(ioctl(socket, SIOCGIFFLAGS, &request) == 0);
  request.ifr_flags |= IFF_UP;
  CHECK(ioctl(socket, SIOCSIFFLAGS, &request) == 0);
  close(socket);
}

struct Listener {
  int socket;
  Endpoint address;
};

Listener listenOn(const std::string& address) {
  Listener listener{-1, endpoint(address, 0)};
  listener.socket = ::socket(listener.address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(listener.socket >= 0);
  const int off = 0;
  if (!listener.address.v4()) setsockopt(listener.socket, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  CHECK(bind(listener.socket, listener.address.raw(), listener.address.size()) == 0);
  CHECK(listen(listener.socket, 64) == 0);
  socklen_t size = sizeof listener.address.storage;
  CHECK(getsockname(listener.socket, reinterpret_cast<sockaddr*>(&listener.address.storage), &size) == 0);
  return listener;
}

struct Accepted {
  int socket;
  Endpoint client, server;
};

Accepted acceptOn(const Listener& listener) {
  Accepted result{};
  socklen_t size = sizeof result.client.storage;
  result.socket = accept4(listener.socket, reinterpret_cast<sockaddr*>(&result.client.storage), &size, SOCK_CLOEXEC);
  CHECK(result.socket >= 0);
  size = sizeof result.server.storage;
  CHECK(getsockname(result.socket, reinterpret_cast<sockaddr*>(&result.server.storage), &size) == 0);
  return result;
}

WitnessAnswer ask(int channel, const Endpoint& client, const Endpoint& server, bool decides = false) {
  static std::uint64_t token = 100;
  CHECK(sendQuestion(channel, {++token, client, server, false, decides}));
  pollfd waiting{channel, POLLIN, 0};
  CHECK_EQ(poll(&waiting, 1, 30'000), 1);
  bool ended = false;
  const auto answer = receiveAnswer(channel, ended);
  CHECK(answer.has_value() && !ended);
  CHECK_EQ(answer->token, token);
  return *answer;
}

pid_t spawn(const std::vector<std::string>& command, uid_t uid = 0) {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    if (uid != 0 && (setgid(uid) != 0 || setuid(uid) != 0)) _exit(3);
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a check that fails ends us alone
    std::vector<char*> words;
    for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    execv(words[0], words.data());
    _exit(4);
  }
  return child;
}

void reap(pid_t child) {
  kill(child, SIGKILL);
  CHECK_EQ(waitpid(child, nullptr, 0), child);
}

std::string line(const std::string& status, const std::string& key) {
  const std::size_t at = status.find(key + ":\t");
  CHECK(at != std::string::npos);
  return status.substr(at + key.size() + 2, status.find('\n', at) - at - key.size() - 2);
}

std::string statusOf(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  return {std::istreambuf_iterator<char>(file), {}};
}

// The one child that is not ours by spawn.
pid_t witnessPid() {
  std::ifstream file("/proc/self/task/" + std::to_string(getpid()) + "/children");
  pid_t pid = 0;
  CHECK(static_cast<bool>(file >> pid));
  return pid;
}

void namesPrograms(int channel, const std::string& listenAt, const std::string& connectTo, const std::string& expected) {
  const Listener listener = listenOn(listenAt);
  const pid_t child = spawn({"/usr/bin/socat", "-u", "OPEN:/dev/zero", connectTo + ":" + std::to_string(listener.address.port())}, 1);
  const Accepted accepted = acceptOn(listener);
  CHECK_EQ(accepted.client.address(), expected);
  const auto answer = ask(channel, accepted.client, accepted.server);
  CHECK(answer.program.has_value());
  CHECK_EQ(answer.program->pid, child);
  CHECK_EQ(answer.program->ppid, getpid());
  CHECK_EQ(answer.program->uid, 1U);
  CHECK_EQ(answer.program->user, "daemon");
  CHECK_EQ(answer.program->name, "socat");
  char path[PATH_MAX];
  CHECK(realpath("/usr/bin/socat", path) != nullptr);
  CHECK_EQ(answer.program->path, std::string(path));
  CHECK_EQ(answer.program->cmdline.size(), 4U);
  CHECK_EQ(answer.program->cmdline[2], "OPEN:/dev/zero");
  reap(child);
  close(accepted.socket);
  close(listener.socket);
}

// A program that calls itself what would upset a terminal or a reader of JSON.
void survivesHostileNames(int channel) {
  const Listener listener = listenOn("127.0.0.1");
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    const std::string port = std::to_string(listener.address.port());
    execl("/proc/self/exe", "evil\n\x1b[31m\xff\"\\", "--connect", port.c_str(), "", "tail\x01", nullptr);
    _exit(4);
  }
  const Accepted accepted = acceptOn(listener);
  char ready;
  CHECK_EQ(recv(accepted.socket, &ready, 1, 0), 1);  // it has taken its name
  const auto answer = ask(channel, accepted.client, accepted.server);
  CHECK(answer.program.has_value());
  CHECK_EQ(answer.program->pid, child);
  CHECK_EQ(answer.program->name, "a\n\x1b]0;\xff) R 7");
  CHECK_EQ(answer.program->ppid, getpid());  // not 7, which the name pretends
  CHECK_EQ(answer.program->cmdline.size(), 5U);
  CHECK_EQ(answer.program->cmdline[0], "evil\n\x1b[31m\xff\"\\");
  CHECK_EQ(answer.program->cmdline[3], "");
  std::string json;
  appendJsonString(json, answer.program->cmdline[0]);
  CHECK_EQ(json, "\"evil\\u000a\\u001b[31m\xEF\xBF\xBD\\\"\\\\\"");
  reap(child);
  close(accepted.socket);
  close(listener.socket);
}

int connectAsHostile(const char* port) {
  prctl(PR_SET_NAME, "a\n\x1b]0;\xff) R 7");
  const Endpoint server = endpoint("127.0.0.1", static_cast<std::uint16_t>(std::atoi(port)));
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  if (connect(socket, server.raw(), server.size()) != 0 || send(socket, "x", 1, 0) != 1) return 1;
  pause();
  return 0;
}

// Connections opened one after another by one program: each is found, though descriptors and inodes are new every time.
void followsChurn(int channel) {
  const Listener listener = listenOn("127.0.0.1");
  for (int round = 0; round < 200; ++round) {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(socket, listener.address.raw(), listener.address.size()) == 0);
    const Accepted accepted = acceptOn(listener);
    const auto answer = ask(channel, accepted.client, accepted.server);
    CHECK(answer.program.has_value());
    CHECK_EQ(answer.program->pid, getpid());
    close(socket);
    close(accepted.socket);
  }
  close(listener.socket);
}

void nobodyIsNobody(int channel) {
  // Such a flow is not there at all.
  CHECK(!ask(channel, endpoint("127.0.0.1", 4), endpoint("127.0.0.1", 5)).program);
  // Only the listener has the client's port: the kernel offers it, and it is not the client.
  const Listener listener = listenOn("127.0.0.1");
  CHECK(!ask(channel, listener.address, endpoint("127.0.0.1", 5)).program);
  CHECK(!ask(channel, endpoint("::1", 4), endpoint("::1", 5)).program);
  // The client has closed: nobody to name, and no lie about root.
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(connect(socket, listener.address.raw(), listener.address.size()) == 0);
  const Accepted accepted = acceptOn(listener);
  close(socket);
  const auto answer = ask(channel, accepted.client, accepted.server);
  CHECK(!answer.program || (answer.program->pid == 0 && answer.program->name.empty()));
  close(accepted.socket);
  close(listener.socket);
}

void holdsLittle(pid_t witness) {
  const std::string status = statusOf(witness);
  const std::string kept = "0000000000080004";  // CAP_SYS_PTRACE (19), CAP_DAC_READ_SEARCH (2)
  CHECK_EQ(line(status, "Name"), "sluice-witness");
  CHECK_EQ(line(status, "CapEff"), kept);
  CHECK_EQ(line(status, "CapPrm"), kept);
  CHECK_EQ(line(status, "CapInh"), "0000000000000000");
  CHECK_EQ(line(status, "CapBnd"), "0000000000000000");
  CHECK_EQ(line(status, "CapAmb"), "0000000000000000");
  CHECK_EQ(line(status, "NoNewPrivs"), "1");
  CHECK_EQ(line(status, "Seccomp"), "2");
  CHECK_EQ(line(status, "Uid"), "65534\t65534\t65534\t65534");
  errno = 0;
  CHECK_EQ(getpriority(PRIO_PROCESS, static_cast<id_t>(witness)), -10);
  int descriptors = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(witness) + "/fd")) {
    const std::string target = std::filesystem::read_symlink(entry.path());
    CHECK(target == "/dev/null" || target.starts_with("socket:["));
    ++descriptors;
  }
  CHECK(descriptors <= 5);  // three standard ones, the channel, netlink
}

// Where a flow goes is not left to chance on a machine with much to look through: what is newer than the client, and thus looked at first, has 120,000 sockets.
void decidesAmongMany(int channel) {
  constexpr int kHoarders = 8, kEach = 15'000;
  const Listener listener = listenOn("127.0.0.1");
  const pid_t client = spawn({"/usr/bin/socat", "-u", "OPEN:/dev/zero", "TCP4:127.0.0.1:" + std::to_string(listener.address.port())});
  const Accepted accepted = acceptOn(listener);
  std::vector<pid_t> hoarders;
  for (int i = 0; i < kHoarders; ++i) {
    int ready[2];
    CHECK(pipe2(ready, O_CLOEXEC) == 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      rlimit files{};
      getrlimit(RLIMIT_NOFILE, &files);
      files.rlim_cur = files.rlim_max;
      setrlimit(RLIMIT_NOFILE, &files);
      for (int copies = 0; copies < kEach && dup(listener.socket) >= 0; ++copies) {}
      const char done = 1;
      if (write(ready[1], &done, 1) != 1) _exit(1);
      for (;;) pause();
    }
    close(ready[1]);
    char done = 0;
    CHECK_EQ(read(ready[0], &done, 1), 1);
    close(ready[0]);
    hoarders.push_back(child);
  }
  const auto answer = ask(channel, accepted.client, accepted.server, true);
  CHECK(answer.program.has_value());
  CHECK_EQ(answer.program->pid, client);
  for (const pid_t each : hoarders) reap(each);
  reap(client);
  close(accepted.socket);
  close(listener.socket);
}

}  // namespace

int main(int count, char** words) {
  if (count > 2 && std::string(words[1]) == "--connect") return connectAsHostile(words[2]);
  needRoot();
  CHECK(unshare(CLONE_NEWNET) == 0);
  upLoopback();
  const int leaked = open("/etc/hostname", O_RDONLY);  // without CLOEXEC: the witness must not keep it
  CHECK(leaked >= 0);
  const int channel = startWitness();
  CHECK(channel >= 0);
  CHECK((fcntl(channel, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((fcntl(channel, F_GETFL) & O_NONBLOCK) != 0);
  const pid_t witness = witnessPid();
  bool ended = true;
  CHECK(!receiveAnswer(channel, ended) && !ended);

  namesPrograms(channel, "127.0.0.1", "TCP4:127.0.0.1", "127.0.0.1");
  namesPrograms(channel, "::1", "TCP6:[::1]", "::1");
  namesPrograms(channel, "::", "TCP6:[::ffff:127.0.0.1]", "::ffff:127.0.0.1");
  survivesHostileNames(channel);
  followsChurn(channel);
  nobodyIsNobody(channel);
  decidesAmongMany(channel);
  holdsLittle(witness);

  // A message that is no question is passed over.
  CHECK_EQ(send(channel, "nonsense", 8, 0), 8);
  namesPrograms(channel, "127.0.0.1", "TCP4:127.0.0.1", "127.0.0.1");

  // It ends with its channel.
  shutdown(channel, SHUT_WR);
  int status = 0;
  CHECK_EQ(waitpid(witness, &status, 0), witness);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(!receiveAnswer(channel, ended) && ended);
  close(channel);

  // And is noticed when it dies.
  const int second = startWitness();
  CHECK(second >= 0);
  const pid_t killed = witnessPid();
  kill(killed, SIGKILL);
  CHECK_EQ(waitpid(killed, nullptr, 0), killed);
  CHECK(!receiveAnswer(second, ended) && ended);
  CHECK(!sendQuestion(second, {1, endpoint("127.0.0.1", 1), endpoint("127.0.0.1", 2)}));
  return passed();
}
