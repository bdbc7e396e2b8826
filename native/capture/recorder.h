// The record of a session: a ring of pcapng files, written behind the relaying threads' backs.
//
// Layout: ARCHITECTURE.md, "The capture". A relaying thread owns one Track and only copies into memory there: no call of a Track
// ever waits for the disk. A writer thread takes the filled blocks and appends them. What does not fit into the bounded memory,
// or does not fit the disk, is stated exactly as a gap.
//
// Each file (a segment) stands for itself. Where one segment ends and the next begins is decided for each track by its own thread, between
// two pieces of its stream; a flow that goes on is stated again before its first packet in the new one.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "net/endpoint.h"
#include "net/tcp_leg.h"

struct iovec;

namespace sluice {

enum class Recording : std::uint8_t { kOff, kOn, kSlow, kStopped };  // kStopped: the file could not be written any more (disk full, error)

enum class CloseReason : std::uint8_t {
  kFinished, kClientReset, kServerReset, kRefused, kUnreachable, kTimedOut, kGateClosed, kShed, kFailed,
  kIdle  // UDP: nobody said anything for long, the ordinary end there
};
enum class ClosedBy : std::uint8_t { kNone, kClient, kServer, kGate };

struct Program {  // what the witness found; text is raw bytes from /proc, escaped when written
  std::int64_t pid = 0, ppid = 0;
  std::uint32_t uid = 0;
  std::string name, path, user;
  std::vector<std::string> cmdline;  // bounded by the witness: 32 words, 4 KiB in all
  bool operator==(const Program&) const = default;
};

struct RecorderOptions {
  std::string folder;                              // of the session; must exist
  std::string version;                             // for shb_userappl and the session fact
  bool payload = true;
  std::optional<std::uint64_t> maxBytesPerFlow{};   // payload bytes kept of a flow, both directions together
  std::optional<std::uint64_t> maxBytes{};         // size of all segments together: beyond it the oldest goes, or, without a ring, payload is no longer kept (facts are)
  bool ring = false;                               // the oldest segment makes room for the newest; needs maxBytes
  std::uint64_t segmentBytes = 256U << 20U;        // at about which a segment ends (a block of memory a track more at most); a quarter of a ring's maxBytes at most
  std::size_t tracks = 1;                          // relaying threads
  std::size_t memory = 64U << 20U;                 // bytes waiting for the disk, all tracks together (at least 256 KiB a track are taken): a pause of some fifty milliseconds at a gigabyte a second
  ssize_t (*write)(int, const struct iovec*, int) = nullptr;  // instead of writev(2): tests script a slow, short or failing disk
};

// Whose flow it is: a program's of this machine, somebody's who is routed through it, or somebody's who speaks to a service of this machine.
enum class FlowScope : std::uint8_t { kLocal, kForwarded, kIncoming };

struct ProgramFact {
  Program program;
  std::int64_t nanoseconds = 0;
};

// What the recorder keeps of one flow: small, lives inside the relay's flow.
struct FlowRecord {
  std::uint64_t id = 0;
  Endpoint client, server;
  std::uint32_t nextSequence[2] = {0, 0};          // by Direction, modulo 2^32
  std::uint64_t bytes[2] = {0, 0};                 // relayed, exact
  std::uint64_t kept = 0;                          // payload bytes recorded
  std::uint64_t placed[2] = {0, 0};                // bytes the record knows of: kept, or stated as a gap
  std::uint64_t owedGap[2] = {0, 0};               // relayed, not kept, not yet stated
  std::uint8_t owedReason[2] = {0, 0};
  bool opened = false;                             // its open fact has been recorded
  bool udp = false;                                // set before opened(); what follows counts for UDP alone
  std::uint32_t pid = 0;                           // of the program, once recorded: packets name it
  std::uint32_t segment = 0;                       // where it was last stated
  FlowScope scope = FlowScope::kForwarded;
  bool connected = false;
  std::int64_t openedAt = 0, connectedAt = 0;
  Endpoint upstream;
  std::string_view via{};                          // the proxy it was handed to, as a JSON object; outlives the recorder
  std::int64_t handedAt = 0;
  std::shared_ptr<const ProgramFact> program;      // to be stated again; one for all flows of a program
  std::optional<TcpLeg> legs[2];                   // TCP: to the client, to the server; set before closed()
  bool muted = false;                              // a fact of it found no memory: until its close only gaps are counted
  std::uint64_t datagrams[2] = {0, 0};             // relayed, exact: each was sent on
  std::uint64_t lost[2] = {0, 0};                  // datagrams received and not sent on, as a network loses them
  std::uint64_t owedDatagrams[2] = {0, 0};         // of owedGap
  std::uint64_t placedDatagrams[2] = {0, 0};       // of placed
};

class Recorder;

class Track {
 public:
  // Each call is of the owning thread alone and never blocks. `nanoseconds` is wall time, see Recorder::now(). The packets of TCP's
  // handshake and end belong to TCP flows only.
  void opened(FlowRecord& flow, FlowScope scope, std::int64_t nanoseconds);               // open fact and SYN
  void program(FlowRecord& flow, const Program& program, std::int64_t nanoseconds);
  void connected(FlowRecord& flow, const Endpoint& upstream, std::int64_t nanoseconds);   // fact, SYN/ACK, ACK
  void handed(FlowRecord& flow, std::string_view via, std::int64_t nanoseconds);          // to a proxy, which `via` names as a JSON object
  void data(FlowRecord& flow, Direction direction, std::span<const std::byte> bytes, std::int64_t nanoseconds);
  // Where bytes of the flow may be received, so that they lie in the record at once, `most` or fewer; empty: nowhere now, and data() takes them from
  // elsewhere. commit() makes them count, `bytes` of them, with no other call of this track between; without it nothing happened.
  std::span<std::byte> reserve(FlowRecord& flow, std::size_t most);
  void commit(FlowRecord& flow, Direction direction, std::size_t bytes, std::int64_t nanoseconds);
  // Bytes that went by unseen, to be stated as a gap; only of a flow of which nothing is kept now: a reason other than "slow" lasts.
  void passed(FlowRecord& flow, Direction direction, std::uint64_t bytes, std::int64_t nanoseconds);
  [[nodiscard]] bool keeps(const FlowRecord& flow) const;
  void datagram(FlowRecord& flow, Direction direction, std::span<const std::byte> bytes, std::int64_t nanoseconds);  // of UDP: whole or a gap
  void finished(FlowRecord& flow, Direction direction, std::int64_t nanoseconds);         // FIN of that direction
  void closed(FlowRecord& flow, CloseReason reason, ClosedBy by, std::int64_t nanoseconds);  // RST where the reason is one; close fact
  void flush();  // once a turn of the loop: what is buffered becomes visible to the writer within ~20 ms

 private:
  friend class Recorder;
  friend struct Shared;
  struct Impl;
  std::unique_ptr<Impl> impl_;
 public:
  Track();
  ~Track();
  Track(Track&&) noexcept;
};

class Recorder {
 public:
  // Opens folder/capture-000001.pcapng (O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC, 0600) and writes its head; more follow (segments.h). On failure: null, and errno in `error`.
  static std::unique_ptr<Recorder> open(const RecorderOptions& options, int& error);
  ~Recorder();
  Track& track(std::size_t index);
  [[nodiscard]] Recording state() const;         // any thread
  [[nodiscard]] int lastError() const;           // errno behind kStopped
  // Writes what is left, waits at most `milliseconds`, closes the file. True when all was written. The owners of the tracks must
  // have stopped calling them. A disk that hangs is left behind with the thread that waits for it.
  bool finish(int milliseconds);
  static std::int64_t now();                     // realtime at first call plus CLOCK_MONOTONIC since, nanoseconds

 private:
  Recorder();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
