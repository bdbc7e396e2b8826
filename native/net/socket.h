// The one place where sockets of the relay are made, so that what makes them transparent, marked and honest about a sudden end
// is decided once.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "net/descriptor.h"
#include "net/endpoint.h"
#include "net/syn.h"

namespace sluice {

struct Listeners {
  enum class Failure : std::uint8_t { kNone, kPortTaken, kNoTransparent, kOther };

  std::uint16_t port = 0;
  bool ipv6 = false;
  std::vector<std::array<Descriptor, 2>> sockets;  // a thread each: IPv4, IPv6 (empty without)
  Failure failure = Failure::kNone;
  int error = 0;                                   // errno behind `failure`
};

// What listeners hear. kTransparent: on loopback, what is handed to them whatever its destination. The others only what is translated to them (redirected): on
// loopback a program's own connections, everywhere those of devices, too, which are translated to the address of the interface they come in by.
enum class Reach : std::uint8_t { kTransparent, kLoopback, kEverywhere };

// Listens on 127.0.0.1 and, where wanted and there, ::1, both on the first of port, port+1 .. port+tries on which nobody else listens.
// Loopback and not the wildcard: a transparent wildcard listener takes every flow through the machine to its port number. `udp`: the port is
// to be free for UDP too (net/udp_socket.h listens there).
struct ListenWish {
  std::uint16_t port = 0;
  unsigned tries = 0;
  bool ipv6 = true;
  std::size_t threads = 1;
  bool udp = false;
  Reach reach = Reach::kTransparent;
  std::uint32_t mark = 0;     // of all that is sent on accepted connections, from the first answer on
};
Listeners openListeners(const ListenWish& wish);

// What is known of a connection that the rules brought here; to be asked once, for the kernel forgets the SYN then.
struct Arrival {
  Endpoint server;   // where it was going. Handed over as it was (TPROXY) that is the socket's own address; redirected, conntrack is asked
  SynLook look;      // all zero where the kernel kept no SYN: a listener that is flooded answers by cookies
};
std::optional<Arrival> arrivalOf(int fd, bool redirected);  // none: nobody knows where it was going

// The kernel binds a connection with a link-local address to its interface, and what is left of it after its end (TIME_WAIT) as well. TPROXY, which looks for sockets on lo, would not see that
// and hand the next SYN of the same two ends to the listener, where it is dropped as a copy. So a connection that is about to end is bound no more. socket(7), SO_BINDTOIFINDEX; CAP_NET_RAW.
void leaveLink(int fd);

// What the kernel has not delivered of what was written, its end of stream included. linux/sockios.h, tcp(7).
int undelivered(int fd);

// The error that waits on the socket, taken.
int takeError(int fd);

}  // namespace sluice
