// No room: too many flows, no descriptors left. New flows are told so by a reset, the others go on, and every end still ends.
#include "relay_lab.h"

using namespace lab;

namespace {

const Endpoint kServer = at("203.0.113.2", 8080);

struct Server {
  Descriptor listener = listenAt(kServer);
  std::vector<Descriptor> accepted;
  // Takes whatever comes until `wanted` connections are there.
  void take(std::size_t wanted) {
    while (accepted.size() < wanted) accepted.push_back(acceptFrom(listener));
  }
};

// Every byte there and back, over a flow that was there before the shortage.
// Comes to the relay's door; false: told already that there is no room, before connect(2) had come back.
bool comes(Descriptor& client) {
  client = socketFor(kServer);
  if (connect(client.get(), kServer.raw(), kServer.size()) == 0) return true;
  CHECK_EQ(errno, ECONNRESET);
  return false;
}
// Comes, and is told.
void isTold() {
  Descriptor client;
  if (comes(client)) CHECK_EQ(readToError(client), ECONNRESET);
}

void works(const Descriptor& client, const Descriptor& server) {
  writeAll(client, "still");
  CHECK_EQ(readExactly(server, 5), "still");
  writeAll(server, "here");
  CHECK_EQ(readExactly(client, 4), "here");
}

double processorSeconds(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  std::istringstream fields(line.substr(line.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  long user = 0, system = 0;
  fields >> user >> system;
  return static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

void maximum() {
  RelaySettings settings;
  settings.maxFlows = 5;
  settings.threads = 2;
  Relay relay(settings);
  Server server;
  std::vector<Descriptor> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(connectTo(kServer));
  server.take(5);
  for (int i = 0; i < 7; ++i) isTold();
  relay.awaitWarning("flows-shed");
  CHECK_EQ(relay.active(), 5);
  clients.pop_back();
  relay.awaitActive(5);  // the server has not ended its side: the flow is still one
  server.accepted.clear();
  clients.clear();
  relay.awaitActive(0);
  const Descriptor again = connectTo(kServer);
  server.take(1);
  works(again, server.accepted[0]);
  CHECK_EQ(std::count(relay.warnings().begin(), relay.warnings().end(), "flows-shed"), 1);
  const auto closed = facts(relay.finish(), "close");
  CHECK_EQ(closed.size(), 13U);
  CHECK_EQ(std::count_if(closed.begin(), closed.end(), [](const Json& fact) { return Relay::text(fact, "reason") == "shed"; }), 7);
}

// How often its first thread, which speaks with the helper, went to sleep.
std::int64_t sleeps(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("voluntary_ctxt_switches:")) return std::stoll(line.substr(24));
  }
  check::fail(__FILE__, __LINE__, "no voluntary_ctxt_switches");
}

// Each of a flood is told, and in the record; the helper is told once, and who tells it does not wake for each.
void flooded() {
  constexpr std::int64_t kFlood = 2000;
  RelaySettings settings;
  settings.maxFlows = 1;
  Relay relay(settings);
  Server server;
  const Descriptor client = connectTo(kServer);
  server.take(1);
  const std::int64_t before = sleeps(relay.pid()), began = milliseconds();
  for (std::int64_t i = 0; i < kFlood; ++i) isTold();
  const std::int64_t after = sleeps(relay.pid());
  std::printf("a flood of %lld: the control thread slept %lld times\n", static_cast<long long>(kFlood), static_cast<long long>(after - before));
  const std::int64_t took = milliseconds() - began;
  CHECK(after - before < kFlood / 4 + took / 50);  // counters are told five times a second
  std::string message;
  while (message.empty()) {
    if (const Json news = relay.read(); Relay::text(news, "code") == "flows-shed") message = Relay::text(news, "message");
  }
  CHECK(message.starts_with("no room for more flows (1 at once"));
  const std::int64_t told = std::stoll(message.substr(message.rfind(' ') + 1));
  CHECK(told >= 1 && told <= kFlood);
  CHECK_EQ(Relay::number(relay.ping(), "total"), kFlood + 1);
  CHECK(std::count(relay.warnings().begin(), relay.warnings().end(), "flows-shed") <= 1 + took / 5000);  // a pause of five seconds ends an episode
  works(client, server.accepted[0]);
  const auto closed = facts(relay.finish(), "close");
  CHECK_EQ(std::count_if(closed.begin(), closed.end(), [](const Json& fact) { return Relay::text(fact, "reason") == "shed"; }), kFlood);
}

// So few descriptors that no flow can be made any more: whoever comes is told by whichever thread, however often, and the record has each of them.
void descriptors(unsigned threads) {
  RelaySettings settings;
  settings.descriptors = 56 + 8 * threads;
  settings.threads = threads;
  Relay relay(settings);
  Server server;
  std::vector<Descriptor> clients;
  std::vector<Descriptor> pairs;
  std::ptrdiff_t shed = 0;
  // Served or told, at once. The relay itself may lend a descriptor for a moment, so one that is refused need not be the last to find room.
  const auto knock = [&] {
    Descriptor client;
    if (!comes(client)) return ++shed, false;
    pollfd waiting[2] = {{server.listener.get(), POLLIN, 0}, {client.get(), POLLIN, 0}};
    CHECK(poll(waiting, 2, kPatience * 1000) > 0);
    if (waiting[0].revents == 0) {
      CHECK_EQ(readToError(client), ECONNRESET);
      return ++shed, false;
    }
    server.accepted.push_back(acceptFrom(server.listener));
    clients.push_back(std::move(client));
    CHECK(clients.size() < 64);
    return true;
  };
  while (knock()) {
  }
  CHECK(clients.size() >= 10);
  relay.awaitWarning("flows-shed");
  // A crowd at the door: each is told, and the relay does not spin.
  int told = 0;
  for (int i = 0; i < 100; ++i) told += knock() ? 0 : 1;
  CHECK(told >= 90);
  const double before = processorSeconds(relay.pid());
  std::vector<Descriptor> more;
  std::size_t refused = 0, served = 0;
  for (int i = 0; i < 30; ++i) {
    Descriptor client;
    if (comes(client)) more.push_back(std::move(client));
    else ++refused;
  }
  // All of a crowd at once: told but for the few who find what was lent free again, and those are served.
  while (refused + served < 30) {
    std::vector<pollfd> waiting{{server.listener.get(), POLLIN, 0}};
    for (const Descriptor& client : more) waiting.push_back({client.get(), POLLIN, 0});
    CHECK(poll(waiting.data(), waiting.size(), kPatience * 1000) > 0);
    if (waiting[0].revents != 0) {
      acceptFrom(server.listener);  // and gone again
      ++served;
    }
    for (std::size_t i = more.size(); i-- > 0;) {
      if (waiting[i + 1].revents == 0) continue;
      if (const int error = readToError(more[i]); error != 0) {
        CHECK_EQ(error, ECONNRESET);
        ++refused;
      }
      more.erase(more.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
  CHECK(served <= 3);
  shed += static_cast<std::ptrdiff_t>(refused);
  more.clear();
  relay.awaitActive(static_cast<std::int64_t>(clients.size()));
  for (int i = 0; i < 10; ++i) relay.ping();
  CHECK(processorSeconds(relay.pid()) - before < 2.0);
  for (std::size_t i = 0; i < clients.size(); ++i) works(clients[i], server.accepted[i]);
  // One goes, one may come.
  clients.pop_back();
  server.accepted.pop_back();
  relay.awaitActive(static_cast<std::int64_t>(clients.size()));
  const Descriptor next = connectTo(kServer);
  const Descriptor taken = acceptFrom(server.listener);
  works(next, taken);
  // Without a free descriptor, ending everything must not need one.
  while (knock()) {
  }
  relay.send(R"({"type":"reset"})");
  for (const Descriptor& client : clients) CHECK_EQ(readToError(client), ECONNRESET);
  CHECK_EQ(relay.active(), 0);
  const auto closed = facts(relay.finish(), "close");
  CHECK_EQ(std::count_if(closed.begin(), closed.end(), [](const Json& fact) { return Relay::text(fact, "reason") == "shed"; }), shed);
}

void thousands(const std::string& order) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  constexpr std::size_t kFlows = 2000;
  CHECK(limit.rlim_max > 3 * kFlows);
  RelaySettings settings;
  settings.threads = 2;
  Relay relay(settings);
  Server server;
  std::vector<Descriptor> clients;
  for (std::size_t i = 0; i < kFlows; ++i) {
    clients.push_back(connectTo(kServer));
    server.take(i + 1);
  }
  CHECK_EQ(relay.active(), static_cast<std::int64_t>(kFlows));
  if (order == "end of input") relay.hangUp();
  else relay.send("{\"type\":\"" + order + "\"}");
  for (const Descriptor& client : clients) CHECK_EQ(readToError(client), ECONNRESET);
  for (const Descriptor& accepted : server.accepted) CHECK_EQ(readToError(accepted), ECONNRESET);
  if (order == "reset") {
    CHECK_EQ(relay.active(), 0);
    relay.hangUp();
  }
  CHECK_EQ(relay.waitStatus(), 0);
  const auto closed = facts(capture_reader::read(capture_reader::readFile(relay.capture())), "close");
  CHECK_EQ(closed.size(), kFlows);
  for (const Json& fact : closed) CHECK_EQ(Relay::text(fact, "reason"), "gate-closed");
}

// An idle flow holds no buffer: a thousand of them cost about a kilobyte each.
void idleMemory() {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  Relay relay;
  Server server;
  std::vector<Descriptor> clients;
  const auto open = [&](std::size_t count) {
    while (clients.size() < count) {
      clients.push_back(connectTo(kServer));
      server.take(clients.size());
      works(clients.back(), server.accepted.back());
    }
  };
  // What is made once, with the first of them, is not measured.
  open(1000);
  const std::int64_t before = ownKiB(relay.pid());
  open(3000);
  const std::int64_t grown = ownKiB(relay.pid()) - before;
  std::printf("idle flows: %lld KiB for 2000\n", static_cast<long long>(grown));
  CHECK(grown < 2 * 2000 + 2048);
  relay.finish();
#endif
}

}  // namespace

int main() {
  becomeMachine();
  maximum();
  flooded();
  descriptors(1);
  descriptors(2);
  descriptors(4);
  thousands("reset");
  thousands("quit");
  thousands("end of input");
  idleMemory();
  return passed();
}
