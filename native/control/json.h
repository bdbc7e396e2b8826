// JSON (RFC 8259) for the control channel: short lines of known shape, so the least that reads them strictly.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sluice {

constexpr std::size_t kMaxControlLine = 512U << 10U;  // bytes, without the line feed; the longest start has 4,096 ranges of refused ports and as many, twice, of handed-over ones

// Stricter than the RFC: a key twice, nesting beyond eight, a number that is no integer of 53 bits, and text that is not UTF-8 are errors.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::map<std::string, Json, std::less<>>;

  Json() = default;
  template <typename Value>
  explicit Json(Value value) : value_(std::move(value)) {}

  [[nodiscard]] bool isNull() const { return std::holds_alternative<std::nullptr_t>(value_); }
  [[nodiscard]] const bool* boolean() const { return std::get_if<bool>(&value_); }
  [[nodiscard]] const std::int64_t* integer() const { return std::get_if<std::int64_t>(&value_); }
  [[nodiscard]] const std::string* text() const { return std::get_if<std::string>(&value_); }
  [[nodiscard]] const Array* array() const { return std::get_if<Array>(&value_); }
  [[nodiscard]] const Object* object() const { return std::get_if<Object>(&value_); }
  [[nodiscard]] const Json* member(std::string_view key) const;  // null: not an object, or not there

 private:
  std::variant<std::nullptr_t, bool, std::int64_t, std::string, Array, Object> value_{nullptr};
};

// One value and nothing after it but white space; nullopt for anything else, or more than kMaxControlLine bytes.
std::optional<Json> parseJson(std::string_view text);

// `text` in quotes; control characters escaped. Bytes that are not UTF-8 become U+FFFD.
std::string quoteJson(std::string_view text);

}  // namespace sluice
