// What passes between relay and witness, as bytes: pure both ways. Fixed layout of the machine's own byte order, since both ends are
// one program forked in two; each side still checks every length, for the witness reads hostile /proc text and the relay must not
// suffer from a witness gone wrong.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "witness/witness.h"

namespace sluice {

inline constexpr std::size_t kMaxMessage = 8192;

// Bounds of what an answer carries, so that it always fits: name and user 256 bytes, path 3,072, words as in Program.
inline constexpr std::size_t kMaxName = 256, kMaxPath = 3072, kMaxWords = 32, kMaxCommand = 4096;

std::string encodeQuestion(const WitnessQuestion& question);
std::optional<WitnessQuestion> decodeQuestion(std::span<const std::byte> message);

std::string encodeAnswer(const WitnessAnswer& answer);  // cuts what is beyond the bounds
std::optional<WitnessAnswer> decodeAnswer(std::span<const std::byte> message);

}  // namespace sluice
