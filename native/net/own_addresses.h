// The addresses of this machine, as rtnetlink tells them: they decide what is a local flow.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "net/descriptor.h"
#include "net/endpoint.h"

namespace sluice {

using AddressBytes = std::array<std::uint8_t, 16>;  // IPv4 as ::ffff:a.b.c.d
AddressBytes addressBytes(const Endpoint& endpoint);

// A sorted copy; all of 127.0.0.0/8 and ::1 are own in any case.
class AddressList {
 public:
  AddressList() = default;
  explicit AddressList(std::vector<AddressBytes> addresses);
  [[nodiscard]] bool contains(const Endpoint& endpoint) const;
  [[nodiscard]] bool containsOnce(const Endpoint& endpoint) const;  // on one interface alone: a link-local address may be on several

 private:
  std::vector<AddressBytes> addresses_;
};

// Whether a program of this machine opened it. Only such a one's flow to a link-local address is taken; and its address may be as new as its interface, and not in the list yet.
inline bool fromHere(const AddressList& own, const Endpoint& client, const Endpoint& server) { return server.linkLocal() || own.contains(client); }

// What one reply to a dump holds, rtnetlink(7), added to `into`. true: more is to come, false: that was the end; nothing: an error. Pure.
std::optional<bool> takeAddresses(std::span<const std::byte> reply, std::vector<AddressBytes>& into);

class OwnAddresses {
 public:
  OwnAddresses();                                   // subscribes and reads once
  [[nodiscard]] int descriptor() const { return socket_.get(); }  // readable when something changed; -1 without netlink
  void refresh();                                   // after that: reads anew. One thread alone
  [[nodiscard]] std::uint32_t generation() const { return generation_.load(std::memory_order_acquire); }
  [[nodiscard]] AddressList list() const;           // any thread

 private:
  Descriptor socket_;
  mutable std::mutex mutex_;
  AddressList list_;
  std::atomic<std::uint32_t> generation_{0};
};

}  // namespace sluice
