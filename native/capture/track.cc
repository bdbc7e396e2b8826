#include <algorithm>
#include <cstring>

#include "capture/pcapng.h"
#include "capture/shared.h"

namespace sluice {

namespace {

constexpr std::size_t index(Direction direction) { return static_cast<std::size_t>(direction); }
constexpr std::uint8_t kDataFlags = pcapng::kPsh | pcapng::kAck;

constexpr Direction other(Direction direction) { return direction == Direction::kUp ? Direction::kDown : Direction::kUp; }

std::size_t packet(std::byte* out, const FlowRecord& flow, Direction direction, std::uint8_t flags, std::int64_t nanoseconds,
                   std::span<const std::byte> payload = {}) {
  const bool up = direction == Direction::kUp;
  const pcapng::Segment segment{
      .from = up ? &flow.client : &flow.server,
      .to = up ? &flow.server : &flow.client,
      .direction = direction,
      .sequence = flow.nextSequence[index(direction)],
      .acknowledgement = (flags & pcapng::kAck) != 0 ? flow.nextSequence[index(other(direction))] : 0,
      .flags = flags,
      .nanoseconds = nanoseconds,
      .pid = flow.pid,
  };
  return pcapng::writePacket(out, segment, payload);
}

std::size_t sizeOf(const FlowRecord& flow, std::uint8_t flags, std::size_t payload = 0) {
  return pcapng::packetSize(flow.client.v4(), flags, payload, flow.pid != 0);
}

std::byte* copy(std::byte* out, const std::string& text) {
  std::memcpy(out, text.data(), text.size());
  return out + text.size();
}

// Which resets went over the wire. Nobody but the two peers answers for a flow they ended; one that the relay ended (gate closed, shed,
// failed) it reset on both sides, the server's only if there was a connection. Unreachable and timed out are no segments of TCP at all.
struct Resets { bool down, up; };
Resets resets(CloseReason reason, bool connected) {
  switch (reason) {
    case CloseReason::kClientReset: return {false, true};
    case CloseReason::kServerReset:
    case CloseReason::kRefused: return {true, false};
    case CloseReason::kGateClosed:
    case CloseReason::kShed:
    case CloseReason::kFailed: return {true, connected};
    default: return {false, false};
  }
}

}  // namespace

std::string_view name(GapReason reason) {
  switch (reason) {
    case GapReason::kNoPayload: return "no-payload";
    case GapReason::kFlowCap: return "flow-cap";
    case GapReason::kSlow: return "slow";
    case GapReason::kSessionCap: return "session-cap";
  }
  return "slow";
}

Track::Impl::Impl(Shared& all) : shared(all), current(all.pool.take(0)), head(current) { text.reserve(1024); }

// Announce the segment, look once more whether it is still the one: the writer, who looks the other way round, then either sees us in the old one and
// waits, or is certain that we go into the new one.
bool Track::Impl::enter() {
  std::uint32_t wanted = shared.segment.load(std::memory_order_acquire);
  if (segment != wanted) {
    const bool moves = segment != 0;  // and not from nowhere, as every turn of a thread begins
    if (moves) publish();
    do {
      segment = wanted;
      inside.store(segment, std::memory_order_seq_cst);
      wanted = shared.segment.load(std::memory_order_seq_cst);
    } while (segment != wanted);
    if (moves && shared.sleep.load(std::memory_order_relaxed) != kAwake) shared.wake();  // the old one may end now
  }
  if (current->segment.load(std::memory_order_relaxed) == segment) return true;
  if (at == 0) {
    current->segment.store(segment, std::memory_order_relaxed);
    return true;
  }
  return grow(false);
}

bool Track::Impl::enter(FlowRecord& flow) {
  if (!enter()) return false;
  if (!flow.opened || flow.segment == segment) return true;
  text.clear();
  pcapng::appendOpen(json, flow, true);
  fact();
  if (flow.program) {
    pcapng::appendProcess(json, flow.id, flow.program->program, flow.program->nanoseconds, true);
    fact();
    if (flow.pid != 0) pcapng::appendWiresharkProcess(text, flow.program->program);
  }
  if (!flow.via.empty()) {
    pcapng::appendHanded(json, flow, true);
    fact();
  }
  if (flow.connected) {
    pcapng::appendConnected(json, flow, true);
    fact();
  }
  if (!putText()) return false;
  flow.segment = segment;
  return true;
}

void Track::Impl::leave() {
  publish();
  if (segment == 0) return;
  const bool old = shared.segment.load(std::memory_order_relaxed) != segment;
  segment = 0;
  inside.store(0, std::memory_order_seq_cst);
  if (old) shared.wake();
}

std::shared_ptr<const ProgramFact> Track::Impl::share(const Program& program, std::int64_t nanoseconds) {
  constexpr std::size_t kRemembered = 16;
  for (const auto& known : programs) {
    if (known->program == program) return known;
  }
  if (programs.size() == kRemembered) programs.erase(programs.begin());
  programs.push_back(std::make_shared<const ProgramFact>(ProgramFact{program, nanoseconds}));
  return programs.back();
}

// Goes on in a fresh block.
bool Track::Impl::grow(bool payload) {
  Block* next = shared.pool.take(shared.reserve);
  if (next == nullptr && !payload) {
    next = shared.pool.take(0);
    if (next != nullptr) next->factsOnly = true;
  }
  if (next == nullptr) {
    shared.slow();
    return false;
  }
  publish();
  next->segment.store(segment, std::memory_order_relaxed);
  current->next.store(next, std::memory_order_release);
  current = next;
  at = published = 0;
  // The writer is told of every fourth full block, or at once where memory is short; the nap of ten milliseconds covers the rest.
  if (++sealed % 4 == 0 || shared.pool.free() <= shared.pool.total() / 2) shared.wake();
  return true;
}

bool Track::Impl::takesPayload() {
  // Slow lasts until the writer has caught up well, not until one block is free: fewer, larger gaps.
  if (shared.state.load(std::memory_order_relaxed) != Recording::kOn) return false;
  if (!current->factsOnly) return true;
  if (shared.pool.free() <= shared.reserve) {
    shared.slow();
    return false;
  }
  current->factsOnly = false;
  return true;
}

std::byte* Track::Impl::room(std::size_t bytes, bool payload) {
  if (payload && !takesPayload()) return nullptr;
  if (at + bytes > shared.pool.blockSize() && !grow(payload)) return nullptr;
  std::byte* const out = current->data + at;
  at += bytes;
  if (shared.options.maxBytes && !shared.options.ring) shared.accepted.fetch_add(bytes, std::memory_order_relaxed);
  return out;
}

void Track::Impl::publish() {
  if (at == published) return;
  const std::size_t more = at - published;
  published = at;
  // Sequentially consistent with the writer's "store sleep, then look at committed": one of us sees the other.
  current->committed.store(at, std::memory_order_seq_cst);
  shared.count(more);
}

void Track::Impl::fact() {
  pcapng::appendFact(text, json);
  json.clear();
}

bool Track::Impl::putText() {
  std::byte* const out = room(text.size(), false);
  if (out == nullptr) return false;
  copy(out, text);
  return true;
}

void Track::Impl::textGap(const FlowRecord& flow, Direction direction, std::int64_t nanoseconds) {
  const std::size_t way = index(direction);
  pcapng::appendGap(json, flow.id, direction, flow.owedGap[way], flow.owedDatagrams[way], name(static_cast<GapReason>(flow.owedReason[way])), nanoseconds);
  fact();
}

void Track::Impl::textGaps(const FlowRecord& flow, std::int64_t nanoseconds) {
  for (const Direction direction : {Direction::kUp, Direction::kDown}) {
    const std::size_t way = index(direction);
    if ((flow.owedGap[way] | flow.owedDatagrams[way]) == 0) continue;
    textGap(flow, direction, nanoseconds);
  }
}

void Track::Impl::settleGap(FlowRecord& flow, std::size_t way) {
  flow.placed[way] += flow.owedGap[way];
  flow.placedDatagrams[way] += flow.owedDatagrams[way];
  flow.owedGap[way] = flow.owedDatagrams[way] = 0;
}

void Track::Impl::owe(FlowRecord& flow, Direction direction, std::uint64_t bytes, std::uint64_t datagrams, GapReason reason, std::int64_t nanoseconds) {
  if ((bytes | datagrams) == 0) return;
  const std::size_t way = index(direction);
  flow.nextSequence[way] += static_cast<std::uint32_t>(bytes);
  if ((flow.owedGap[way] | flow.owedDatagrams[way]) != 0 && flow.owedReason[way] != static_cast<std::uint8_t>(reason)) {
    const auto told = [&] {
      if (flow.muted || !enter(flow)) return false;
      text.clear();
      textGap(flow, direction, nanoseconds);
      return putText();
    };
    if (told()) {
      settleGap(flow, way);
    } else {
      reason = static_cast<GapReason>(flow.owedReason[way]);  // the count must be exact; the two reasons become one
    }
  }
  flow.owedGap[way] += bytes;
  flow.owedDatagrams[way] += datagrams;
  flow.owedReason[way] = static_cast<std::uint8_t>(reason);
}

bool Track::Impl::tellOwed() {
  std::size_t told = 0;
  for (; told < owed.size(); ++told) {
    OwedClose& close = owed[told];
    if (!enter(close.flow)) break;
    text.clear();
    textGaps(close.flow, close.nanoseconds);
    pcapng::appendClose(json, close.flow, close.reason, close.by, close.nanoseconds);
    fact();
    if (!putText()) break;
  }
  owed.erase(owed.begin(), owed.begin() + static_cast<std::ptrdiff_t>(told));
  return owed.empty();
}

Track::Track() = default;
Track::~Track() = default;
Track::Track(Track&&) noexcept = default;

void Track::opened(FlowRecord& flow, FlowScope scope, std::int64_t nanoseconds) {
  Impl& impl = *impl_;
  if (impl.shared.stopped()) return;
  // A close still owed may be of the same two addresses, and they are not open twice at once.
  if (!impl.owed.empty() && !impl.tellOwed()) return;
  if (!impl.enter()) return;
  impl.text.clear();
  flow.scope = scope;
  flow.openedAt = nanoseconds;
  pcapng::appendOpen(impl.json, flow, false);
  impl.fact();
  std::byte* out = impl.room(impl.text.size() + (flow.udp ? 0 : sizeOf(flow, pcapng::kSyn)), false);
  if (out == nullptr) return;
  flow.opened = true;
  flow.segment = impl.segment;
  out = copy(out, impl.text);
  if (flow.udp) return;
  packet(out, flow, Direction::kUp, pcapng::kSyn, nanoseconds);
  flow.nextSequence[0] += 1;
}

void Track::program(FlowRecord& flow, const Program& program, std::int64_t nanoseconds) {
  Impl& impl = *impl_;
  if (!flow.opened || flow.muted || impl.shared.stopped()) return;
  if (!impl.enter(flow)) return;
  impl.text.clear();
  pcapng::appendProcess(impl.json, flow.id, program, nanoseconds, false);
  impl.fact();
  if (program.pid > 0) pcapng::appendWiresharkProcess(impl.text, program);
  if (!impl.putText()) return;  // without memory the flow stays unnamed
  if (program.pid > 0) flow.pid = static_cast<std::uint32_t>(program.pid);
  flow.program = impl.share(program, nanoseconds);
}

void Track::handed(FlowRecord& flow, std::string_view via, std::int64_t nanoseconds) {
  Impl& impl = *impl_;
  if (!flow.opened || flow.muted || impl.shared.stopped() || !impl.enter(flow)) return;
  impl.text.clear();
  flow.via = via;
  flow.handedAt = nanoseconds;
  pcapng::appendHanded(impl.json, flow, false);
  impl.fact();
  if (!impl.putText()) flow.via = {};
}

void Track::connected(FlowRecord& flow, const Endpoint& upstream, std::int64_t nanoseconds) {
  Impl& impl = *impl_;
  if (!flow.opened || flow.muted || impl.shared.stopped()) return;
  const bool entered = impl.enter(flow);
  impl.text.clear();
  flow.upstream = upstream;
  flow.connectedAt = nanoseconds;
  pcapng::appendConnected(impl.json, flow, false);
  impl.fact();
  if (flow.udp) {
    flow.connected = entered && impl.putText();
    return;
  }
  const std::uint8_t answer = pcapng::kSyn | pcapng::kAck;
  std::byte* out = entered ? impl.room(impl.text.size() + sizeOf(flow, answer) + sizeOf(flow, pcapng::kAck), false) : nullptr;
  if (out == nullptr) {
    flow.muted = true;
    return;
  }
  flow.connected = true;
  out = copy(out, impl.text);
  out += packet(out, flow, Direction::kDown, answer, nanoseconds);
  flow.nextSequence[1] += 1;
  packet(out, flow, Direction::kUp, pcapng::kAck, nanoseconds);
}

void Track::data(FlowRecord& flow, Direction direction, std::span<const std::byte> bytes, std::int64_t nanoseconds) {
  Impl& impl = *impl_;
  Shared& shared = impl.shared;
  const RecorderOptions& options = shared.options;
  flow.bytes[index(direction)] += bytes.size();
  if (!flow.opened || shared.stopped()) return;

  std::size_t allowed = bytes.size();
  GapReason why = GapReason::kSlow;
  if (!options.payload) {
    allowed = 0, why = GapReason::kNoPayload;
  } else if (shared.full.load(std::memory_order_relaxed)) {
    allowed = 0, why = GapReason::kSessionCap;
  } else if (options.maxBytesPerFlow) {
    const std::uint64_t left = *options.maxBytesPerFlow - std::min(*options.maxBytesPerFlow, flow.kept);
    if (left < allowed) allowed = static_cast<std::size_t>(left), why = GapReason::kFlowCap;
  }
  if (flow.muted && allowed > 0) allowed = 0, why = GapReason::kSlow;

  constexpr std::uint8_t flags = kDataFlags;
  std::size_t done = 0;
  while (done < allowed) {
    std::size_t chunk = std::min(allowed - done, pcapng::kMaxPayload);
    if (!impl.enter(flow)) {
      why = GapReason::kSlow;
      break;
    }
    impl.text.clear();
    // What is owed either way round is stated before anything is kept again, in one piece with it or not at all.
    if ((flow.owedGap[0] | flow.owedGap[1]) != 0) impl.textGaps(flow, nanoseconds);
    if (options.maxBytes && !options.ring) {
      const std::uint64_t used = shared.accepted.load(std::memory_order_relaxed) + impl.text.size() + sizeOf(flow, flags);
      const std::uint64_t left = (*options.maxBytes - std::min(*options.maxBytes, used)) & ~std::uint64_t{3};
      if (left < chunk) {
        shared.full.store(true, std::memory_order_relaxed);
        chunk = allowed = static_cast<std::size_t>(left);
        allowed += done, why = GapReason::kSessionCap;
        if (chunk == 0) break;
      }
    }
    std::byte* out = impl.room(impl.text.size() + sizeOf(flow, flags, chunk), true);
    if (out == nullptr) {
      why = GapReason::kSlow;
      break;
    }
    if (!impl.text.empty()) {
      out = copy(out, impl.text);
      Impl::settleGaps(flow);
    }
    packet(out, flow, direction, flags, nanoseconds, bytes.subspan(done, chunk));
    flow.nextSequence[index(direction)] += static_cast<std::uint32_t>(chunk);
    flow.kept += chunk;
    flow.placed[index(direction)] += chunk;
    done += chunk;
  }
  impl.owe(flow, direction, bytes.size() - done, 0, why, nanoseconds);
}

std::span<std::byte> Track::reserve(FlowRecord& flow, std::size_t most) {
  Impl& impl = *impl_;
  const RecorderOptions& options = impl.shared.options;
  // What is bounded, or has a gap to be stated first, is data()'s.
  if (!keeps(flow) || options.maxBytesPerFlow || (options.maxBytes && !options.ring)) return {};
  if ((flow.owedGap[0] | flow.owedGap[1]) != 0 || !impl.enter(flow) || !impl.takesPayload()) return {};
  constexpr std::size_t kLeast = 16U << 10U;  // less than that is not worth a call: the block has ended
  const std::size_t around = sizeOf(flow, kDataFlags, 3);  // with the most padding
  const auto left = [&] { return impl.shared.pool.blockSize() - impl.at - std::min(around, impl.shared.pool.blockSize() - impl.at); };
  if (left() < std::min(most, kLeast) && !impl.grow(true)) return {};
  return {impl.current->data + impl.at + pcapng::payloadAt(flow.client.v4(), kDataFlags), std::min({most, left(), pcapng::kMaxPayload})};
}

void Track::commit(FlowRecord& flow, Direction direction, std::size_t bytes, std::int64_t nanoseconds) {
  Impl& impl = *impl_;
  std::byte* const out = impl.current->data + impl.at;
  impl.at += packet(out, flow, direction, kDataFlags, nanoseconds, {out + pcapng::payloadAt(flow.client.v4(), kDataFlags), bytes});
  flow.bytes[index(direction)] += bytes;
  flow.nextSequence[index(direction)] += static_cast<std::uint32_t>(bytes);
  flow.kept += bytes;
  flow.placed[index(direction)] += bytes;
}

bool Track::keeps(const FlowRecord& flow) const {
  const Shared& shared = impl_->shared;
  return flow.opened && !flow.muted && shared.options.payload && shared.state.load(std::memory_order_relaxed) == Recording::kOn &&
         !shared.full.load(std::memory_order_relaxed) && (!shared.options.maxBytesPerFlow || flow.kept < *shared.options.maxBytesPerFlow);
}

void Track::passed(FlowRecord& flow, Direction direction, std::uint64_t bytes, std::int64_t nanoseconds) {
  const Shared& shared = impl_->shared;
  flow.bytes[index(direction)] += bytes;
  if (!flow.opened || shared.stopped()) return;
  const GapReason why = !shared.options.payload ? GapReason::kNoPayload
                        : shared.full.load(std::memory_order_relaxed) ? GapReason::kSessionCap
                        : shared.options.maxBytesPerFlow && flow.kept >= *shared.options.maxBytesPerFlow ? GapReason::kFlowCap : GapReason::kSlow;
  impl_->owe(flow, direction, bytes, 0, why, nanoseconds);
}

void Track::finished(FlowRecord& flow, Direction direction, std::int64_t nanoseconds) {
  Impl& impl = *impl_;
  if (!flow.opened || flow.muted || impl.shared.stopped()) return;
  const bool entered = impl.enter(flow);
  impl.text.clear();
  impl.textGaps(flow, nanoseconds);
  constexpr std::uint8_t flags = pcapng::kFin | pcapng::kAck;
  std::byte* out = entered ? impl.room(impl.text.size() + sizeOf(flow, flags), false) : nullptr;
  if (out == nullptr) {
    flow.muted = true;
    return;
  }
  Impl::settleGaps(flow);
  packet(copy(out, impl.text), flow, direction, flags, nanoseconds);
  flow.nextSequence[index(direction)] += 1;
}

void Track::closed(FlowRecord& flow, CloseReason reason, ClosedBy by, std::int64_t nanoseconds) {
  Impl& impl = *impl_;
  if (!flow.opened || impl.shared.stopped()) return;

  // A close that finds others waiting waits behind them, so that closes come in the order they happened.
  if ((impl.owed.empty() || impl.tellOwed()) && impl.enter(flow)) {
    impl.text.clear();
    impl.textGaps(flow, nanoseconds);
    const std::size_t gaps = impl.text.size();
    pcapng::appendClose(impl.json, flow, reason, by, nanoseconds);
    impl.fact();
    // The server's sequence is past 0 exactly if its SYN was recorded.
    const Resets sent = flow.muted || flow.udp ? Resets{false, false} : resets(reason, flow.nextSequence[1] != 0);
    constexpr std::uint8_t flags = pcapng::kRst | pcapng::kAck;
    const std::size_t one = sizeOf(flow, flags);
    std::byte* out = impl.room(impl.text.size() + one * (sent.down + sent.up), false);
    if (out != nullptr) {
      std::memcpy(out, impl.text.data(), gaps);
      out += gaps;
      if (sent.down) out += packet(out, flow, Direction::kDown, flags, nanoseconds);
      if (sent.up) out += packet(out, flow, Direction::kUp, flags, nanoseconds);
      std::memcpy(out, impl.text.data() + gaps, impl.text.size() - gaps);
      Impl::settleGaps(flow);
      flow.opened = false;
      return;
    }
  }
  // Beyond the limit it stays open in the file: the recording ended for it, which is the truth.
  if (impl.owed.size() < Impl::kMaxOwed) impl.owed.push_back({.flow = flow, .nanoseconds = nanoseconds, .reason = reason, .by = by});
  flow.opened = false;
}

void Track::flush() {
  Impl& impl = *impl_;
  if (!impl.owed.empty() && !impl.shared.stopped()) impl.tellOwed();
  const bool more = impl.at != impl.published;
  impl.leave();
  if (more) impl.shared.wakeIfSleeping();
}

}  // namespace sluice
