// A folder of its own for a test, gone afterwards, and endpoints from text.
#pragma once

#include <arpa/inet.h>
#include <unistd.h>

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

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
  [[nodiscard]] std::string capture() const { return path_ + "/capture-000001.pcapng"; }

 private:
  std::string path_;
};
