// Checks for tests that are one program each: a check that fails prints where and what, and the program ends with 1.
//
//   int main() { CHECK(x); CHECK_EQ(a, b); return passed(); }
//
// CHECK ends the program at once (a test that goes on after a broken premise tells lies). needRoot() fails, never skips.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>

namespace check {

inline std::atomic<int> counted = 0;  // checks may stand in threads of a test

template <typename Value>
std::string shown(const Value& value) {
  if constexpr (requires(std::ostream& out) { out << value; }) {
    std::ostringstream out;
    out << std::boolalpha << value;
    return out.str();
  } else {
    return "(value)";
  }
}

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  const int error = errno;
  std::fprintf(stderr, "%s:%d: %s (errno then: %s)\n", file, line, what.c_str(), std::strerror(error));
  std::fflush(stderr);
  std::_Exit(1);  // no destructors: threads of the failed test may still run
}

inline int passed() {
  std::printf("passed, %d checks\n", counted.load());
  return 0;
}

}  // namespace check

using check::passed;

#define CHECK(condition)                                                     \
  do {                                                                       \
    ++check::counted;                                                        \
    if (!(condition)) check::fail(__FILE__, __LINE__, "not so: " #condition); \
  } while (false)

#define CHECK_EQ(left, right)                                                                                      \
  do {                                                                                                             \
    ++check::counted;                                                                                              \
    const auto& checkLeft = (left);                                                                                \
    const auto& checkRight = (right);                                                                              \
    if (!(checkLeft == checkRight))                                                                                \
      check::fail(__FILE__, __LINE__, #left " is " + check::shown(checkLeft) + ", wanted " + check::shown(checkRight)); \
  } while (false)

inline void needRoot() {
  if (geteuid() != 0) {
    std::fprintf(stderr, "this test makes namespaces and needs root\n");
    std::_Exit(1);
  }
}
