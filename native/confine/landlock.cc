#include "confine/landlock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace sluice {

namespace {

constexpr long kCreateRuleset = 444, kAddRule = 445, kRestrictSelf = 446;  // the same on every architecture
constexpr std::uint32_t kVersionFlag = 1, kPathBeneath = 1;

constexpr std::uint64_t kExecute = 1U << 0U, kWriteFile = 1U << 1U, kReadFile = 1U << 2U, kReadDir = 1U << 3U, kRemoveDir = 1U << 4U,
                        kRemoveFile = 1U << 5U, kMakeDir = 1U << 7U, kMakeReg = 1U << 8U, kRefer = 1U << 13U, kTruncate = 1U << 14U;
constexpr std::uint64_t kReading = kExecute | kReadFile | kReadDir;
constexpr std::uint64_t kWriting = kReading | kWriteFile | kRemoveDir | kRemoveFile | kMakeDir | kMakeReg | kRefer | kTruncate;
constexpr std::uint64_t kOfFile = kExecute | kWriteFile | kReadFile | kTruncate;  // what a rule on something else than a folder may name

struct RulesetAttributes {
  std::uint64_t files, net, scope;
};
struct __attribute__((packed)) PathAttributes {
  std::uint64_t allowed;
  std::int32_t parent;
};

// All the file rights a kernel of that ABI can handle: 13 at first, then REFER, TRUNCATE, and IOCTL_DEV with 5.
std::uint64_t handled(long abi) {
  const unsigned rights = abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13;
  return (1ULL << rights) - 1;
}

bool allow(int ruleset, const std::string& path, std::uint64_t rights) {
  const int place = open(path.c_str(), O_PATH | O_CLOEXEC);
  if (place < 0) return false;
  struct stat facts{};
  if (fstat(place, &facts) == 0 && !S_ISDIR(facts.st_mode)) rights &= kOfFile;
  const PathAttributes rule{rights, place};
  const bool added = syscall(kAddRule, ruleset, kPathBeneath, &rule, 0) == 0;
  const int error = errno;
  close(place);
  errno = error;
  return added;
}

}  // namespace

bool applyLandlock(const LandlockWish& wish) {
  const long abi = syscall(kCreateRuleset, nullptr, 0, kVersionFlag);
  if (abi < 1) return false;
  const RulesetAttributes attributes{handled(abi), abi >= 4 ? 3ULL : 0ULL, abi >= 6 ? 3ULL : 0ULL};
  const std::size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
  const int ruleset = static_cast<int>(syscall(kCreateRuleset, &attributes, size, 0));
  if (ruleset < 0) return false;

  const std::uint64_t known = handled(abi);
  bool good = true;
  for (const std::string& folder : wish.write) good = good && allow(ruleset, folder, kWriting & known);
  if (wish.read.empty()) {
    good = good && allow(ruleset, "/", kReading & known);
  } else {
    for (const std::string& folder : wish.read) good = good && allow(ruleset, folder, kReading & known);
    // What a dynamically linked program cannot start without; not every system has each of them.
    for (const char* folder : {"/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc", "/proc", "/sys", "/dev"}) allow(ruleset, folder, kReading & known);
  }
  allow(ruleset, "/dev/null", (kReadFile | kWriteFile | kTruncate) & known);
  good = good && syscall(kRestrictSelf, ruleset, 0) == 0;
  const int error = errno;
  close(ruleset);
  errno = error;
  return good;
}

}  // namespace sluice
