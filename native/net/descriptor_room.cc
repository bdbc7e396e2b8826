#include "net/descriptor_room.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <limits>

namespace sluice {
namespace {

constexpr std::size_t kForCapture = 4;  // a segment's file, and what opening the next one takes
constexpr std::size_t kForThread = 3;   // a client taken in, and a connection begun for it

int ceiling = std::numeric_limits<int>::max();  // written once, before there are threads

}  // namespace

void keepDescriptorsBack(std::size_t threads) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const auto all = static_cast<std::size_t>(std::min<rlim_t>(limit.rlim_cur, std::numeric_limits<int>::max()));
  // The thread that holds SYNs counts as one.
  ceiling = static_cast<int>(all - std::min(all / 2, kForCapture + kForThread * (threads + 1)));
}

bool forFlows(int fd) { return fd < ceiling; }

Descriptor flowDescriptor(int fd) {
  Descriptor given{fd};
  if (!given || forFlows(fd)) return given;
  given.reset();
  errno = EMFILE;
  return given;
}

}  // namespace sluice
