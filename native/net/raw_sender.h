// Packets that no ordinary socket sends: a held SYN on its way again, and the answers of destinations that did not let it in.
#pragma once

#include <cstdint>

#include "net/descriptor.h"
#include "net/syn.h"

namespace sluice {

class RawSender {
 public:
  // `releasedMark` leads a SYN to the relay's listener and past the rule that holds; `uplinkMark` lets answers pass the rules. CAP_NET_RAW.
  RawSender(std::uint32_t releasedMark, std::uint32_t uplinkMark);
  [[nodiscard]] bool good() const;

  // A local program's SYN takes the way out once more, so that conntrack sees what it would have seen. A forwarded one is put on lo as if it had just come in:
  // on the way out somebody's masquerade would change its sender.
  void release(const Syn& syn, bool local) const;
  void reset(const Syn& syn) const;
  // `error`: why connect(2) failed. False: nothing on the wire says that.
  bool unreachable(const Syn& syn, int error) const;

 private:
  [[nodiscard]] const Descriptor& raw(const Syn& syn) const { return syn.client.v4() ? raw4_ : raw6_; }
  Descriptor raw4_, raw6_, released4_, released6_, loopback_, icmp4_, icmp6_;
};

}  // namespace sluice
