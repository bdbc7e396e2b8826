// Conntrack keeps the marks of flows that an earlier gate took for as long as it keeps the flows; a UDP flow that lives on goes direct meanwhile and is none of the next gate's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sluice {

// Takes those bits from the mark of every flow that conntrack of this network namespace knows; the others stay. To be called before any rule sets them. By ctnetlink
// (linux/netfilter/nfnetlink_conntrack.h), with CAP_NET_ADMIN. false: the kernel has no such interface, or refused; errno says why.
bool forgetMarks(std::uint32_t bits);

// Of what one recv() of a dump holds: messages that take `bits` from those flows that bear one of them, appended to `orders`. Pure; what is no whole message is let be. false: that was the last of it.
bool takeMarks(std::span<const std::byte> reply, std::uint32_t bits, std::vector<std::byte>& orders);

}  // namespace sluice
