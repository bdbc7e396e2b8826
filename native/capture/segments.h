// The files of a session's record: capture-000001.pcapng, -000002 and so on, each with a head of its own. The writer's alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "net/descriptor.h"

namespace sluice {

class SegmentFiles {
 public:
  // The first segment, with its head. 0, or errno (and then there is no file).
  int open(const std::string& folder, const std::string& version, bool payload);
  // Ends the current segment and begins the next. 0, or errno (and then nothing has changed).
  int next();
  // Deletes the oldest segments until `bytes` more fit into `budget`, never the current one. The text of a fact that says so, empty when nothing
  // had to go.
  std::string makeRoom(std::uint64_t bytes, std::uint64_t budget, std::int64_t nanoseconds);

  [[nodiscard]] int file() const { return file_.get(); }
  [[nodiscard]] std::uint32_t number() const { return number_; }
  [[nodiscard]] std::uint64_t size() const { return size_; }       // of the current one
  void grew(std::uint64_t bytes) { size_ += bytes; }
  void cut();                                                      // back to size(), after a write that ended in the middle of a block
  // Whether what is written goes past the page cache; false: this file system will not have that.
  bool direct(bool wanted);
  void close() { file_.reset(); }

 private:
  int begin(std::uint32_t number, Descriptor& file, std::string& head) const;
  [[nodiscard]] std::string dropped(std::int64_t nanoseconds) const;

  Descriptor directory_, file_;
  bool direct_ = false;                                            // `file_` is
  std::string version_;
  bool payload_ = true;
  std::uint32_t number_ = 0;
  std::uint64_t size_ = 0;
  std::deque<std::uint64_t> older_;                                // sizes of those before, the last of them number_ - 1
  std::uint64_t olderBytes_ = 0;
  std::uint32_t lastDropped_ = 0;
  std::uint64_t droppedBytes_ = 0;
};

}  // namespace sluice
