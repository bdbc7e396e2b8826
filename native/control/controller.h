// The relay's main thread after its start: answers the helper, tells it what changed, ends everything.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "capture/recorder.h"
#include "control/channel.h"
#include "control/message.h"
#include "relay/shared.h"
#include "relay/usher.h"
#include "relay/worker.h"

namespace sluice {

UdpChoices udpChoices(const UdpIdle& seconds, const std::vector<PortRange>& refuse);

class Controller {
 public:
  Controller(Channel& channel, RelayShared& shared, Recorder& recorder, std::vector<std::unique_ptr<Worker>>& workers, int signals);
  void run();  // until quit, end of input or SIGTERM; the workers have ended then, as far as they could

 private:
  void onLine(const std::string& line);
  void answerPings();
  void tellFlows();
  [[nodiscard]] std::uint32_t takeWarnings();
  void tellWarnings();
  void tellRecording();
  void warn(std::string_view code, std::string_view message);
  [[nodiscard]] Counters counters() const;
  [[nodiscard]] int timeout() const;
  void stopWorkers();

  struct Waiting {
    std::uint64_t number;
    std::int64_t id;
  };

  Channel& channel_;
  RelayShared& shared_;
  Recorder& recorder_;
  std::vector<std::unique_ptr<Worker>>& workers_;
  const int signals_;
  std::deque<Waiting> pings_;
  std::uint64_t lastPing_ = 0;
  Counters told_;
  std::int64_t now_ = 0, toldAt_ = 0;
  std::array<std::int64_t, kWarnings> hearAt_{};       // by Warning's bit: until then one that is set stays so and wakes nobody
  std::int64_t shedAt_, loopAt_, unsureAt_, lostAt_;   // when last seen: a warning is of an episode
  std::int64_t shedTold_ = 0;
  Recording recording_;
  bool ended_ = false;
};

}  // namespace sluice
