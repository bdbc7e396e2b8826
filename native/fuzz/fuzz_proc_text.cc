// What /proc says of a program that chose its own name and words: the parent stands behind the last parenthesis, the words are those between zeros, a link is a socket's or none.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "witness/messages.h"
#include "witness/proc_text.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 8192) return 0;
  const std::string text(reinterpret_cast<const char*>(data), size);

  sluice::parentOf(text);
  // A name without a newline or zero, as prctl(2) takes it, changes nothing.
  if (sluice::parentOf("7 (" + text.substr(0, 15) + ") S 4711 7 7 0 -1") != 4711) std::abort();

  std::string joined;
  const auto words = sluice::splitWords(text);
  if (words.size() > sluice::kMaxWords) std::abort();
  for (const std::string& word : words) {
    if (word.find('\0') != std::string::npos) std::abort();
    joined += word + '\0';
  }
  if (text.compare(0, joined.size(), joined, 0, std::min(joined.size(), text.size())) != 0) std::abort();
  if (words.size() < sluice::kMaxWords && joined.size() < text.size()) std::abort();

  const std::uint32_t inode = sluice::inodeOfLink(text);
  // The same number again, but for zeros in front.
  if (inode != 0 && (text.find(std::to_string(inode) + "]") == std::string::npos || text.substr(0, 8) != "socket:[")) std::abort();
  return 0;
}
