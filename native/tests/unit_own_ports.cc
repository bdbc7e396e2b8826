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
  OwnPorts ports(32768, 60999);
  const auto dealt = deal(ports, 14'116, loopback(AF_INET, 443));
  const std::set<unsigned> different(dealt.begin(), dealt.end());
  CHECK(different.size() == dealt.size());
  CHECK(*different.begin() == 32'769 && *different.rbegin() == 60'999);
  for (const unsigned port : different) CHECK(port % 2 == 1);
  CHECK(ports.next(loopback(AF_INET, 1), loopback(AF_INET, 443)) == dealt.front());
}

// An odd low end: programs are given odd ports first.
void otherParity() {
  OwnPorts ports(1025, 1030);
  for (const unsigned port : deal(ports, 9, loopback(AF_INET6, 443))) CHECK(port == 1026 || port == 1028 || port == 1030);
}

void narrow() {
  OwnPorts two(40'000, 40'001);
  CHECK(deal(two, 2, loopback(AF_INET, 443)) == (std::vector<unsigned>{40'001, 40'001}));
  OwnPorts one(40'000, 40'000), none(2, 1);
  CHECK(one.next(loopback(AF_INET, 1), loopback(AF_INET, 443)) == 0);
  CHECK(none.next(loopback(AF_INET, 1), loopback(AF_INET, 443)) == 0);
  OwnPorts top(65'534, 65'535);
  CHECK(top.next(loopback(AF_INET, 1), loopback(AF_INET, 443)) == 65'535);
}

}  // namespace

int main() {
  round();
  otherParity();
  narrow();
  return passed();
}
