#include "control/privileges.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "net/descriptor.h"

namespace sluice {
namespace {

constexpr std::uint32_t kKept = (1U << CAP_NET_BIND_SERVICE) | (1U << CAP_NET_RAW);

std::string failed(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

struct Capabilities {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
};

bool heldAsWanted(const StartMessage& start) {
  uid_t uid[3];
  gid_t gid[3];
  if (::getresuid(&uid[0], &uid[1], &uid[2]) != 0 || ::getresgid(&gid[0], &gid[1], &gid[2]) != 0) return false;
  for (int i = 0; i < 3; ++i) {
    if (uid[i] != start.uid || gid[i] != start.gid) return false;
  }
  Capabilities held;
  if (::syscall(SYS_capget, &held.header, held.data) != 0) return false;
  if (held.data[0].effective != kKept || held.data[0].permitted != kKept || held.data[0].inheritable != 0) return false;
  if (held.data[1].effective != 0 || held.data[1].permitted != 0 || held.data[1].inheritable != 0) return false;
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability) {
    if (::prctl(PR_CAPBSET_READ, capability) != 0) return false;
  }
  return ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && ::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0;
}

// linux/landlock.h of newer kernels than the one this may be built on.
struct LandlockRuleset {
  std::uint64_t accessFs = 0, accessNet = 0, scoped = 0;
};
struct __attribute__((packed)) LandlockBeneath {
  std::uint64_t access = 0;
  std::int32_t parent = -1;
};
constexpr std::uint64_t kFsExecute = 1U << 0U, kFsWrite = 1U << 1U, kFsRead = 1U << 2U, kFsReadDir = 1U << 3U, kFsRemoveFile = 1U << 5U,
                        kFsMakeFile = 1U << 8U, kFsTruncate = 1U << 14U;
constexpr long kCreateRuleset = 444, kAddRule = 445, kRestrictSelf = 446;

}  // namespace

std::string dropPrivileges(const StartMessage& start) {
  const pid_t parent = ::getppid();
  for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability) {
    if (::prctl(PR_CAPBSET_DROP, capability) != 0) return failed("emptying the bounding set");
  }
  if (::prctl(PR_SET_KEEPCAPS, 1) != 0) return failed("keeping capabilities");
  if (::setgroups(start.groups.size(), start.groups.data()) != 0) return failed("setgroups");
  if (::setresgid(start.gid, start.gid, start.gid) != 0) return failed("setresgid");
  if (::setresuid(start.uid, start.uid, start.uid) != 0) return failed("setresuid");
  Capabilities wanted;
  wanted.data[0].effective = wanted.data[0].permitted = kKept;
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (::syscall(SYS_capset, &wanted.header, wanted.data) != 0) return failed("capset");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failed("no_new_privs");
  if (::prctl(PR_SET_DUMPABLE, 0) != 0) return failed("dumpable");
  // After the change of identity, which clears it; a parent that went meanwhile is seen by its absence.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return failed("parent death signal");
  if (::getppid() != parent) return "the helper is gone";
  if (!heldAsWanted(start)) return "the rights read back are not those wanted";
  return {};
}

std::string confineTo(const std::string& folder) {
  const long abi = ::syscall(kCreateRuleset, nullptr, 0, 1);
  if (abi < 1) return {};
  LandlockRuleset ruleset;
  ruleset.accessFs = (1U << 13U) - 1;               // ABI 1
  if (abi >= 2) ruleset.accessFs |= 1U << 13U;      // refer
  if (abi >= 3) ruleset.accessFs |= kFsTruncate;
  if (abi >= 5) ruleset.accessFs |= 1U << 15U;      // ioctl on devices
  if (abi >= 6) ruleset.scoped = 3;                 // abstract unix sockets, signals
  const std::size_t size = abi >= 6 ? sizeof ruleset : abi >= 4 ? 16 : 8;
  const Descriptor rules{static_cast<int>(::syscall(kCreateRuleset, &ruleset, size, 0))};
  if (!rules) return failed("Landlock");
  const Descriptor beneath{::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
  if (!beneath) return {};  // opening the capture in it tells better what is wrong
  LandlockBeneath rule;
  rule.access = (kFsWrite | kFsRead | kFsReadDir | kFsRemoveFile | kFsMakeFile | kFsTruncate) & ruleset.accessFs;
  rule.parent = beneath.get();
  if (::syscall(kAddRule, rules.get(), 1, &rule, 0) != 0) return failed("Landlock");
  // How this network namespace was tuned (net/own_ports.h, net/conntrack.h); everybody may read that.
  const Descriptor tuned{::open("/proc/sys/net", O_PATH | O_DIRECTORY | O_CLOEXEC)};
  rule.access = kFsRead;
  rule.parent = tuned.get();
  if (tuned && ::syscall(kAddRule, rules.get(), 1, &rule, 0) != 0) return failed("Landlock");
  if (::syscall(kRestrictSelf, rules.get(), 0) != 0) return failed("Landlock");
  return {};
}

void raiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace sluice
