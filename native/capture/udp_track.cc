// Datagrams of UDP in the record: one packet each, whole or not at all.
#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

#include "capture/packet_block.h"
#include "capture/shared.h"

namespace sluice {

namespace pcapng {

std::size_t datagramSize(bool v4, std::size_t payload, bool named) { return blockSize((v4 ? 20U : 40U) + 8U + payload, named); }

std::size_t writeDatagram(std::byte* out, const Datagram& datagram, std::span<const std::byte> payload) {
  const bool v4 = datagram.from->v4();
  const std::size_t captured = (v4 ? 20U : 40U) + 8U + payload.size();
  const std::size_t size = datagramSize(v4, payload.size(), datagram.pid != 0);
  std::byte* at = beginPacket(out, {datagram.from, datagram.to, IPPROTO_UDP, datagram.nanoseconds, size, captured});
  at = put(at, htons(datagram.from->port()));
  at = put(at, htons(datagram.to->port()));
  at = put(at, htons(static_cast<std::uint16_t>(8U + payload.size())));
  at = put(at, std::uint16_t{0});
  if (!payload.empty()) std::memcpy(at, payload.data(), payload.size());
  endPacket(at + payload.size(), captured, datagram.direction, datagram.pid, size);
  return size;
}

}  // namespace pcapng

void Track::datagram(FlowRecord& flow, Direction direction, std::span<const std::byte> bytes, std::int64_t nanoseconds) {
  Impl& impl = *impl_;
  Shared& shared = impl.shared;
  const RecorderOptions& options = shared.options;
  const auto way = static_cast<std::size_t>(direction);
  flow.bytes[way] += bytes.size();
  ++flow.datagrams[way];
  if (!flow.opened || shared.stopped()) return;

  std::optional<GapReason> missing;
  if (!options.payload) {
    missing = GapReason::kNoPayload;
  } else if (shared.full.load(std::memory_order_relaxed)) {
    missing = GapReason::kSessionCap;
  } else if (options.maxBytesPerFlow && flow.kept + bytes.size() > *options.maxBytesPerFlow) {
    flow.kept = *options.maxBytesPerFlow;  // the beginning of a flow is kept, not whatever happens to fit later
    missing = GapReason::kFlowCap;
  } else if (flow.muted || !impl.enter(flow)) {
    missing = GapReason::kSlow;
  } else {
    impl.text.clear();
    if ((flow.owedDatagrams[0] | flow.owedDatagrams[1]) != 0) impl.textGaps(flow, nanoseconds);
    const std::size_t size = impl.text.size() + pcapng::datagramSize(flow.client.v4(), bytes.size(), flow.pid != 0);
    if (options.maxBytes && !options.ring && shared.accepted.load(std::memory_order_relaxed) + size > *options.maxBytes) {
      shared.full.store(true, std::memory_order_relaxed);
      missing = GapReason::kSessionCap;
    } else if (std::byte* out = impl.room(size, true); out != nullptr) {
      if (!impl.text.empty()) {
        std::memcpy(out, impl.text.data(), impl.text.size());
        out += impl.text.size();
        Impl::settleGaps(flow);
      }
      const bool up = direction == Direction::kUp;
      pcapng::writeDatagram(out, {up ? &flow.client : &flow.server, up ? &flow.server : &flow.client, direction, nanoseconds, flow.pid}, bytes);
      flow.kept += bytes.size();
      flow.placed[way] += bytes.size();
      ++flow.placedDatagrams[way];
    } else {
      missing = GapReason::kSlow;
    }
  }
  if (!missing) return;
  impl.owe(flow, direction, bytes.size(), 1, *missing, nanoseconds);
}

}  // namespace sluice
