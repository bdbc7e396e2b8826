// sluice-confine --write DIR… [--read DIR… | --read-all] -- COMMAND ARGS…
//
// Runs COMMAND with nothing it does not need, for programs that parse hostile bytes (the inspector):
//   - no_new_privs, no capability, an empty bounding set where we may empty it;
//   - Landlock: writing beneath the --write folders (and to /dev/null) only; reading and executing everywhere, or with --read only beneath
//     those folders and the system's libraries; no TCP; no signals or abstract sockets to the outside;
//   - seccomp: no sockets at all (Landlock knows no UDP, and a session bus reached through a unix socket would run anything for us), no
//     look into other processes, no namespaces, no io_uring (which would go around both).
// Descriptors it was given, such as the pipes of standard input and output, stay usable.
//
// Landlock is best effort: a kernel without it (before 5.13, or not enabled) runs the command with the rest, silently, since a capture that
// cannot be looked at at all would serve nobody. A folder that is not there, or a kernel that has Landlock and refuses, ends with 125.
// Exit status otherwise: the command's; 126/127 when it cannot be run or found; 2 for wrong arguments.
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "confine/landlock.h"

namespace {

void dropCapabilities() {
  for (int capability = 0; capability < 64; ++capability) {
    if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[2]{};
  syscall(SYS_capset, &header, none);
}

// A list of what is refused, not of what is allowed: the command is a whole JavaScript engine, and those grow.
bool refuseSystemCalls() {
#if defined(__x86_64__)
  constexpr std::uint32_t kMachine = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
  constexpr std::uint32_t kMachine = AUDIT_ARCH_AARCH64;
#else
  return true;
#endif
#if defined(__x86_64__) || defined(__aarch64__)
  // io_uring is "not there" rather than forbidden: that is the answer programs know how to live with.
  static constexpr std::pair<std::uint32_t, std::uint32_t> kRefused[] = {
      {SYS_socket, EACCES},
      {425, ENOSYS}, {426, ENOSYS}, {427, ENOSYS},  // io_uring_setup, _enter, _register
      {SYS_ptrace, EPERM}, {SYS_process_vm_readv, EPERM}, {SYS_process_vm_writev, EPERM}, {438, EPERM},  // pidfd_getfd
      {SYS_unshare, EPERM}, {SYS_setns, EPERM}, {SYS_mount, EPERM}, {SYS_umount2, EPERM}, {SYS_pivot_root, EPERM}, {SYS_chroot, EPERM},
      {SYS_bpf, EPERM}, {SYS_perf_event_open, EPERM}, {SYS_userfaultfd, EPERM}, {SYS_keyctl, EPERM}, {SYS_add_key, EPERM}, {SYS_request_key, EPERM},
  };
  std::vector<sock_filter> program{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kMachine, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
#if defined(__x86_64__)
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000U, 0, 1),  // the x32 numbers name the same calls once more
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
#endif
  };
  for (const auto& [number, error] : kRefused) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0 || errno == EINVAL;  // EINVAL: a kernel without seccomp filters
#endif
}

int fail(const char* what, int status) {
  std::fprintf(stderr, "sluice-confine: %s: %s\n", what, std::strerror(errno));
  return status;
}

int usage() {
  std::fputs("usage: sluice-confine --write DIR... [--read DIR... | --read-all] -- COMMAND ARGS...\n", stderr);
  return 2;
}

}  // namespace

int main(int count, char** words) {
  sluice::LandlockWish wish;
  bool everywhere = false;
  int at = 1;
  for (; at < count && std::string_view(words[at]) != "--"; ++at) {
    const std::string_view word = words[at];
    if (word == "--read-all") {
      everywhere = true;
    } else if ((word == "--write" || word == "--read") && at + 1 < count) {
      (word == "--write" ? wish.write : wish.read).emplace_back(words[++at]);
    } else {
      return usage();
    }
  }
  if (at + 1 >= count || wish.write.empty() || (everywhere && !wish.read.empty())) return usage();
  char** const command = words + at + 1;

  dropCapabilities();
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail("no_new_privs", 125);
  if (!sluice::applyLandlock(wish) && errno != ENOSYS && errno != EOPNOTSUPP) return fail("landlock", 125);
  if (!refuseSystemCalls()) return fail("seccomp", 125);
  execvp(command[0], command);
  // At once, without what else runs at an exit: a sanitizer's search for leaks would ptrace this process, which is refused by now.
  _exit(fail(command[0], errno == ENOENT ? 127 : 126));
}
