// Landlock, as far as Sluice uses it. The numbers stand here because headers older than the running kernel lack most of them
// (Documentation/userspace-api/landlock.rst).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

struct LandlockWish {
  std::vector<std::string> write;   // folders: files beneath may be made, written, truncated, renamed, removed
  std::vector<std::string> read;    // beneath these may be read and executed; empty: everywhere
};

// Confines the calling process for good: file access as wished, no TCP port bound or connected (ABI 4), no abstract sockets and no
// signals to processes outside (ABI 6). True when it holds; false when the kernel has no Landlock (errno ENOSYS, EOPNOTSUPP) or refused.
bool applyLandlock(const LandlockWish& wish);

}  // namespace sluice
