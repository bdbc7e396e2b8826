// Hostile text from /proc as a JSON string: always well-formed, harmless to a terminal, and the same text again when read back.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "capture/text.h"
#include "control/json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 8192) return 0;  // longer than anything the witness gives, and escaped it must stay below a control line
  const std::string_view raw(reinterpret_cast<const char*>(data), size);
  std::string json;
  sluice::appendJsonString(json, raw);
  for (const char byte : json) {
    if (static_cast<std::uint8_t>(byte) < 0x20 || byte == 0x7F) std::abort();
  }
  std::string clean;
  sluice::appendUtf8(clean, raw, 3 * size);
  // The relay's strict reader, written apart from the writer, is the judge.
  const auto value = sluice::parseJson(json);
  if (!value || value->text() == nullptr || *value->text() != clean) std::abort();
  // Cut anywhere, it stays whole code points.
  std::string cut;
  const std::size_t most = size == 0 ? 0 : data[0];
  sluice::appendUtf8(cut, raw, most);
  if (cut.size() > most || clean.compare(0, cut.size(), cut) != 0) std::abort();
  for (std::string_view rest = cut; !rest.empty();) {
    const sluice::CodePoint point = sluice::decodeUtf8(rest);
    if (!point.wellFormed) std::abort();
    rest.remove_prefix(point.length);
  }
  return 0;
}
