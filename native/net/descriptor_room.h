// The last descriptors of the process are kept for what must not fail for want of one: taking in a client to tell it that there is no room, the
// next segment of the capture. What a flow is made of stays below them.
#pragma once

#include <cstddef>

#include "net/descriptor.h"

namespace sluice {

// Keeps some of RLIMIT_NOFILE's descriptors back; before the threads start.
void keepDescriptorsBack(std::size_t threads);

// May a flow have it? The kernel gives the lowest free number (POSIX, 2.14), so one among the last says that all others are in use.
bool forFlows(int fd);

// The descriptor a call gave, -1 included; one that is not for flows is closed again, and nothing is left with EMFILE.
Descriptor flowDescriptor(int fd);

}  // namespace sluice
