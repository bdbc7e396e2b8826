// Text that goes into facts: numbers, and strings from anywhere made fit for JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "net/endpoint.h"

namespace sluice {

// The code point at the start of `rest` and its length; an ill-formed start gives U+FFFD and the length of its longest
// well-formed beginning, at least 1 (the practice of Unicode 15, 3.9, table 3-8). `rest` must not be empty.
struct CodePoint { std::uint32_t value; std::size_t length; bool wellFormed; };
CodePoint decodeUtf8(std::string_view rest);

// `raw` as a JSON string with its quotes (RFC 8259). Ill-formed UTF-8 becomes U+FFFD. Beyond what JSON asks, all that could drive
// a terminal or turn text around when the file is looked at raw is written as \uXXXX: DEL, C1, line separators, bidi controls.
void appendJsonString(std::string& out, std::string_view raw);

// `raw` as well-formed UTF-8, ill-formed parts replaced by U+FFFD, at most `most` bytes long and never cut inside a code point.
void appendUtf8(std::string& out, std::string_view raw, std::size_t most);

void appendNumber(std::string& out, std::uint64_t value);
void appendNumber(std::string& out, std::int64_t value);

// As Endpoint::address(), but without leaving for libc where it is IPv4 (it stands in two facts of every flow), and a link-local one with its interface: fe80::1%eth0.
void appendAddress(std::string& out, const Endpoint& endpoint);

}  // namespace sluice
