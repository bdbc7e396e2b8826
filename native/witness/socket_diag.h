// The exact question of diag.h, asked and answered at once.
#pragma once

#include <optional>

#include "witness/diag.h"

namespace sluice {

// Not for several threads.
class SocketDiag {
 public:
  // None: an error, or no such socket.
  std::optional<SocketFacts> ask(const Endpoint& client, const Endpoint& server, bool udp);
  // Whether somebody listens there for TCP, on that address or on all of its family.
  bool listens(const Endpoint& where);

 private:
  bool open();
  std::optional<SocketFacts> reopen();

  int socket_ = -1;
  std::uint32_t sequence_ = 0;
};

}  // namespace sluice
