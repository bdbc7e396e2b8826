// Who is behind a local flow: a process of its own, forked while still root, that keeps only the right to look into /proc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "capture/recorder.h"
#include "net/endpoint.h"

namespace sluice {

// A flow whose client is a socket of this machine; with server port 0 (TCP): who listens at `client`.
// `decides`: where the flow goes hangs on the answer, so it is worth a longer search than a name.
struct WitnessQuestion { std::uint64_t token; Endpoint client, server; bool udp = false, decides = false; };
struct WitnessAnswer { std::uint64_t token; std::optional<Program> program; };      // none: it was gone, or not of this machine

// Both ends of the channel are SOCK_SEQPACKET messages of a fixed binary layout, at most 8 KiB; the relay's end is non-blocking.
bool sendQuestion(int channel, const WitnessQuestion& question);                    // false: full or gone; the flow goes on unnamed
std::optional<WitnessAnswer> receiveAnswer(int channel, bool& ended);               // nothing waiting: nullopt; a malformed one is skipped

// Forks the witness. Must be called while root and single-threaded. Returns the relay's end of the channel (CLOEXEC, non-blocking), or -1.
// The child drops every capability but CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, sets no_new_privs, dies with the relay, and answers until end of input.
int startWitness();

// The child's work, apart for tests: answers questions on `channel` until it ends.
void runWitness(int channel);

// sock_diag (exact query, no dump) then /proc. Source: linux/inet_diag.h; ARCHITECTURE.md. Used by runWitness.
// After 40 ms (a second, if `decides`) it says of the program no more than its user.
std::optional<Program> findProgram(const Endpoint& client, const Endpoint& server, bool udp = false, bool decides = false);

}  // namespace sluice
