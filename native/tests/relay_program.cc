// The program behind a flow is named, even one that is gone as soon as it has its answer; and without the witness everything else goes on.
#include "relay_lab.h"

using namespace lab;

namespace {

const Endpoint kServer = at("203.0.113.2", 8080);

std::vector<pid_t> children(pid_t pid) {
  std::vector<pid_t> found;
  std::ifstream file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children");
  for (pid_t child = 0; file >> child;) found.push_back(child);
  return found;
}

// A program that asks `server` for one byte and ends with it. That nobody is there it may hear before connect(2) has come back.
pid_t asker(const Endpoint& server, const Descriptor& go, bool refused) {
  const pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid != 0) return pid;
  char byte = 0;
  if (read(go.get(), &byte, 1) != 1) _exit(1);
  const Descriptor fd{socket(server.family(), SOCK_STREAM, 0)};
  if (connect(fd.get(), server.raw(), server.size()) != 0) _exit(refused && errno == ECONNRESET ? 0 : 2);
  [[maybe_unused]] const auto got = recv(fd.get(), &byte, 1, 0);
  _exit(0);
}

// Each answer is there at once, so the program lives only as long as the relay holds it back.
void shortLived(const Endpoint& server, bool refuse) {
  RelaySettings settings;
  settings.attribute = true;
  settings.threads = 2;
  Relay relay(settings);
  Descriptor listener;
  if (!refuse) listener = listenAt(server);
  constexpr int kPrograms = 50;
  std::vector<pid_t> pids;
  for (int i = 0; i < kPrograms; ++i) {
    int go[2];
    CHECK_EQ(pipe2(go, O_CLOEXEC), 0);
    const Descriptor theirs{go[0]}, ours{go[1]};
    pids.push_back(asker(server, theirs, refuse));
    CHECK_EQ(write(ours.get(), "g", 1), 1);
    if (!refuse) {
      const Descriptor accepted = acceptFrom(listener);
      writeAll(accepted, "!");
      shutdown(accepted.get(), SHUT_WR);
      readToError(accepted);
    }
    int status = 0;
    CHECK_EQ(waitpid(pids.back(), &status, 0), pids.back());
    CHECK_EQ(status, 0);
  }
  relay.awaitActive(0);
  const auto record = relay.finish();
  const auto programs = facts(record, "process");
  std::size_t named = 0;
  for (const Json& program : programs) {
    const std::int64_t pid = Relay::number(program, "pid");
    if (pid == 0) continue;
    ++named;
    CHECK(std::find(pids.begin(), pids.end(), pid) != pids.end());
    CHECK_EQ(Relay::text(program, "name"), "relay_program");
    CHECK_EQ(Relay::number(program, "uid"), 0);
  }
  std::printf("%zu of %d named\n", named, kPrograms);
  // The witness has 50 ms, which a machine busy with other things may not give it every time.
  CHECK(named >= kPrograms / 2);
  const auto closed = facts(record, "close");
  CHECK_EQ(closed.size(), static_cast<std::size_t>(kPrograms));
  for (const Json& fact : closed) {
    const std::string reason = Relay::text(fact, "reason");
    if (refuse) CHECK_EQ(reason, "refused");
    else CHECK(reason == "finished" || reason == "client-reset");
  }
  // What is said of a flow lies between its beginning and its end.
  std::map<std::int64_t, int> state;
  for (const auto& item : record) {
    if (!item.isFact) continue;
    const auto json = sluice::parseJson(item.json);
    const std::string kind = Relay::text(*json, "t");
    if (kind == "session") continue;
    int& now = state[Relay::number(*json, "id")];
    CHECK_EQ(now, kind == "open" ? 0 : 1);
    now = kind == "close" ? 2 : 1;
  }
}

void witnessLost() {
  RelaySettings settings;
  settings.attribute = true;
  settings.threads = 2;
  Relay relay(settings);
  const Descriptor listener = listenAt(kServer);
  const auto talk = [&] {
    const Descriptor client = connectTo(kServer);
    const Descriptor accepted = acceptFrom(listener);
    writeAll(accepted, "hello");
    CHECK_EQ(readExactly(client, 5), "hello");
    writeAll(client, "you");
    CHECK_EQ(readExactly(accepted, 3), "you");
  };
  talk();
  const auto witnesses = children(relay.pid());
  CHECK_EQ(witnesses.size(), 1U);
  // One that does not answer delays by no more than its time.
  kill(witnesses[0], SIGSTOP);
  talk();
  for (int i = 0; i < 400; ++i) talk();  // more questions than the channel holds
  kill(witnesses[0], SIGKILL);
  relay.awaitWarning("witness-lost");
  talk();
  relay.awaitActive(0);
  relay.finish();
}

}  // namespace

int main() {
  becomeMachine();
  shortLived(kServer, false);
  shortLived(at("2001:db8:2::2", 8080), false);
  shortLived(kServer, true);
  witnessLost();
  return passed();
}
