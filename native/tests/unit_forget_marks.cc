// What conntrack says of a flow becomes an order that takes the gate's bits from its mark and names the flow as it was named; of what is cut short or spoilt, nothing beyond it is read.
#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>

#include <cstring>
#include <vector>

#include "check.h"
#include "net/forget_marks.h"

using namespace sluice;

namespace {

using Bytes = std::vector<std::byte>;
constexpr std::size_t kHead = sizeof(nlmsghdr) + sizeof(nfgenmsg);

template <typename Value>
void put(Bytes& into, const Value& value) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  into.insert(into.end(), bytes, bytes + sizeof value);
}
void attribute(Bytes& into, std::uint16_t type, const Bytes& value) {
  put(into, nlattr{static_cast<std::uint16_t>(NLA_HDRLEN + value.size()), type});
  into.insert(into.end(), value.begin(), value.end());
  into.resize(NLMSG_ALIGN(into.size()));
}
Bytes number(std::uint32_t value) {
  Bytes bytes;
  put(bytes, htonl(value));
  return bytes;
}
const Bytes kTuple(36, std::byte{7}), kZone(2, std::byte{9});

Bytes message(std::uint16_t type, const Bytes& body) {
  Bytes bytes;
  put(bytes, nlmsghdr{static_cast<std::uint32_t>(kHead + body.size()), type, NLM_F_MULTI, 1, 2});
  put(bytes, nfgenmsg{2, NFNETLINK_V0, 0});
  bytes.insert(bytes.end(), body.begin(), body.end());
  return bytes;
}
Bytes flow(std::uint32_t mark, bool zone) {
  Bytes body;
  attribute(body, CTA_TUPLE_ORIG | NLA_F_NESTED, kTuple);
  attribute(body, CTA_TUPLE_REPLY | NLA_F_NESTED, Bytes(36, std::byte{8}));
  attribute(body, CTA_MARK, number(mark));
  if (zone) attribute(body, CTA_ZONE, kZone);
  return message(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW, body);
}
Bytes order(std::uint32_t bits, bool zone) {
  Bytes body;
  attribute(body, CTA_TUPLE_ORIG | NLA_F_NESTED, kTuple);
  if (zone) attribute(body, CTA_ZONE, kZone);
  attribute(body, CTA_MARK, number(0));
  attribute(body, CTA_MARK_MASK, number(bits));
  Bytes bytes = message(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW, body);
  const nlmsghdr head{static_cast<std::uint32_t>(bytes.size()), NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW, NLM_F_REQUEST, 0, 0};
  std::memcpy(bytes.data(), &head, sizeof head);
  return bytes;
}

constexpr std::uint32_t kBits = 0x92000000;

void orders() {
  Bytes reply, wanted, got;
  for (const bool zone : {false, true}) {
    for (const std::uint32_t mark : {0x10000000U, 0U, 0x01000042U, 0x93000001U}) {
      const Bytes one = flow(mark, zone);
      reply.insert(reply.end(), one.begin(), one.end());
      if ((mark & kBits) == 0) continue;
      const Bytes each = order(kBits, zone);
      wanted.insert(wanted.end(), each.begin(), each.end());
    }
  }
  CHECK(takeMarks(reply, kBits, got));
  CHECK(got == wanted);
  CHECK(!takeMarks(message(NLMSG_DONE, {}), kBits, got));
  CHECK(!takeMarks(message(NLMSG_ERROR, number(1)), kBits, got));
  CHECK(got == wanted);
}

// Each as a piece of memory of its own, so that a sanitizer sees a byte too far.
void spoilt() {
  const Bytes whole = flow(kBits, true), wanted = order(kBits, true);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    Bytes got;
    takeMarks(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)), kBits, got);
    CHECK(got.empty());
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const unsigned value : {0U, 1U, 3U, 0x7fU, 0xffU}) {
      Bytes other = whole, got;
      other[at] = static_cast<std::byte>(value);
      takeMarks(other, kBits, got);
      CHECK(got.size() <= wanted.size() + whole.size());
    }
  }
}

}  // namespace

int main() {
  orders();
  spoilt();
  return check::passed();
}
