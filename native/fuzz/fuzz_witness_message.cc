// Both directions of the witness's channel: any bytes are refused or understood, within the bounds, and understood is the same again.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "capture/pcapng.h"
#include "witness/messages.h"

namespace {

std::span<const std::byte> bytesOf(const std::string& text) { return std::as_bytes(std::span(text.data(), text.size())); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  if (const auto question = sluice::decodeQuestion(input)) {
    const std::string wire = sluice::encodeQuestion(*question);
    const auto again = sluice::decodeQuestion(bytesOf(wire));
    if (!again || again->token != question->token || !(again->client == question->client) || !(again->server == question->server)) std::abort();
  }
  if (const auto answer = sluice::decodeAnswer(input)) {
    const std::string wire = sluice::encodeAnswer(*answer);
    if (wire.size() != size || std::memcmp(wire.data(), data, size) != 0) std::abort();
    if (answer->program) {
      const sluice::Program& program = *answer->program;
      if (program.cmdline.size() > sluice::kMaxWords) std::abort();
      // And on into the facts, which are bounded too.
      std::string json, block;
      sluice::pcapng::appendProcess(json, 1, program, 0, false);
      sluice::pcapng::appendFact(block, json);
      sluice::pcapng::appendWiresharkProcess(block, program);
      if (block.size() > 100'000 || block.size() % 4 != 0) std::abort();
    }
  }
  return 0;
}
