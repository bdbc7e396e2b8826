#include "capture/segments.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "capture/pcapng.h"

namespace sluice {

namespace {

std::string systemName() {
  utsname names{};
  if (uname(&names) != 0) return {};
  return std::string(names.sysname) + " " + names.release;
}

std::string nameOf(std::uint32_t number) {
  char text[32];
  std::snprintf(text, sizeof text, "capture-%06u.pcapng", number);
  return text;
}

bool writeAll(int file, const std::string& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count = ::write(file, bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) errno = EIO;
    if (count <= 0) return false;
    done += static_cast<std::size_t>(count);
  }
  return true;
}

}  // namespace

int SegmentFiles::begin(std::uint32_t number, Descriptor& file, std::string& head) const {
  const std::string name = nameOf(number);
  file.reset(openat(directory_.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return errno;
  if (writeAll(file.get(), head)) return 0;
  const int error = errno;
  unlinkat(directory_.get(), name.c_str(), 0);
  return error;
}

int SegmentFiles::open(const std::string& folder, const std::string& version, bool payload) {
  directory_.reset(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory_) return errno;
  version_ = version;
  payload_ = payload;
  std::string head = pcapng::buildHead(version_, systemName(), payload_, 1);
  if (const int error = begin(1, file_, head); error != 0) return error;
  number_ = 1;
  size_ = head.size();
  return 0;
}

int SegmentFiles::next() {
  std::string head = pcapng::buildHead(version_, systemName(), payload_, number_ + 1);
  if (lastDropped_ != 0) head += dropped(Recorder::now());
  Descriptor file;
  if (const int error = begin(number_ + 1, file, head); error != 0) return error;
  older_.push_back(size_);
  olderBytes_ += size_;
  file_ = std::move(file);
  direct_ = false;
  ++number_;
  size_ = head.size();
  return 0;
}

std::string SegmentFiles::makeRoom(std::uint64_t bytes, std::uint64_t budget, std::int64_t nanoseconds) {
  const std::uint32_t before = lastDropped_;
  while (!older_.empty() && olderBytes_ + size_ + bytes > budget) {
    const auto oldest = static_cast<std::uint32_t>(number_ - older_.size());
    unlinkat(directory_.get(), nameOf(oldest).c_str(), 0);  // gone already: as well
    lastDropped_ = oldest;
    droppedBytes_ += older_.front();
    olderBytes_ -= older_.front();
    older_.pop_front();
  }
  return lastDropped_ == before ? std::string{} : dropped(nanoseconds);
}

std::string SegmentFiles::dropped(std::int64_t nanoseconds) const {
  std::string json, text;
  pcapng::appendDropped(json, 1, lastDropped_, droppedBytes_, nanoseconds);
  pcapng::appendFact(text, json);
  return text;
}

bool SegmentFiles::direct(bool wanted) {
  if (direct_ == wanted) return true;
  const int flags = fcntl(file_.get(), F_GETFL);
  if (flags < 0 || fcntl(file_.get(), F_SETFL, wanted ? flags | O_DIRECT : flags & ~O_DIRECT) != 0) return false;
  direct_ = wanted;
  return true;
}

void SegmentFiles::cut() {
  [[maybe_unused]] const int ignored = ftruncate(file_.get(), static_cast<off_t>(size_));
}

}  // namespace sluice
