// The ports dealt to the relay's own ends: within the range, of the other parity than its low end, none twice before all have been dealt.
#include <set>
#include <vector>

#include "net/own_ports.h"
#include "net/socket_options.h"
#include "check.h"

using namespace sluice;

namespace {

std::vector<unsigned> deal(OwnPorts& ports, std::size_t count, const Endpoint& server) {
  std::vector<unsigned> dealt;
  while (dealt.size() < count) dealt.push_back(ports.next(loopback(AF_INET, 1), server));
  return dealt;
}

void round() {
  OwnPorts ports = OwnPorts::otherParity({32768, 60999});
  const auto dealt = deal(ports, 14'116, loopback(AF_INET, 443));
  const std::set<unsigned> different(dealt.begin(), dealt.end());
  CHECK(different.size() == dealt.size());
  CHECK(*different.begin() == 32'769 && *different.rbegin() == 60'999);
  for (const unsigned port : different) CHECK(port % 2 == 1);
  CHECK(ports.next(loopback(AF_INET, 1), loopback(AF_INET, 443)) == dealt.front());
}

// An odd low end: programs are given odd ports first.
void otherParity() {
  OwnPorts ports = OwnPorts::otherParity({1025, 1030});
  for (const unsigned port : deal(ports, 9, loopback(AF_INET6, 443))) CHECK(port == 1026 || port == 1028 || port == 1030);
}

void narrow() {
  OwnPorts two = OwnPorts::otherParity({40'000, 40'001}), one = OwnPorts::otherParity({40'000, 40'000}), none = OwnPorts::otherParity({2, 1}), top = OwnPorts::otherParity({65'534, 65'535});
  CHECK(deal(two, 2, loopback(AF_INET, 443)) == (std::vector<unsigned>{40'001, 40'001}));
  CHECK(deal(one, 1, loopback(AF_INET, 443)) == std::vector<unsigned>{0});
  CHECK(deal(none, 1, loopback(AF_INET, 443)) == std::vector<unsigned>{0});
  CHECK(deal(top, 1, loopback(AF_INET, 443)) == std::vector<unsigned>{65'535});
}

void below() {
  OwnPorts usual = OwnPorts::below({32768, 60999}), low = OwnPorts::below({2050, 65535}), none = OwnPorts::below({1024, 65535});
  const auto dealt = deal(usual, 16'384, loopback(AF_INET, 443));
  const std::set<unsigned> different(dealt.begin(), dealt.end());
  CHECK_EQ(different.size(), dealt.size());
  CHECK(*different.begin() == 16'384 && *different.rbegin() == 32'767);
  for (const unsigned port : deal(low, 5, loopback(AF_INET, 443))) CHECK(port == 2048 || port == 2049);
  CHECK(deal(none, 1, loopback(AF_INET, 443)) == std::vector<unsigned>{0});
}

}  // namespace

int main() {
  round();
  otherParity();
  narrow();
  below();
  return passed();
}
