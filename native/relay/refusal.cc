#include "relay/refusal.h"

#include <cerrno>

namespace sluice {

CloseReason refusalOf(int error) {
  switch (error) {
    case ECONNREFUSED: return CloseReason::kRefused;
    case ENETUNREACH: case EHOSTUNREACH: case ENETDOWN: case EHOSTDOWN: case EADDRNOTAVAIL: case EACCES: case EPERM: case ENOPROTOOPT: return CloseReason::kUnreachable;
    case ETIMEDOUT: return CloseReason::kTimedOut;
    case EMFILE: case ENFILE: case ENOBUFS: case ENOMEM: return CloseReason::kShed;
    default: return CloseReason::kFailed;
  }
}

}  // namespace sluice
