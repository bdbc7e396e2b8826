#include "control/json.h"

namespace sluice {
namespace {

constexpr int kMaxDepth = 8;
constexpr std::int64_t kMaxInteger = (std::int64_t{1} << 53) - 1;  // what every JSON reader can hold

// Length of the UTF-8 sequence at `at` (RFC 3629: no overlong forms, no surrogates), 0 when there is none.
std::size_t utf8Length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t offset) { return at + offset < text.size() ? static_cast<unsigned char>(text[at + offset]) : 0U; };
  const auto follows = [&](std::size_t offset) { return (byte(offset) & 0xc0U) == 0x80U; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return follows(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    if (!follows(1) || !follows(2)) return 0;
    if (first == 0xe0 && byte(1) < 0xa0) return 0;
    if (first == 0xed && byte(1) > 0x9f) return 0;
    return 3;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if (!follows(1) || !follows(2) || !follows(3)) return 0;
    if (first == 0xf0 && byte(1) < 0x90) return 0;
    if (first == 0xf4 && byte(1) > 0x8f) return 0;
    return 4;
  }
  return 0;
}

void appendUtf8(std::string& into, unsigned code) {
  const auto put = [&](unsigned value) { into.push_back(static_cast<char>(value)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0U | (code >> 6U));
    put(0x80U | (code & 0x3fU));
  } else if (code < 0x10000) {
    put(0xe0U | (code >> 12U));
    put(0x80U | ((code >> 6U) & 0x3fU));
    put(0x80U | (code & 0x3fU));
  } else {
    put(0xf0U | (code >> 18U));
    put(0x80U | ((code >> 12U) & 0x3fU));
    put(0x80U | ((code >> 6U) & 0x3fU));
    put(0x80U | (code & 0x3fU));
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::optional<Json> whole() {
    auto value = parseValue(0);
    skipSpace();
    if (!value || at_ != text_.size()) return std::nullopt;
    return value;
  }

 private:
  [[nodiscard]] char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skipSpace() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
  }
  bool take(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  std::optional<Json> parseValue(int depth) {
    skipSpace();
    if (depth > kMaxDepth) return std::nullopt;
    switch (peek()) {
      case '{': return parseObject(depth);
      case '[': return parseArray(depth);
      case '"': {
        auto text = parseString();
        return text ? std::optional<Json>(Json(std::move(*text))) : std::nullopt;
      }
      case 't': return take("true") ? std::optional<Json>(Json(true)) : std::nullopt;
      case 'f': return take("false") ? std::optional<Json>(Json(false)) : std::nullopt;
      case 'n': return take("null") ? std::optional<Json>(Json(nullptr)) : std::nullopt;
      default: return parseInteger();
    }
  }

  std::optional<Json> parseObject(int depth) {
    ++at_;
    Json::Object members;
    skipSpace();
    if (take("}")) return Json(std::move(members));
    for (;;) {
      skipSpace();
      auto key = parseString();
      skipSpace();
      if (!key || !take(":")) return std::nullopt;
      auto value = parseValue(depth + 1);
      if (!value || !members.emplace(std::move(*key), std::move(*value)).second) return std::nullopt;
      skipSpace();
      if (take("}")) return Json(std::move(members));
      if (!take(",")) return std::nullopt;
    }
  }

  std::optional<Json> parseArray(int depth) {
    ++at_;
    Json::Array items;
    skipSpace();
    if (take("]")) return Json(std::move(items));
    for (;;) {
      auto value = parseValue(depth + 1);
      if (!value) return std::nullopt;
      items.push_back(std::move(*value));
      skipSpace();
      if (take("]")) return Json(std::move(items));
      if (!take(",")) return std::nullopt;
    }
  }

  std::optional<unsigned> parseHex() {
    if (text_.size() - at_ < 4) return std::nullopt;
    unsigned value = 0;
    for (int digit = 0; digit < 4; ++digit) {
      const char c = text_[at_++];
      value <<= 4U;
      if (c >= '0' && c <= '9') value |= static_cast<unsigned>(c - '0');
      else if (c >= 'a' && c <= 'f') value |= static_cast<unsigned>(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F') value |= static_cast<unsigned>(c - 'A' + 10);
      else return std::nullopt;
    }
    return value;
  }

  std::optional<std::string> parseString() {
    if (!take("\"")) return std::nullopt;
    std::string result;
    while (at_ < text_.size()) {
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') {
        ++at_;
        return result;
      }
      if (c < 0x20) return std::nullopt;
      if (c != '\\') {
        const std::size_t length = utf8Length(text_, at_);
        if (length == 0) return std::nullopt;
        result.append(text_.substr(at_, length));
        at_ += length;
        continue;
      }
      ++at_;
      const char escape = peek();
      if (at_ < text_.size()) ++at_;
      switch (escape) {
        case '"': case '\\': case '/': result.push_back(escape); break;
        case 'b': result.push_back('\b'); break;
        case 'f': result.push_back('\f'); break;
        case 'n': result.push_back('\n'); break;
        case 'r': result.push_back('\r'); break;
        case 't': result.push_back('\t'); break;
        case 'u': {
          auto code = parseHex();
          if (!code || (*code >= 0xdc00 && *code <= 0xdfff)) return std::nullopt;
          if (*code >= 0xd800 && *code <= 0xdbff) {
            if (!take("\\u")) return std::nullopt;
            const auto low = parseHex();
            if (!low || *low < 0xdc00 || *low > 0xdfff) return std::nullopt;
            code = 0x10000U + ((*code - 0xd800U) << 10U) + (*low - 0xdc00U);
          }
          appendUtf8(result, *code);
          break;
        }
        default: return std::nullopt;
      }
    }
    return std::nullopt;
  }

  std::optional<Json> parseInteger() {
    const bool negative = take("-");
    const std::size_t start = at_;
    std::int64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + (text_[at_++] - '0');
      if (value > kMaxInteger) return std::nullopt;
    }
    const std::size_t digits = at_ - start;
    if (digits == 0 || (digits > 1 && text_[start] == '0')) return std::nullopt;
    if (peek() == '.' || peek() == 'e' || peek() == 'E') return std::nullopt;
    return Json(negative ? -value : value);
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

const Json* Json::member(std::string_view key) const {
  const Object* members = object();
  if (members == nullptr) return nullptr;
  const auto found = members->find(key);
  return found == members->end() ? nullptr : &found->second;
}

std::optional<Json> parseJson(std::string_view text) {
  if (text.size() > kMaxControlLine) return std::nullopt;
  return Parser(text).whole();
}

std::string quoteJson(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string result = "\"";
  for (std::size_t at = 0; at < text.size();) {
    const auto c = static_cast<unsigned char>(text[at]);
    if (c == '"' || c == '\\') {
      result.push_back('\\');
      result.push_back(text[at++]);
    } else if (c < 0x20 || c == 0x7f) {
      result += "\\u00";
      result.push_back(kHex[c >> 4U]);
      result.push_back(kHex[c & 0xfU]);
      ++at;
    } else if (const std::size_t length = utf8Length(text, at); length != 0) {
      result.append(text.substr(at, length));
      at += length;
    } else {
      result += "\xef\xbf\xbd";
      ++at;
    }
  }
  result.push_back('"');
  return result;
}

}  // namespace sluice
