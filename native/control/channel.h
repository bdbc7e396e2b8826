// Lines to and from the helper over one descriptor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "net/descriptor.h"

namespace sluice {

class Channel {
 public:
  explicit Channel(int fd);  // made non-blocking and closed on exec; owned

  [[nodiscard]] int descriptor() const { return fd_.get(); }
  void receive();                          // reads what is there
  std::optional<std::string> line();       // the next whole line, without its line feed
  [[nodiscard]] bool ended() const { return ended_; }  // the other side is gone, or sent a line that is too long

  // Never waits. Lines the helper does not read are kept up to a bound; beyond it, `mayDrop` lines are left out and others end the channel.
  void send(const std::string& line, bool mayDrop);
  void flush();
  [[nodiscard]] bool congested() const { return !out_.empty(); }
  void finish(int milliseconds);           // writes what is left, waiting at most so long

 private:
  Descriptor fd_;
  std::string in_, out_;
  std::size_t scanned_ = 0;
  bool ended_ = false;
};

}  // namespace sluice
