// A folder of its own for a test, gone afterwards, and endpoints from text.
#pragma once

#include <arpa/inet.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "check.h"
#include "net/endpoint.h"

inline sluice::Endpoint endpoint(const std::string& address, std::uint16_t port) {
  sluice::Endpoint result;
  auto* const v4 = reinterpret_cast<sockaddr_in*>(&result.storage);
  auto* const v6 = reinterpret_cast<sockaddr_in6*>(&result.storage);
  if (inet_pton(AF_INET, address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
  } else {
    CHECK(inet_pton(AF_INET6, address.c_str(), &v6->sin6_addr) == 1);
    v6->sin6_family = AF_INET6;
  }
  result.setPort(port);
  return result;
}

inline std::span<const std::byte> bytesOf(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

class Folder {
 public:
  Folder() {
    char pattern[] = "/tmp/sluice-test-XXXXXX";
    CHECK(mkdtemp(pattern) != nullptr);
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string capture(unsigned segment = 1) const {
    char name[32];
    std::snprintf(name, sizeof name, "/capture-%06u.pcapng", segment);
    return path_ + name;
  }
  // Numbers of the segments that are there, in order.
  [[nodiscard]] std::vector<unsigned> segments() const {
    std::vector<unsigned> found;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      unsigned number = 0;
      if (std::sscanf(entry.path().filename().c_str(), "capture-%06u.pcapng", &number) == 1) found.push_back(number);
    }
    std::sort(found.begin(), found.end());
    return found;
  }

 private:
  std::string path_;
};
