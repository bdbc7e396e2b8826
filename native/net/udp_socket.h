// The sockets of UDP, made in the same way as those of TCP (net/socket.h): transparent, marked, and telling all the kernel knows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "net/descriptor.h"
#include "net/endpoint.h"

namespace sluice {

using UdpListeners = std::vector<std::array<Descriptor, 2>>;  // a thread each: IPv4, IPv6

// Unbound sockets with a buffer for bursts of new flows, larger than net.core.rmem_max where the caller may still ask for that (root). A family
// that is not there stays empty.
UdpListeners makeUdpListeners(bool ipv6, std::size_t threads);

// Binds them to loopback and that port. 0, or an errno: EADDRINUSE leaves all unbound in the families that were not tried yet, so a port
// is probed with udpPortFree() first.
int bindUdpListeners(UdpListeners& listeners, std::uint16_t port, bool ipv6);
bool udpPortFree(std::uint16_t port, bool ipv6);

// Faces the client: bound to the original destination, connected to the client. From then on the kernel gives the client's datagrams to it and not to
// the listener, by the rule that diverts what a transparent socket awaits; so such a flow outlives the rules that took it. -1, errno in `error`:
// EADDRINUSE where a local program holds that port on the wildcard address without SO_REUSEADDR.
Descriptor openUdpClientSide(const Endpoint& client, const Endpoint& server, std::uint32_t mark, int& error);

// A socket for one side of a flow: its errors come with what ICMP said, its datagrams with their class of service. Empty, errno set, on failure.
Descriptor makeUdpFlowSocket(int family);

// Sends whole IP packets. linux/raw(7), IPPROTO_RAW.
Descriptor openRawSender(int family, std::uint32_t mark);

// Datagrams the kernel dropped because this socket was full.
std::uint64_t droppedByKernel(int fd);

}  // namespace sluice
