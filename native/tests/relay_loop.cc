// Somebody broke the rule that lets the relay's own connections pass: they come back to it. It must not go round and round.
#include "relay_lab.h"

using namespace lab;

int main() {
  becomeMachine(false);
  for (const unsigned threads : {1U, 2U}) {
    for (const Endpoint& server : {at("203.0.113.2", 8080), at("2001:db8:2::2", 8080)}) {
      RelaySettings settings;
      settings.threads = threads;
      Relay relay(settings);
      const Descriptor listener = listenAt(server);
      CHECK_EQ(refusal(server), ECONNRESET);
      relay.awaitWarning("loop-refused");
      relay.awaitActive(0);
      // The first of them and the sixteen ways back after which it cannot be a chance, whichever thread took each.
      CHECK_EQ(Relay::number(relay.ping(), "total"), 17);
      const auto closed = facts(relay.finish(), "close");
      CHECK(std::count_if(closed.begin(), closed.end(), [](const Json& fact) { return Relay::text(fact, "reason") == "failed"; }) >= 1);
    }
  }
  return passed();
}
