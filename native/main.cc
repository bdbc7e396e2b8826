// sluice-relay: reaches the real destination of intercepted flows, moves their bytes, keeps the record.
//
// Started as root by the helper with a stream socket on descriptor 3 and told everything there (ARCHITECTURE.md, "Relay control"). The
// order below is the point: the witness while still root, then no root any more, and only then the capture and the listeners.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "capture/recorder.h"
#include "control/channel.h"
#include "control/controller.h"
#include "control/message.h"
#include "control/privileges.h"
#include "net/descriptor_room.h"
#include "net/forget_marks.h"
#include "net/socket.h"
#include "net/udp_socket.h"
#include "relay/shared.h"
#include "relay/usher.h"
#include "relay/worker.h"
#include "witness/witness.h"

namespace sluice {
namespace {

constexpr int kControl = 3;
constexpr int kWitnessPatience = 5000; // ms for its start
constexpr int kFinishPatience = 4000;  // ms for the rest of the capture

[[noreturn]] void giveUp(Channel& channel, std::string_view code, std::string_view message, std::string_view detail) {
  channel.send(formatFailed(code, message, detail), false);
  channel.finish(500);
  _exit(1);
}

// Threads come later and inherit this: no signal but SIGKILL ends a relay behind its own back, and SIGTERM is read as a word.
int takeSignals() {
  for (const int ignored : {SIGPIPE, SIGXFSZ, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) ::signal(ignored, SIG_IGN);
  sigset_t terminate;
  sigemptyset(&terminate);
  sigaddset(&terminate, SIGTERM);
  ::sigprocmask(SIG_SETMASK, &terminate, nullptr);
  return ::signalfd(-1, &terminate, SFD_NONBLOCK | SFD_CLOEXEC);
}

StartMessage awaitStart(Channel& channel, int signals) {
  for (;;) {
    if (const auto line = channel.line()) {
      ControlMessage message = parseControlLine(*line);
      if (auto* start = std::get_if<StartMessage>(&message)) return std::move(*start);
      if (std::holds_alternative<QuitMessage>(message)) _exit(0);
      const auto* malformed = std::get_if<MalformedMessage>(&message);
      giveUp(channel, "internal", "the first line is no valid start", malformed != nullptr ? malformed->reason : "type");
    }
    if (channel.ended()) _exit(0);
    pollfd waiting[2] = {{channel.descriptor(), POLLIN, 0}, {signals, POLLIN, 0}};
    ::poll(waiting, 2, -1);
    if (waiting[1].revents != 0) _exit(0);
    channel.receive();
  }
}

// The witness answers for the first time when it has given up its own rights; "ready" is not said before.
bool witnessIsThere(int channel) {
  Endpoint nobody;
  nobody.storage.ss_family = AF_INET;
  if (!sendQuestion(channel, WitnessQuestion{0, nobody, nobody})) return false;
  pollfd waiting{channel, POLLIN, 0};
  bool ended = false;
  return ::poll(&waiting, 1, kWitnessPatience) == 1 && receiveAnswer(channel, ended).has_value();
}

RelayOptions relayOptions(const StartMessage& start, std::uint16_t port, std::uint16_t keptPort) {
  return {start.uplinkMark, start.maxFlows, port, start.threads, keptPort, start.redirect.has_value()};
}

int run() {
  if (::fcntl(kControl, F_GETFD) < 0) {
    std::fputs("sluice-relay is started by Sluice itself and does nothing on its own.\n", stderr);
    return 2;
  }
  const int signals = takeSignals();
  Channel channel(kControl);
  const StartMessage start = awaitStart(channel, signals);
  raiseDescriptorLimit();
  keepDescriptorsBack(start.threads);
  int witness = start.attribute ? startWitness() : -1;
  // As may only who is root, and before there are rules. Without it what an earlier gate took and still lives is this one's from the beginning; nothing else is lost by it.
  if (!forgetMarks(start.flowMarks)) std::fprintf(stderr, "marks of an earlier gate stay in connection tracking: %s\n", std::strerror(errno));
  // Only who may change rules may bind to a log; reading it needs no right.
  std::unique_ptr<SynLog> synLog;
  if (start.hold) {
    int refused = 0;
    synLog = std::make_unique<SynLog>(SynLog::open(start.hold->group, refused));
    if (!*synLog) synLog.reset();
  }
  // Only root may give them more room than others get; they are bound to nothing yet.
  UdpListeners udp = start.udp ? makeUdpListeners(start.ipv6, start.threads) : UdpListeners(start.threads);
  if (const std::string problem = dropPrivileges(start); !problem.empty()) {
    giveUp(channel, "internal", "The relay could not give up its rights", problem);
  }
  if (const std::string problem = confineTo(start.folder); !problem.empty()) {
    giveUp(channel, "internal", "The relay could not be confined", problem);
  }

  RecorderOptions options;
  options.folder = start.folder;
  options.version = start.version;
  options.payload = start.payload;
  options.maxBytesPerFlow = start.maxBytesPerFlow;
  options.maxBytes = start.maxBytes;
  options.ring = start.ring;
  if (start.segmentBytes) options.segmentBytes = *start.segmentBytes;
  options.tracks = start.threads + (synLog ? 1U : 0U);
  int error = 0;
  const std::unique_ptr<Recorder> recorder = Recorder::open(options, error);
  if (!recorder) giveUp(channel, "capture-unwritable", "The session folder cannot be written", std::strerror(error));

  if (witness >= 0 && !witnessIsThere(witness)) witness = -1;
  const Reach reach = !start.redirect ? Reach::kTransparent : start.redirect->everywhere ? Reach::kEverywhere : Reach::kLoopback;
  Listeners listeners = openListeners({start.port, start.portTries, start.ipv6, start.threads, start.udp, reach, 0});
  switch (listeners.failure) {
    case Listeners::Failure::kNone: break;
    case Listeners::Failure::kPortTaken: giveUp(channel, "port-taken", "No free port to listen on", std::strerror(listeners.error));
    case Listeners::Failure::kNoTransparent:
      giveUp(channel, "no-transparent", "The kernel refuses transparent sockets", std::strerror(listeners.error));
    case Listeners::Failure::kOther: giveUp(channel, "internal", "The relay cannot listen", std::strerror(listeners.error));
  }

  // A flow whose port cannot be kept goes on without.
  Listeners kept;
  if (start.keep && synLog && listeners.port < 65535) {
    kept = openListeners({static_cast<std::uint16_t>(listeners.port + 1), start.portTries + 1, listeners.ipv6, start.threads, false, reach, start.keep->mark});
  }
  kept.sockets.resize(start.threads);

  if (const int failed = start.udp ? bindUdpListeners(udp, listeners.port, listeners.ipv6) : 0; failed != 0) {
    giveUp(channel, failed == EADDRINUSE ? "port-taken" : "internal", "The relay cannot listen for UDP", std::strerror(failed));
  }

  RelayShared shared;
  shared.options = relayOptions(start, listeners.port, kept.port);
  shared.udpChoices.set(udpChoices(start.udpIdle, start.refuse));
  shared.witness = witness;
  shared.handOvers.set(start.handOver);
  if (!shared.wake) giveUp(channel, "internal", "The relay could not start", std::strerror(errno));
  if (start.attribute && witness < 0) shared.warn(kWitnessLost);
  std::unique_ptr<Usher> usher;
  if (synLog) {
    RawSender sender(start.hold->releasedMark, start.uplinkMark);
    if (!sender.good()) shared.options.keptPort = 0;
    else usher = std::make_unique<Usher>(shared, recorder->track(start.threads), std::move(synLog), std::move(sender));
  }
  shared.usher = usher.get();
  std::vector<std::unique_ptr<Worker>> workers;
  for (std::size_t i = 0; i < start.threads; ++i) {
    workers.push_back(std::make_unique<Worker>(shared, i, workers, recorder->track(i), Listening{std::move(listeners.sockets[i]), std::move(kept.sockets[i]), std::move(udp[i])}));
  }
  channel.send(formatReady(listeners.port, shared.options.keptPort, listeners.ipv6, usher != nullptr, ::getpid(), ::getuid()), false);
  for (const auto& worker : workers) worker->start();
  if (usher) usher->start();

  Controller(channel, shared, *recorder, workers, signals).run();
  recorder->finish(kFinishPatience);
  // Not through exit(): a thread may hang in a write to a disk that does not answer.
  _exit(0);
}

}  // namespace
}  // namespace sluice

int main() { return sluice::run(); }
