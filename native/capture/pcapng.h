// The blocks of the capture as bytes: pure encoders, no state, no file. Layout: ARCHITECTURE.md, "The capture";
// pcapng: draft-ietf-opsawg-pcapng; headers: RFC 791, RFC 8200, RFC 9293.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "capture/recorder.h"
#include "net/endpoint.h"

namespace sluice::pcapng {

inline constexpr std::size_t kMaxPayload = 65'480;  // in one packet: the IPv4 total length ends at 65,535

inline constexpr std::size_t kMaxDatagram = 65'527;  // UDP's length field; IPv4 ends 20 bytes earlier

// TCP flag bits, RFC 9293.
inline constexpr std::uint8_t kFin = 0x01, kSyn = 0x02, kRst = 0x04, kPsh = 0x08, kAck = 0x10;

inline constexpr std::size_t padded(std::size_t bytes) { return (bytes + 3U) & ~std::size_t{3U}; }

// One synthesised TCP segment.
struct Segment {
  const Endpoint* from;
  const Endpoint* to;           // same family
  Direction direction;
  std::uint32_t sequence, acknowledgement;
  std::uint8_t flags;           // with kSyn the segment carries a window scale option
  std::int64_t nanoseconds;     // since the epoch
  std::uint32_t pid;            // of the program behind the flow; 0: not known
};

// Bytes of the Enhanced Packet Block of a segment with that much payload.
std::size_t packetSize(bool v4, std::uint8_t flags, std::size_t payload, bool named);

// Writes that block; `payload` is copied once, unless it lies where it belongs: payloadAt() behind `out`. Returns packetSize(). `payload` is at most
// kMaxPayload.
std::size_t payloadAt(bool v4, std::uint8_t flags);
std::size_t writePacket(std::byte* out, const Segment& segment, std::span<const std::byte> payload);

// One datagram of UDP, whose checksum stays zero (filled in on export).
struct Datagram {
  const Endpoint* from;
  const Endpoint* to;           // same family
  Direction direction;
  std::int64_t nanoseconds;
  std::uint32_t pid;
};
std::size_t datagramSize(bool v4, std::size_t payload, bool named);
std::size_t writeDatagram(std::byte* out, const Datagram& datagram, std::span<const std::byte> payload);  // payload at most kMaxDatagram

// A block of `bytes` (12 or more, in fours) that says nothing.
void writePadding(std::byte* out, std::size_t bytes);

// Section Header Block, Interface Description Block, and the session fact: what every segment starts with.
std::string buildHead(std::string_view version, std::string_view os, bool payload, std::uint32_t segment);

// A Custom Block around one JSON object, appended to `out`.
void appendFact(std::string& out, std::string_view json);

// The bodies of the facts. Strings of a Program are bounded here once more (name and user 256 bytes, path 4 KiB, 32 words of 4 KiB in all).
// `again`: said once more in a later segment; an open then says how many bytes of the flow lie before.
void appendOpen(std::string& json, const FlowRecord& flow, bool again);
void appendProcess(std::string& json, std::uint64_t id, const Program& program, std::int64_t nanoseconds, bool again);
void appendConnected(std::string& json, const FlowRecord& flow, bool again);
void appendHanded(std::string& json, const FlowRecord& flow, bool again);
// Segments `first` to `last`, of so many bytes, have been deleted to keep the budget.
void appendDropped(std::string& json, std::uint32_t first, std::uint32_t last, std::uint64_t bytes, std::int64_t nanoseconds);
// `datagrams`: how many of UDP they were, 0 for TCP.
void appendGap(std::string& json, std::uint64_t id, Direction direction, std::uint64_t bytes, std::uint64_t datagrams, std::string_view reason, std::int64_t nanoseconds);
void appendClose(std::string& json, const FlowRecord& flow, CloseReason reason, ClosedBy by, std::int64_t nanoseconds);

// The block Wireshark 5.1 reads (Custom Block, PEN 32622, entry type 3), appended to `out`. Source: wiretap/pcapng-wireshark-custom.c.
void appendWiresharkProcess(std::string& out, const Program& program);

std::string_view name(CloseReason reason);
std::string_view name(ClosedBy by);

}  // namespace sluice::pcapng
