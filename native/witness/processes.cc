#include "witness/processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "witness/messages.h"
#include "witness/proc_text.h"

namespace sluice {

namespace {

constexpr std::size_t kRecent = 16, kSeen = 4096, kUsers = 256;

class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return descriptor_; }
  [[nodiscard]] bool good() const { return descriptor_ >= 0; }
  [[nodiscard]] int release() {
    const int taken = descriptor_;
    descriptor_ = -1;
    return taken;
  }

 private:
  int descriptor_;
};

// The folder of a process. Everything about it is read through this one handle: should the id be given to another process
// meanwhile, the handle answers ESRCH rather than with the wrong one.
Descriptor openProcess(pid_t pid) {
  char path[32];
  std::snprintf(path, sizeof path, "/proc/%d", pid);
  return Descriptor(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

// The inode behind a descriptor if it is a socket, else 0.
std::uint32_t socketInode(int folder, const char* path) {
  char link[64];
  const ssize_t length = readlinkat(folder, path, link, sizeof link);
  if (length <= 0 || length >= static_cast<ssize_t>(sizeof link)) return 0;
  return inodeOfLink({link, static_cast<std::size_t>(length)});
}

std::string readSome(int folder, const char* name, std::size_t most) {
  const Descriptor file(openat(folder, name, O_RDONLY | O_CLOEXEC));
  std::string bytes(file.good() ? most : 0, '\0');
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = read(file.get(), bytes.data() + done, bytes.size() - done);
    if (count <= 0) break;
    done += static_cast<std::size_t>(count);
  }
  bytes.resize(done);
  return bytes;
}

std::string readLink(int folder, const char* name) {
  char link[kMaxPath];
  const ssize_t length = readlinkat(folder, name, link, sizeof link);
  return length > 0 ? std::string(link, static_cast<std::size_t>(length)) : std::string();
}

// Newest first. Ids are handed out upwards and wrap, so those above the latest (last word of /proc/loadavg) are the oldest.
std::vector<pid_t> processIds() {
  std::vector<pid_t> ids;
  DIR* const folder = opendir("/proc");
  if (folder == nullptr) return ids;
  while (const dirent* entry = readdir(folder)) {
    if (const auto pid = wholeNumber<pid_t>(entry->d_name)) ids.push_back(*pid);
  }
  closedir(folder);
  std::string load = readSome(AT_FDCWD, "/proc/loadavg", 128);
  if (!load.empty() && load.back() == '\n') load.pop_back();
  const pid_t latest = wholeNumber<pid_t>(std::string_view(load).substr(load.rfind(' ') + 1)).value_or(0);
  std::sort(ids.begin(), ids.end(), [&](pid_t left, pid_t right) {
    const bool oldLeft = latest > 0 && left > latest, oldRight = latest > 0 && right > latest;
    return oldLeft != oldRight ? oldRight : left > right;
  });
  return ids;
}

}  // namespace

std::string Processes::user(std::uint32_t uid) {
  if (const auto known = users_.find(uid); known != users_.end()) return known->second;
  if (users_.size() >= kUsers) users_.clear();
  passwd entry{};
  passwd* result = nullptr;
  std::vector<char> buffer(16384);
  std::string text;
  if (getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &result) == 0 && result != nullptr) text = result->pw_name;
  return users_[uid] = text.substr(0, kMaxName);
}

std::optional<Program> Processes::at(Place place, std::uint32_t inode) {
  const Descriptor folder = openProcess(place.pid);
  if (!folder.good()) return std::nullopt;
  char path[32];
  std::snprintf(path, sizeof path, "fd/%d", place.descriptor);
  if (socketInode(folder.get(), path) != inode) return std::nullopt;

  Program program;
  program.pid = place.pid;
  program.name = readSome(folder.get(), "comm", kMaxName);
  if (!program.name.empty() && program.name.back() == '\n') program.name.pop_back();
  program.path = readLink(folder.get(), "exe");
  program.cmdline = splitWords(readSome(folder.get(), "cmdline", kMaxCommand));
  program.ppid = parentOf(readSome(folder.get(), "stat", 1024));
  return program;
}

std::optional<Processes::Place> Processes::search(pid_t pid, std::uint32_t inode, Clock::time_point deadline) {
  const Descriptor process = openProcess(pid);
  if (!process.good()) return std::nullopt;
  Descriptor list(openat(process.get(), "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!list.good()) return std::nullopt;
  DIR* const folder = fdopendir(list.get());
  if (folder == nullptr) return std::nullopt;
  const int handle = list.release();
  std::optional<Place> answer;
  // To the end even after the find: the program's other new sockets are likely to be asked for next.
  for (int count = 0; const dirent* entry = readdir(folder); ++count) {
    if (count % 64 == 63 && Clock::now() > deadline) break;
    const auto descriptor = wholeNumber<int>(entry->d_name);
    if (!descriptor) continue;
    const std::uint32_t here = socketInode(handle, entry->d_name);
    if (here == 0) continue;
    if (here == inode) answer = Place{pid, *descriptor};
    if (seen_.size() >= kSeen) seen_.clear();
    seen_[here] = {pid, *descriptor};
    if (answer && count >= 1024) break;
  }
  closedir(folder);
  return answer;
}

std::optional<Program> Processes::found(Place place, std::uint32_t inode) {
  auto program = at(place, inode);
  if (!program) return std::nullopt;
  std::erase_if(recent_, [&](const Place& other) { return other.pid == place.pid; });
  recent_.push_front(place);
  if (recent_.size() > kRecent) recent_.pop_back();
  return program;
}

std::optional<Program> Processes::find(std::uint32_t inode, std::uint32_t uid, Clock::time_point deadline) {
  if (const auto hint = seen_.find(inode); hint != seen_.end()) {
    const Place place = hint->second;
    seen_.erase(hint);
    if (auto program = found(place, inode)) return program;
  }
  const std::deque<Place> recent = recent_;  // found() reorders
  for (const Place& place : recent) {
    if (auto program = found(place, inode)) return program;  // a loop of connect and close gets the same number again
  }
  std::vector<pid_t> tried;
  const auto look = [&](pid_t pid) -> std::optional<Program> {
    tried.push_back(pid);
    const auto place = search(pid, inode, deadline);
    return place ? found(*place, inode) : std::nullopt;
  };
  for (const Place& place : recent) {
    if (auto program = look(place.pid)) return program;
    if (Clock::now() > deadline) return std::nullopt;
  }
  std::vector<pid_t> others;
  for (const pid_t pid : processIds()) {
    if (std::find(tried.begin(), tried.end(), pid) != tried.end()) continue;
    char path[32];
    std::snprintf(path, sizeof path, "/proc/%d", pid);
    struct stat facts{};
    if (stat(path, &facts) != 0) continue;
    // A process that is not dumpable seems to be root's; it gets its turn among the others.
    if (facts.st_uid != uid) {
      others.push_back(pid);
      continue;
    }
    if (auto program = look(pid)) return program;
    if (Clock::now() > deadline) return std::nullopt;
  }
  for (const pid_t pid : others) {
    if (auto program = look(pid)) return program;
    if (Clock::now() > deadline) return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace sluice
