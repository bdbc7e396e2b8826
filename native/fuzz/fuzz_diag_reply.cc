// A sock_diag reply: whatever comes, nothing is read beyond it. The first byte chooses the family that was asked for.
#include <cstdint>
#include <cstdlib>
#include <linux/inet_diag.h>
#include <linux/netlink.h>

#include "witness/diag.h"

namespace {

sluice::Endpoint asked(bool v4, std::uint16_t port) {
  sluice::Endpoint endpoint;
  endpoint.storage.ss_family = v4 ? AF_INET : AF_INET6;
  endpoint.setPort(port);
  return endpoint;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const bool v4 = (data[0] & 1U) != 0;
  const auto reply = std::as_bytes(std::span(data + 1, size - 1));
  const auto facts = sluice::decodeDiagReply(reply, asked(v4, 0x0102), asked(v4, 0x0304), 7);
  if (facts && reply.size() < NLMSG_HDRLEN + sizeof(inet_diag_msg)) std::abort();
  return 0;
}
