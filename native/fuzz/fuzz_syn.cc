// What is read from the log of held SYNs (nfnetlink), and a packet from it: whatever comes, nothing is read beyond it, and what is made of it is a SYN again.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "net/syn.h"
#include "net/syn_log.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  if (const auto logged = sluice::loggedPacket(bytes); logged && logged->bytes.size() > size) std::abort();
  // What one read gave is walked through to its end, and every packet lies in it.
  std::size_t at = 0, last = 0;
  while (const auto logged = sluice::nextLogged(bytes, at)) {
    if (at <= last || logged->bytes.data() < bytes.data() || logged->bytes.data() + logged->bytes.size() > bytes.data() + size) std::abort();
    last = at;
  }
  const auto syn = sluice::parseSyn(bytes);
  const auto facts = sluice::readSyn(bytes);
  if (facts.has_value() != syn.has_value() || (syn && (!(facts->client == syn->client) || !(facts->server == syn->server)))) std::abort();
  if (!syn) return 0;
  if (syn->packet.size() > size || syn->packet.size() > 120) std::abort();
  const auto again = sluice::parseSyn(syn->packet);
  if (!again || again->packet != syn->packet || again->sequence != syn->sequence || !(again->client == syn->client) || !(again->server == syn->server)) std::abort();
  // The answer to it is no SYN.
  if (sluice::parseSyn(sluice::buildReset(*syn))) std::abort();
  if (sluice::buildUnreachable(*syn, 1).size() != syn->packet.size() + 8) std::abort();
  return 0;
}
