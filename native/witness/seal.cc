#include "witness/seal.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

namespace sluice {

namespace {

constexpr uid_t kNobody = 65534;

bool keepCapabilities(std::uint64_t wanted) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  for (int half = 0; half < 2; ++half) data[half].permitted = data[half].effective = static_cast<std::uint32_t>(wanted >> (32 * half));
  return syscall(SYS_capset, &header, data) == 0;
}

void limit(__rlimit_resource_t resource, rlim_t value) {
  const rlimit both{value, value};
  setrlimit(resource, &both);
}

// An allow-list; everything else is EPERM rather than death, so that libc may ask for something odd and be told no.
bool installFilter() {
#if defined(__x86_64__)
  constexpr std::uint32_t kMachine = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
  constexpr std::uint32_t kMachine = AUDIT_ARCH_AARCH64;
#else
  return true;  // capabilities alone must do where nobody has tried the filter
#endif
#if defined(__x86_64__) || defined(__aarch64__)
  static constexpr std::uint32_t kAllowed[] = {
      SYS_read, SYS_pread64, SYS_readv, SYS_write, SYS_writev, SYS_close, SYS_fstat, SYS_newfstatat, SYS_lseek, SYS_getdents64,
      SYS_readlinkat, SYS_fcntl, SYS_recvfrom, SYS_recvmsg, SYS_sendto, SYS_sendmsg, SYS_ppoll, SYS_mmap, SYS_munmap, SYS_mprotect,
      SYS_mremap, SYS_madvise, SYS_brk, SYS_futex, SYS_sched_yield, SYS_clock_gettime, SYS_gettimeofday, SYS_clock_nanosleep, SYS_nanosleep,
      SYS_getpid, SYS_gettid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getrandom, SYS_uname, SYS_sigaltstack,
      SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_rt_sigreturn, SYS_restart_syscall, SYS_exit, SYS_exit_group,
#ifdef SYS_statx
      SYS_statx,
#endif
#if defined(__x86_64__)
      SYS_stat, SYS_lstat, SYS_readlink, SYS_poll, SYS_time,
#endif
  };
  const auto load = [](std::size_t offset) { return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)); };
  const auto result = [](std::uint32_t value) { return sock_filter BPF_STMT(BPF_RET | BPF_K, value); };
  constexpr std::size_t kNumber = offsetof(seccomp_data, nr), kArguments = offsetof(seccomp_data, args);
  constexpr std::uint32_t kNo = SECCOMP_RET_ERRNO | EPERM;

  std::vector<sock_filter> program{
      load(offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kMachine, 1, 0),
      result(kNo),
      load(kNumber),
  };
  for (const std::uint32_t number : kAllowed) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1));
    program.push_back(result(SECCOMP_RET_ALLOW));
  }
  // openat for reading only.
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 4));
  program.push_back(load(kArguments + 2 * sizeof(std::uint64_t)));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC, 1, 0));
  program.push_back(result(SECCOMP_RET_ALLOW));
  program.push_back(result(kNo));
  // Sockets of netlink only; there is no connect in the list, and a netlink socket without CAP_NET_ADMIN only asks.
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3));
  program.push_back(load(kArguments));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 1));
  program.push_back(result(SECCOMP_RET_ALLOW));
  program.push_back(result(kNo));

  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
#endif
}

}  // namespace

bool sealWitness(int channel) {
  // 0, 1 and 2 may be the helper's own channel: stray output must not reach it.
  const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int standard = 0; standard < 3; ++standard) {
    if (standard != channel && nothing >= 0) dup2(nothing, standard);
  }
  const auto closeRange = [](unsigned first, unsigned last) { return first > last || syscall(SYS_close_range, first, last, 0) == 0; };
  if (!closeRange(3, static_cast<unsigned>(channel) - 1) || !closeRange(static_cast<unsigned>(channel) + 1, ~0U)) {
    for (int other = 3; other < 65536; ++other) {  // before Linux 5.9
      if (other != channel) ::close(other);
    }
  }

  // The libraries behind account names are loaded while that is still ordinary work; a resolver behind a socket stays out of reach
  // later, and such an account then has its number only.
  passwd entry{};
  passwd* unused = nullptr;
  char buffer[4096];
  getpwuid_r(kNobody, &entry, buffer, sizeof buffer, &unused);

  const std::uint64_t wanted = 1ULL << CAP_SYS_PTRACE | 1ULL << CAP_DAC_READ_SEARCH;
  for (int capability = 0; capability < 64; ++capability) {
    if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) return false;
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return false;
  // Not root's uid either, which owns half the file system. In a user namespace that knows no nobody, root without rights it is.
  if (setgroups(0, nullptr) == 0 && setresgid(kNobody, kNobody, kNobody) == 0) {
    [[maybe_unused]] const int ignored = setresuid(kNobody, kNobody, kNobody);
  }
  if (!keepCapabilities(wanted)) return false;
  prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_FSIZE, 0);
  limit(RLIMIT_NPROC, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // here: the change of user above clears it, and the filter below lets no prctl through
  return installFilter();
}

}  // namespace sluice
