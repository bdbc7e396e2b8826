// Somebody broke the rule that lets the relay's own datagrams pass: they come back to it. It must not go round and round.
#include "udp_lab.h"

using namespace lab;

int main() {
  becomeMachine(false);
  for (const unsigned threads : {1U, 2U}) {
    for (const Endpoint& server : {at("203.0.113.2", 8080), at("2001:db8:2::2", 8080)}) {
      Relay relay(withUdp(threads));
      const Descriptor listener = serveAt(server);
      const Descriptor client = speakTo(server);
      say(client, "hello");
      relay.awaitWarning("loop-refused");
      setIdle(relay, 1);
      awaitFlows(relay, 0);
      CHECK(Relay::number(relay.ping(), "total") <= 18);
      const auto closed = facts(relay.finish(), "close");
      CHECK_EQ(std::count_if(closed.begin(), closed.end(), [](const Json& fact) { return Relay::text(fact, "reason") == "failed"; }), 1);
      char byte;
      CHECK(recv(listener.get(), &byte, 1, MSG_DONTWAIT) < 0);
    }
  }
  return passed();
}
