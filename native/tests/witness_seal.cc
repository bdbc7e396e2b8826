// What the sealed witness tries and may not, although it holds two mighty capabilities.
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <string>

#include "capture_fixture.h"
#include "check.h"
#include "witness/seal.h"

namespace {

struct Report {
  char what[64];
  int error;  // 0: it could
};

template <typename Act>
void attempt(int channel, const char* what, Act act) {
  Report report{};
  std::strncpy(report.what, what, sizeof report.what - 1);
  errno = 0;
  if (act() < 0) report.error = errno;
  if (send(channel, &report, sizeof report, 0) != sizeof report) _exit(2);
}

}  // namespace

int main() {
  needRoot();
  const Folder folder;
  const std::string secret = folder.path() + "/secret", fresh = folder.path() + "/fresh";
  const int file = open(secret.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0000);
  CHECK(file >= 0);
  close(file);
  CHECK(chmod(folder.path().c_str(), 0777) == 0);

  const pid_t victim = fork();
  CHECK(victim >= 0);
  if (victim == 0) {
    for (;;) pause();
  }
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    const int channel = ends[1];
    if (!sluice::sealWitness(channel)) _exit(3);
    static char memory[16];
    attempt(channel, "read", [&] { return open(secret.c_str(), O_RDONLY); });
    attempt(channel, "look", [&] { char path[64]; return static_cast<int>(readlink(("/proc/" + std::to_string(victim) + "/exe").c_str(), path, sizeof path)); });
    attempt(channel, "write", [&] { return open(secret.c_str(), O_WRONLY); });
    attempt(channel, "create", [&] { return open(fresh.c_str(), O_RDONLY | O_CREAT, 0600); });
    attempt(channel, "truncate", [&] { return truncate(secret.c_str(), 0); });
    attempt(channel, "unlink", [&] { return unlink(secret.c_str()); });
    attempt(channel, "chmod", [&] { return chmod(secret.c_str(), 0777); });
    attempt(channel, "tcp", [&] { return socket(AF_INET, SOCK_STREAM, 0); });
    attempt(channel, "unix", [&] { return socket(AF_UNIX, SOCK_STREAM, 0); });
    attempt(channel, "raw", [&] { return socket(AF_PACKET, SOCK_RAW, 0); });
    attempt(channel, "ptrace", [&] { return static_cast<int>(ptrace(PTRACE_ATTACH, victim, nullptr, nullptr)); });
    attempt(channel, "memory", [&] {
      const iovec here{memory, sizeof memory}, there{memory, sizeof memory};
      return static_cast<int>(process_vm_readv(victim, &here, 1, &there, 1, 0));
    });
    attempt(channel, "memory-file", [&] { return open(("/proc/" + std::to_string(victim) + "/mem").c_str(), O_RDWR); });
    attempt(channel, "kill", [&] { return kill(victim, SIGKILL); });
    attempt(channel, "fork", [&] { return fork(); });
    attempt(channel, "exec", [&] { return execl("/bin/true", "true", nullptr); });
    attempt(channel, "root", [&] { return setuid(0); });
    attempt(channel, "namespace", [&] { return unshare(CLONE_NEWUSER); });
    attempt(channel, "netlink", [&] { return socket(AF_NETLINK, SOCK_DGRAM, 0); });
    _exit(0);
  }
  close(ends[1]);
  int reports = 0;
  for (Report report; recv(ends[0], &report, sizeof report, 0) == sizeof report; ++reports) {
    const std::string what = report.what;
    const bool may = what == "read" || what == "look" || what == "netlink";
    if (may != (report.error == 0)) std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(report.error));
    CHECK_EQ(report.error == 0, may);
    if (!may) CHECK_EQ(report.error, EPERM);
  }
  CHECK_EQ(reports, 19);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK_EQ(waitpid(victim, nullptr, WNOHANG), 0);  // unharmed
  kill(victim, SIGKILL);
  CHECK_EQ(waitpid(victim, nullptr, 0), victim);
  CHECK(access(fresh.c_str(), F_OK) != 0);
  return passed();
}
