#include "control/controller.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

namespace sluice {
namespace {

constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kTellEvery = 200 * kMillisecond;
constexpr std::int64_t kEpisode = 5000 * kMillisecond;   // so long without another, and the next one is told again
constexpr std::int64_t kHearEvery = 1000 * kMillisecond; // a warning of one kind, however many there are
constexpr std::int64_t kShedAgain = 60'000 * kMillisecond;  // an episode that goes on is told again, with what it has come to
constexpr std::size_t kMaxPings = 64;                    // unanswered; a helper that asks on without an answer gets none for the rest
constexpr int kStopLook = 50, kStopLooks = 40;           // ms, and how often: two seconds of turns for the threads to end

}  // namespace

UdpChoices udpChoices(const UdpIdle& seconds, const std::vector<PortRange>& refuse) {
  constexpr std::int64_t kSecond = 1000 * kMillisecond;
  UdpChoices choices;
  choices.idle = {seconds.dns * kSecond, seconds.quic * kSecond, seconds.other * kSecond, kSecond};  // failing: a second
  for (const PortRange& range : refuse) choices.refuse.emplace_back(range.from, range.to);
  return choices;
}

Controller::Controller(Channel& channel, RelayShared& shared, Recorder& recorder, std::vector<std::unique_ptr<Worker>>& workers, int signals)
    : channel_(channel), shared_(shared), recorder_(recorder), workers_(workers), signals_(signals), now_(Recorder::now()),
      shedAt_(now_ - 2 * kEpisode), loopAt_(shedAt_), unsureAt_(shedAt_), lostAt_(shedAt_), recording_(recorder.state()) {}

int Controller::timeout() const {
  const auto left = [&](std::int64_t until) { return static_cast<int>(std::clamp<std::int64_t>((until - now_ + kMillisecond - 1) / kMillisecond, 0, 1000)); };
  // The recorder does not call; it is asked while there may be something to record.
  const bool busy = told_.active != 0 || recording_ == Recording::kSlow;
  int wait = busy ? 250 : recording_ == Recording::kOn ? 1000 : -1;
  const auto sooner = [&](std::int64_t until) { wait = wait < 0 ? left(until) : std::min(wait, left(until)); };
  const std::uint32_t warnings = shared_.warnings.load(std::memory_order_relaxed);
  for (std::size_t kind = 0; kind < kWarnings; ++kind) {
    if ((warnings >> kind & 1U) != 0) sooner(hearAt_[kind]);
  }
  if (shared_.changed.load(std::memory_order_relaxed)) sooner(toldAt_ + kTellEvery);
  return wait;
}

void Controller::run() {
  while (!ended_) {
    std::array<pollfd, 4> waiting{{{channel_.descriptor(), static_cast<short>(POLLIN | (channel_.congested() ? POLLOUT : 0)), 0},
                                   {shared_.wake.get(), POLLIN, 0},
                                   {signals_, POLLIN, 0},
                                   {shared_.own.descriptor(), POLLIN, 0}}};
    ::poll(waiting.data(), waiting.size(), timeout());
    now_ = Recorder::now();
    if (waiting[1].revents != 0) {
      std::uint64_t count = 0;
      [[maybe_unused]] const auto got = ::read(shared_.wake.get(), &count, sizeof count);
    }
    if (waiting[3].revents != 0) shared_.own.refresh();
    if (waiting[2].revents != 0) {
      signalfd_siginfo signal{};
      if (::read(signals_, &signal, sizeof signal) == sizeof signal && signal.ssi_signo == SIGTERM) ended_ = true;
    }
    if ((waiting[0].revents & POLLOUT) != 0) channel_.flush();
    if ((waiting[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) channel_.receive();
    while (!ended_) {
      const auto line = channel_.line();
      if (!line) break;
      onLine(*line);
    }
    if (channel_.ended()) ended_ = true;
    answerPings();
    tellWarnings();
    tellRecording();
    tellFlows();
  }
  stopWorkers();
}

void Controller::onLine(const std::string& line) {
  const ControlMessage message = parseControlLine(line);
  if (const auto* ping = std::get_if<PingMessage>(&message)) {
    if (pings_.size() >= kMaxPings) return;
    pings_.push_back({++lastPing_, ping->id});
    for (const auto& worker : workers_) worker->ping(lastPing_);
    if (shared_.usher != nullptr) shared_.usher->ping(lastPing_);
  } else if (const auto* choices = std::get_if<UdpChoicesMessage>(&message)) {
    shared_.udpChoices.set(udpChoices(choices->idle, choices->refuse));
  } else if (const auto* handOver = std::get_if<HandOverMessage>(&message)) {
    shared_.handOvers.set(handOver->handOver);
  } else if (std::holds_alternative<ResetMessage>(message)) {
    for (const auto& worker : workers_) worker->reset();
    if (shared_.usher != nullptr) shared_.usher->reset();
  } else if (std::holds_alternative<QuitMessage>(message) || std::holds_alternative<MalformedMessage>(message) ||
             std::holds_alternative<StartMessage>(message)) {
    ended_ = true;  // a helper that talks nonsense is treated as one that is gone
  }
}

// The answer is the proof that every thread still turns, so it waits for the slowest and for no disk.
void Controller::answerPings() {
  std::uint64_t answered = lastPing_;
  for (const auto& worker : workers_) answered = std::min(answered, worker->answered());
  if (shared_.usher != nullptr) answered = std::min(answered, shared_.usher->answered());
  while (!pings_.empty() && pings_.front().number <= answered) {
    channel_.send(formatPong(pings_.front().id, counters(), recorder_.state()), false);
    pings_.pop_front();
  }
}

Counters Controller::counters() const {
  Counters sum;
  for (const auto& worker : workers_) {
    sum.active += worker->counters().active.load(std::memory_order_relaxed);
    sum.total += worker->counters().total.load(std::memory_order_relaxed);
    sum.bytes += worker->counters().bytes.load(std::memory_order_relaxed);
    sum.datagrams += worker->counters().datagrams.load(std::memory_order_relaxed);
    sum.udpFlows += worker->counters().udpFlows.load(std::memory_order_relaxed);
  }
  if (shared_.usher != nullptr) {
    sum.active += shared_.usher->active();
    sum.total += shared_.usher->total();
  }
  return sum;
}

void Controller::tellFlows() {
  if (now_ < toldAt_ + kTellEvery || !shared_.changed.load(std::memory_order_relaxed)) return;
  shared_.changed.exchange(false);  // before the reading: a later change is told next time
  const Counters current = counters();
  toldAt_ = now_;
  if (current == told_) return;
  told_ = current;
  channel_.send(formatFlows(current), true);
}

std::uint32_t Controller::takeWarnings() {
  std::uint32_t taken = shared_.warnings.load(std::memory_order_relaxed);
  for (std::size_t kind = 0; kind < kWarnings; ++kind) {
    if ((taken >> kind & 1U) == 0) continue;
    if (now_ < hearAt_[kind]) taken &= ~(std::uint32_t{1} << kind);
    else hearAt_[kind] = now_ + kHearEvery;
  }
  shared_.warnings.fetch_and(~taken, std::memory_order_relaxed);
  return taken;
}

void Controller::tellWarnings() {
  const std::uint32_t warnings = takeWarnings();
  const auto episode = [&](std::int64_t& last) { return now_ - std::exchange(last, now_) > kEpisode; };
  if ((warnings & kFlowsShed) != 0 && (episode(shedAt_) || now_ - shedTold_ > kShedAgain)) {
    shedTold_ = now_;
    warn("flows-shed", "no room for more flows (" + std::to_string(shared_.options.maxFlows) + " at once, or what descriptors last for): new ones are reset, and of UDP those silent for longest end; so far " +
                           std::to_string(shared_.shed.load(std::memory_order_relaxed)));
  }
  if ((warnings & kDatagramsLost) != 0 && episode(lostAt_)) warn("datagrams-lost", "first datagrams of flows came faster than they were taken, and some were lost");
  if ((warnings & kLoopRefused) != 0 && episode(loopAt_)) {
    warn("loop-refused", "the relay's own connection came back to it and was refused: something removed or overtook the rule that lets it pass");
  }
  if ((warnings & kHandOverUnsure) != 0 && episode(unsureAt_)) {
    warn("hand-over-unsure", "flows went straight to their servers: their programs could not be found, and a proxy must not be handed its own connections");
  }
  if ((warnings & kWitnessLost) != 0) warn("witness-lost", "programs behind new flows are no longer named");
}

void Controller::tellRecording() {
  const Recording state = recorder_.state();
  if (state == recording_) return;
  recording_ = state;
  if (state == Recording::kSlow) warn("capture-slow", "the disk does not keep up: parts of flows are relayed but not recorded");
  if (state == Recording::kStopped) {
    warn("capture-stopped", std::string("the recording ended, flows go on: ") + std::strerror(recorder_.lastError()));
  }
}

void Controller::warn(std::string_view code, std::string_view message) { channel_.send(formatWarning(code, message), false); }

void Controller::stopWorkers() {
  // First, that nobody is released to a listener that is gone.
  if (shared_.usher != nullptr) shared_.usher->stop();
  for (const auto& worker : workers_) worker->stop();
  // Counted in looks and not by the clock: where this whole process got no turn for seconds, its threads had none to end in either.
  for (int looks = 0;;) {
    const bool all = std::all_of(workers_.begin(), workers_.end(), [](const auto& worker) { return worker->stopped(); }) &&
                     (shared_.usher == nullptr || shared_.usher->stopped());
    if (all || looks == kStopLooks) break;
    pollfd waiting{shared_.wake.get(), POLLIN, 0};
    if (::poll(&waiting, 1, kStopLook) == 0) ++looks;
    std::uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(shared_.wake.get(), &count, sizeof count);
  }
  for (const auto& worker : workers_) {
    if (worker->stopped()) worker->join();
    else worker->abandon();
  }
  if (shared_.usher != nullptr) {
    if (shared_.usher->stopped()) shared_.usher->join();
    else shared_.usher->abandon();
  }
  const Counters last = counters();
  if (last != told_) channel_.send(formatFlows(last), true);
  channel_.finish(500);
}

}  // namespace sluice
