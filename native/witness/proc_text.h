// What /proc says of a process and its descriptors, as words and numbers. A program chooses its own name and command line, so they may hold anything. Pure.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// A number in decimal that is the whole of the text.
template <typename Value>
std::optional<Value> wholeNumber(std::string_view text) {
  Value value{};
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

// The inode in what a descriptor's link says, "socket:[12345]"; 0 when it is no socket.
std::uint32_t inodeOfLink(std::string_view link);

// The words of /proc/PID/cmdline, at most kMaxWords.
std::vector<std::string> splitWords(std::string_view bytes);

// The parent from /proc/PID/stat; 0 when there is none.
std::int64_t parentOf(std::string_view stat);

}  // namespace sluice
