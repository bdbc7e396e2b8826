// Who holds a socket, and what /proc says of them.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "capture/recorder.h"

namespace sluice {

// The search goes where the answer most likely is: the socket seen in passing before, the descriptor numbers that answered last,
// the processes that answered last, those of the socket's user from the newest, then all. It ends at a deadline.
// Process ids are those of the pid namespace /proc was mounted for; a program in a container has its id out here, and the path its
// own mount namespace gives.
class Processes {
 public:
  using Clock = std::chrono::steady_clock;

  // The program that holds the socket of that inode; none when nobody does (any more) or time is up.
  std::optional<Program> find(std::uint32_t inode, std::uint32_t uid, Clock::time_point deadline);

  // The account's name, "" when it has none.
  std::string user(std::uint32_t uid);

 private:
  struct Place { pid_t pid; int descriptor; };

  std::optional<Program> at(Place place, std::uint32_t inode);
  std::optional<Place> search(pid_t pid, std::uint32_t inode, Clock::time_point deadline);
  std::optional<Program> found(Place place, std::uint32_t inode);

  std::unordered_map<std::uint32_t, Place> seen_;   // by inode; a hint, always looked at again
  std::deque<Place> recent_;                        // that answered, the latest first, one a process
  std::unordered_map<std::uint32_t, std::string> users_;
};

}  // namespace sluice
