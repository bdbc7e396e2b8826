#include "witness/proc_text.h"

#include <algorithm>

#include "witness/messages.h"

namespace sluice {

std::uint32_t inodeOfLink(std::string_view link) {
  constexpr std::string_view kBegin = "socket:[";
  if (link.size() <= kBegin.size() + 1 || link.substr(0, kBegin.size()) != kBegin || link.back() != ']') return 0;
  return wholeNumber<std::uint32_t>(link.substr(kBegin.size(), link.size() - kBegin.size() - 1)).value_or(0);
}

std::vector<std::string> splitWords(std::string_view bytes) {
  std::vector<std::string> words;
  while (!bytes.empty() && words.size() < kMaxWords) {
    const std::size_t end = std::min(bytes.find('\0'), bytes.size());
    words.emplace_back(bytes.substr(0, end));
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
  }
  return words;
}

// "pid (comm) state ppid". comm may hold anything, parentheses too, so the last one counts.
std::int64_t parentOf(std::string_view stat) {
  const std::size_t close = stat.rfind(')');
  if (close == std::string_view::npos || stat.size() < close + 5) return 0;
  const std::string_view rest = stat.substr(close + 4);
  return wholeNumber<std::int64_t>(rest.substr(0, rest.find(' '))).value_or(0);
}

}  // namespace sluice
