// What other threads say to one that turns round an epoll: a ping, a reset, that it is to end, and letters of a few kinds.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "net/descriptor.h"

namespace sluice {

template <typename... Letters>
class Mailbox {
 public:
  // Any thread. A ping is answered at the end of a turn that began after it.
  void ping(std::uint64_t number) {
    pinged_.store(number, std::memory_order_release);
    raise();
  }
  void reset() {
    resetWanted_.store(true, std::memory_order_release);
    raise();
  }
  // Resets what is left and ends the thread.
  void stop() {
    stopWanted_.store(true, std::memory_order_release);
    raise();
  }
  // Beyond `most` that wait already a letter is lost.
  template <typename Letter>
  void deliver(Letter letter, std::size_t most = std::numeric_limits<std::size_t>::max()) {
    {
      const std::scoped_lock lock(mutex_);
      auto& waiting = std::get<std::vector<Letter>>(letters_);
      if (waiting.size() >= most) return;
      waiting.push_back(std::move(letter));
    }
    raise();
  }
  [[nodiscard]] std::uint64_t answered() const { return answered_.load(std::memory_order_acquire); }
  [[nodiscard]] bool stopped() const { return stopped_.load(std::memory_order_acquire); }

 protected:
  struct Mail {
    bool reset = false, stop = false;
    std::tuple<std::vector<Letters>...> letters;
  };

  // The thread itself, from here on.
  [[nodiscard]] int mailDescriptor() const { return event_.get(); }  // readable when there is something; -1: none could be made
  [[nodiscard]] Mail takeMail() {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(event_.get(), &count, sizeof count);
    Mail mail;
    mail.reset = resetWanted_.exchange(false, std::memory_order_acq_rel);
    mail.stop = stopWanted_.load(std::memory_order_acquire);
    const std::scoped_lock lock(mutex_);
    mail.letters.swap(letters_);
    return mail;
  }
  // For another turn, though nobody wrote.
  void raise() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(event_.get(), &one, sizeof one);
  }
  [[nodiscard]] std::uint64_t pinged() const { return pinged_.load(std::memory_order_acquire); }
  void answer(std::uint64_t ping) { answered_.store(ping, std::memory_order_release); }
  // One that came since `ping` may have been taken out of the mail together with its forerunner.
  void raiseIfPingedSince(std::uint64_t ping) {
    if (pinged() != ping) raise();
  }
  void hasStopped() { stopped_.store(true, std::memory_order_release); }

 private:
  Descriptor event_{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  alignas(64) std::atomic<std::uint64_t> pinged_{0}, answered_{0};
  std::atomic<bool> resetWanted_{false}, stopWanted_{false}, stopped_{false};
  std::mutex mutex_;
  std::tuple<std::vector<Letters>...> letters_;
};

}  // namespace sluice
