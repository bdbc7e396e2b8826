#include "witness/witness.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "witness/messages.h"
#include "witness/processes.h"
#include "witness/seal.h"
#include "witness/socket_diag.h"

namespace sluice {

namespace {

// The relay holds the server's first bytes for at most 50 ms, what it has to decide for two seconds; a search that takes longer answers for nobody.
constexpr auto kPatience = std::chrono::milliseconds(40), kLongPatience = std::chrono::milliseconds(1000);

bool isEnd(int error) { return error != EAGAIN && error != EWOULDBLOCK && error != EINTR; }

}  // namespace

bool sendQuestion(int channel, const WitnessQuestion& question) {
  const std::string message = encodeQuestion(question);
  return send(channel, message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(message.size());
}

std::optional<WitnessAnswer> receiveAnswer(int channel, bool& ended) {
  ended = false;
  std::byte message[kMaxMessage];
  for (;;) {
    const ssize_t length = recv(channel, message, sizeof message, MSG_DONTWAIT | MSG_TRUNC);
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) {
      ended = length == 0 || isEnd(errno);
      return std::nullopt;
    }
    if (length > static_cast<ssize_t>(sizeof message)) continue;
    if (auto answer = decodeAnswer({message, static_cast<std::size_t>(length)})) return answer;
  }
}

std::optional<Program> findProgram(const Endpoint& client, const Endpoint& server, bool udp, bool decides) {
  // The witness is one thread, and this is its memory of what it saw.
  thread_local SocketDiag diag;
  thread_local Processes processes;
  const Endpoint from = unmapped(client), to = unmapped(server);
  if (from.family() != to.family()) return std::nullopt;
  const auto facts = diag.ask(from, to, udp);
  if (!facts) return std::nullopt;
  std::optional<Program> program;
  if (facts->inode != 0) {
    program = processes.find(facts->inode, facts->uid, Processes::Clock::now() + (decides ? kLongPatience : kPatience));
  } else if (facts->uid == 0) {
    // A closed socket has no owner any more, and many kernels then say 0, which is not to say root.
    return std::nullopt;
  }
  if (!program) program.emplace();  // gone, or somewhere /proc does not show: its user is still known
  program->uid = facts->uid;
  program->user = processes.user(facts->uid);
  return program;
}

void runWitness(int channel) {
  std::byte message[kMaxMessage];
  for (;;) {
    const ssize_t length = recv(channel, message, sizeof message, 0);
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) return;
    const auto question = decodeQuestion({message, static_cast<std::size_t>(length)});
    if (!question) continue;
    const std::string answer = encodeAnswer({question->token, findProgram(question->client, question->server, question->udp, question->decides)});
    if (send(channel, answer.data(), answer.size(), MSG_NOSIGNAL) < 0 && errno != EINTR) return;
  }
}

int startWitness() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return -1;
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) {
    ::close(ends[0]);
    ::close(ends[1]);
    return -1;
  }
  if (child == 0) {
    setsid();  // a Ctrl-C meant for whoever started us all is not for the witness
    for (const int signal : {SIGINT, SIGHUP, SIGTERM, SIGPIPE}) ::signal(signal, SIG_IGN);
    prctl(PR_SET_NAME, "sluice-witness");
    // A program that connects, writes and is gone gives a millisecond or two: the one who looks must be on time.
    setpriority(PRIO_PROCESS, 0, -10);
    if (!sealWitness(ends[1])) _exit(1);
    if (getppid() != parent) _exit(0);  // gone before the seal bound us to it
    runWitness(ends[1]);
    _exit(0);
  }
  ::close(ends[1]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return ends[0];
}

}  // namespace sluice
