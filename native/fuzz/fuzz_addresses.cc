// What rtnetlink says of this machine's addresses: whatever comes, nothing is read beyond it, and every address found stands in it.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "net/own_addresses.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A heap copy of just that size, so that one byte too far is seen.
  const std::vector<std::uint8_t> reply(data, data + size);
  std::vector<sluice::AddressBytes> found;
  sluice::takeAddresses(std::as_bytes(std::span(reply)), found);
  // A header, an address header, an attribute's: no two addresses in the bytes of one.
  if (found.size() > size / 24) std::abort();
  for (const auto& address : found) {
    const bool v4 = std::memcmp(address.data(), "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0;
    const std::size_t from = v4 ? 12 : 0;
    if (::memmem(data, size, address.data() + from, 16 - from) == nullptr) std::abort();
  }
  return 0;
}
