#include "net/own_ports.h"

#include <sys/random.h>

#include <cstdio>
#include <ctime>

#include "relay/upstream_set.h"

namespace sluice {

namespace {

OwnPorts::Range ephemeral() {
  unsigned low = 32768, high = 60999;
  if (std::FILE* const file = std::fopen("/proc/sys/net/ipv4/ip_local_port_range", "re"); file != nullptr) {
    if (std::fscanf(file, "%u %u", &low, &high) != 2 || low > 65535 || high > 65535) low = high = 0;
    std::fclose(file);
  }
  return {static_cast<std::uint16_t>(low), static_cast<std::uint16_t>(high)};
}

}  // namespace

OwnPorts::OwnPorts(std::uint16_t first, std::uint32_t count, std::uint16_t step) : first_(first), count_(count), step_(step) {
  std::array<std::uint32_t, std::tuple_size_v<decltype(rows_)>> begin{};
  [[maybe_unused]] const auto got = ::getrandom(begin.data(), sizeof begin, 0);
  for (std::size_t row = 0; row < rows_.size(); ++row) rows_[row] = begin[row];
}

std::uint16_t OwnPorts::next(const Endpoint& client, const Endpoint& server) {
  if (count_ == 0) return 0;
  const std::size_t row = UpstreamSet::Hash{}({addressBytes(client), addressBytes(server), 0, server.port(), 0}) % rows_.size();
  return static_cast<std::uint16_t>(first_ + rows_[row].fetch_add(1, std::memory_order_relaxed) % count_ * step_);
}

OwnPorts OwnPorts::below(Range range) {
  constexpr std::uint16_t kLowest = 2048, kMost = 16'384;
  const std::uint16_t first = range.low > kLowest + kMost ? static_cast<std::uint16_t>(range.low - kMost) : kLowest;
  return {first, range.low > first ? std::uint32_t{range.low} - first : 0, 1};
}

OwnPorts& ownTcpPorts() {
  static OwnPorts ports = OwnPorts::otherParity(ephemeral());
  return ports;
}

OwnPorts& ownUdpPorts() {
  static OwnPorts ports = OwnPorts::below(ephemeral());
  return ports;
}

}  // namespace sluice
