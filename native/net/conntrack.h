// A local flow is the relay's, a redirected one leads to it, and a service of this machine answers it, by what conntrack knows of it. Conntrack remembers a silent connection for days while both sides go on, and
// for a minute or two once one has ended, or for as little as whoever tuned this machine chose. What it has forgotten goes to the server directly, which resets it.
#pragma once

#include <cstdint>
#include <string>

namespace sluice {

// Seconds of silence after which a connection one side of which has ended should be heard of, of the files in that folder (nf_conntrack-sysctl); where there are none yet, of the
// kernel's defaults. 1 at least: TCP keeps alive in whole seconds.
int silenceFor(const std::string& folder);

// Has the kernel say something on that connection often enough from now on, also where its reader has stopped (Linux 6.15). `now` in ns; any thread.
void keepKnown(int fd, std::int64_t now);

}  // namespace sluice
