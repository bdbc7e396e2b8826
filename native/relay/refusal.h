// Why a destination could not be reached, in the words of the record.
#pragma once

#include "capture/recorder.h"

namespace sluice {

constexpr std::uint8_t kLoopDepth = 4;  // own connections behind a new one at which it is a loop and not a chance (UpstreamSet)

// `error`: why connect(2) failed.
CloseReason refusalOf(int error);

}  // namespace sluice
