// A line on the control channel: any bytes give a message, and one that is accepted keeps what its type promises.
#include <cstdint>
#include <cstdlib>
#include <variant>

#include "capture/text.h"
#include "control/json.h"
#include "control/message.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  const sluice::ControlMessage message = sluice::parseControlLine(line);
  if (const auto* start = std::get_if<sluice::StartMessage>(&message)) {
    if (start->port == 0 || start->portTries > 1000 || start->threads < 1 || start->threads > 64 || start->groups.size() > 65'536) std::abort();
    if (start->maxFlows < 1 || start->maxFlows > 1'000'000 || start->folder.empty() || start->folder[0] != '/') std::abort();
    if (start->refuse.size() > 1024) std::abort();
    for (const auto& range : start->refuse) if (range.from == 0 || range.from > range.to) std::abort();
    for (const unsigned seconds : {start->udpIdle.dns, start->udpIdle.quic, start->udpIdle.other}) if (seconds < 1 || seconds > 86'400) std::abort();
    if (start->version.empty() || start->version.size() > 64) std::abort();
  }
  // What is not JSON is no message, and a string survives the way out and back.
  if (!sluice::parseJson(line) && !std::holds_alternative<sluice::MalformedMessage>(message)) std::abort();
  const auto back = sluice::parseJson(sluice::quoteJson(line.substr(0, 4096)));
  if (!back || back->text() == nullptr) std::abort();
  return 0;
}
