// Giving up every right the witness does not need, for good.
#pragma once

namespace sluice {

// Closes every descriptor but `channel`, leaves root for nobody with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH alone (bounding, inheritable and
// ambient sets empty, no_new_privs), and, by seccomp, may from now on only read files, speak netlink and use `channel`. Those two
// capabilities amount to reading the memory of any process and steering it by ptrace; with the filter they amount to looking.
// Dies with the thread that forked it. False, with errno, when a step that must not fail did.
bool sealWitness(int channel);

}  // namespace sluice
