// Giving up root. Both are of the whole process, so they come before any thread.
#pragma once

#include <string>

#include "control/message.h"

namespace sluice {

// Becomes the person: uid, gid, groups; keeps CAP_NET_RAW and CAP_NET_BIND_SERVICE (effective, permitted) and nothing else, empties the
// bounding, ambient and inheritable sets, forbids gaining any by exec, is not dumpable, and dies with its parent. Then reads it
// all back. Returns what failed with its errno as one line, empty when all is so. capabilities(7), prctl(2).
std::string dropPrivileges(const StartMessage& start);

// Confines the process to reading and writing beneath `folder` (and reading /proc/sys/net), and away from abstract unix sockets and signals to others, as far as this
// kernel's Landlock goes; without Landlock nothing happens. Returns what failed, empty on success. landlock(7).
std::string confineTo(const std::string& folder);

// Soft limit of descriptors to the hard one.
void raiseDescriptorLimit();

}  // namespace sluice
