// Control messages of received datagrams and of errors, and the packets built from them. The first byte chooses the family, the second the
// payload's share of the rest; nothing is read or written beyond its bounds, and fragments put together again are the packet.
#include <arpa/inet.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "net/udp_message.h"
#include "net/udp_packet.h"

namespace {

sluice::Endpoint end(bool v4, std::uint16_t port) {
  sluice::Endpoint endpoint;
  endpoint.storage.ss_family = v4 ? AF_INET : AF_INET6;
  endpoint.setPort(port);
  return endpoint;
}

struct Joined {
  std::size_t header, most;
  std::vector<std::byte> body;
  bool last = false;
};

bool join(void* with, std::span<const std::byte> piece) {
  auto& joined = *static_cast<Joined*>(with);
  if (joined.last || piece.size() > joined.most || piece.size() <= joined.header) std::abort();
  const bool v4 = joined.header == 20;
  std::uint16_t place;
  std::memcpy(&place, piece.data() + (v4 ? 6 : 42), sizeof place);
  place = ntohs(place);
  const std::size_t at = v4 ? (place & 0x1fffU) * 8U : place & 0xfff8U;
  joined.last = v4 ? (place & 0x2000U) == 0 : (place & 1U) == 0;
  if (at != joined.body.size()) std::abort();
  joined.body.insert(joined.body.end(), piece.begin() + static_cast<std::ptrdiff_t>(joined.header), piece.end());
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const bool v4 = (data[0] & 1U) != 0;
  const auto rest = std::as_bytes(std::span(data + 2, size - 2));
  const std::span<const std::byte> control = rest.first(rest.size() * data[1] / 256), payload = rest.subspan(control.size());

  if (sluice::isQuic(payload) && payload.size() < 7) std::abort();
  const sluice::UdpControl said = sluice::parseUdpControl(control);
  if (said.destination && said.destination->family() != AF_INET && said.destination->family() != AF_INET6) std::abort();

  static std::vector<std::byte> packet(sluice::kMaxPacket);
  const sluice::Endpoint from = end(v4, 53), to = end(v4, 40000);
  sluice::UdpError error = sluice::portUnreachable(from.family());
  if (const auto found = sluice::parseUdpError(control); found) {
    if (found->offender && found->offender->family() != found->family) std::abort();
    if (found->family == from.family()) error = *found;
  }
  const sluice::Endpoint source = error.offender.value_or(from);
  if (sluice::buildIcmpError(packet.data(), source, error, {to, from, payload.size() * (data[0] + 1U), payload}) > 1280) std::abort();

  const std::size_t length = sluice::buildUdpPacket(packet.data(), from, to, said.tos, payload);
  if (length != (v4 ? 28 : 48) + payload.size()) std::abort();
  Joined joined{v4 ? 20U : 48U, 576 + (data[0] >> 1U) * 8U, {}};
  if (!sluice::eachFragment({packet.data(), length}, joined.most, 7, join, &joined) || !joined.last) std::abort();
  if (joined.body.size() != length - (v4 ? 20 : 40) || std::memcmp(joined.body.data(), packet.data() + (v4 ? 20 : 40), joined.body.size()) != 0) std::abort();
  return 0;
}
