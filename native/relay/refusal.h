// Why a destination could not be reached, in the words of the record.
#pragma once

#include <cerrno>

#include "capture/recorder.h"

namespace sluice {

constexpr std::uint8_t kLoopDepth = 16;  // own connections behind a new one at which it is a loop and not a chance (UpstreamSet)

// Nothing is left to make a socket with.
inline bool exhausted(int error) { return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM; }

// `error`: why connect(2) failed.
CloseReason refusalOf(int error);

}  // namespace sluice
