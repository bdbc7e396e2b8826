#include "capture/text.h"

#include <net/if.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>

namespace sluice {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What JSON allows raw and we still escape.
bool drivesTerminal(std::uint32_t value) {
  return (value >= 0x7F && value <= 0x9F) || value == 0x061C || value == 0x200E || value == 0x200F ||
         (value >= 0x2028 && value <= 0x202E) || (value >= 0x2066 && value <= 0x2069) || value == 0xFEFF;
}

void appendEscape(std::string& out, std::uint32_t value) {
  static constexpr char kHex[] = "0123456789abcdef";
  const char text[6] = {'\\', 'u', kHex[(value >> 12U) & 15U], kHex[(value >> 8U) & 15U], kHex[(value >> 4U) & 15U], kHex[value & 15U]};
  out.append(text, sizeof text);
}

template <typename Value>
void appendAny(std::string& out, Value value) {
  char text[24];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  out.append(text, end);
}

// Its name, as people write it (RFC 4007, 11.2); its number where it has gone, or bears a name that would need escaping.
void appendZone(std::string& out, std::uint32_t interface) {
  const auto plain = [](char letter) { return std::isalnum(static_cast<unsigned char>(letter)) != 0 || std::strchr("._-@", letter) != nullptr; };
  char name[IF_NAMESIZE] = "";
  out += '%';
  if (if_indextoname(interface, name) != nullptr && name[0] != 0 && std::all_of(name, name + std::strlen(name), plain)) out += name;
  else appendAny(out, std::uint64_t{interface});
}

}  // namespace

CodePoint decodeUtf8(std::string_view rest) {
  const auto at = [&](std::size_t index) { return static_cast<std::uint8_t>(rest[index]); };
  const std::uint8_t first = at(0);
  if (first < 0x80) return {first, 1, true};

  // The second byte's range shuts out overlong forms, surrogates and what lies above U+10FFFF (table 3-7).
  std::size_t length = 0;
  std::uint32_t value = 0;
  std::uint8_t low = 0x80, high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2, value = first & 0x1FU;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3, value = first & 0x0FU;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4, value = first & 0x07U;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  } else {
    return {0xFFFD, 1, false};
  }
  for (std::size_t index = 1; index < length; ++index) {
    if (index >= rest.size() || at(index) < low || at(index) > high) return {0xFFFD, index, false};
    value = (value << 6U) | (at(index) & 0x3FU);
    low = 0x80, high = 0xBF;
  }
  return {value, length, true};
}

void appendJsonString(std::string& out, std::string_view raw) {
  out += '"';
  while (!raw.empty()) {
    const CodePoint point = decodeUtf8(raw);
    if (!point.wellFormed) {
      out += kReplacement;
    } else if (point.value == '"' || point.value == '\\') {
      out += '\\';
      out += static_cast<char>(point.value);
    } else if (point.value < 0x20 || drivesTerminal(point.value)) {
      appendEscape(out, point.value);
    } else {
      out.append(raw.substr(0, point.length));
    }
    raw.remove_prefix(point.length);
  }
  out += '"';
}

void appendUtf8(std::string& out, std::string_view raw, std::size_t most) {
  while (!raw.empty()) {
    const CodePoint point = decodeUtf8(raw);
    const std::string_view piece = point.wellFormed ? raw.substr(0, point.length) : kReplacement;
    if (piece.size() > most) return;
    most -= piece.size();
    out.append(piece);
    raw.remove_prefix(point.length);
  }
}

void appendNumber(std::string& out, std::uint64_t value) { appendAny(out, value); }
void appendNumber(std::string& out, std::int64_t value) { appendAny(out, value); }

void appendAddress(std::string& out, const Endpoint& endpoint) {
  if (!endpoint.v4()) {
    out += endpoint.address();
    if (endpoint.linkLocal() && endpoint.scope() != 0) appendZone(out, endpoint.scope());
    return;
  }
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in*>(&endpoint.storage)->sin_addr);
  for (int index = 0; index < 4; ++index) {
    if (index != 0) out += '.';
    appendNumber(out, std::uint64_t{bytes[index]});
  }
}

}  // namespace sluice
