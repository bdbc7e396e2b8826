// How the relay is started, asked and ended, and what rights it and its witness have left.
#include <sys/prctl.h>

#include <map>

#include "control/message.h"
#include "relay_lab.h"

using namespace lab;

namespace {

void parsing() {
  using namespace sluice;
  const auto is = [](std::string_view line, std::size_t index) { CHECK_EQ(parseControlLine(line).index(), index); };
  constexpr std::size_t kStart = 0, kPing = 1, kReset = 2, kQuit = 3, kUnknown = 4, kMalformed = 5;
  is(R"({"type":"ping","id":7})", kPing);
  is(R"( { "id" : -7 , "type" : "ping" } )", kPing);
  is(R"({"type":"reset"})", kReset);
  is(R"({"type":"quit","why":[1,{"a":null}]})", kQuit);
  is(R"({"type":"\u0071uit"})", kQuit);
  is(R"({"type":"sing"})", kUnknown);
  for (const std::string_view bad : {R"()", R"({})", R"([])", R"({"type":1})", R"({"type":"ping"})", R"({"type":"ping","id":1.5})",
                                     R"({"type":"ping","id":1e3})", R"({"type":"ping","id":9007199254740992})", R"({"type":"ping","id":01})",
                                     R"({"type":"ping","id":"1"})", R"({"type":"quit"} x)", R"({"type":"quit",})", R"({"type":"quit","type":"quit"})",
                                     R"({"type":"start"})", "{\"type\":\"qu\nit\"}", "{\"type\":\"\xff\"}", "{\"type\":\"\\ud800\"}", R"({"type":"quit")"}) {
    is(bad, kMalformed);
  }
  is("{\"type\":\"quit\",\"x\":" + std::string(9, '[') + std::string(9, ']') + "}", kMalformed);
  is("{\"type\":\"quit\",\"x\":\"" + std::string(kMaxControlLine, 'a') + "\"}", kMalformed);
  const std::string start =
      R"({"type":"start","uid":1000,"gid":1000,"groups":[4,1000],"port":50080,"portTries":20,"ipv6":true,"threads":2,"uplinkMark":2147483648,)"
      R"("capture":{"folder":"/x/y.sluice","payload":true,"maxBytesPerFlow":null,"maxBytes":5,"segmentBytes":7,"ring":false},"attribute":true,"maxFlows":8192,"version":"0.1.0"})";
  const ControlMessage message = parseControlLine(start);
  CHECK_EQ(message.index(), kStart);
  const auto& read = std::get<StartMessage>(message);
  CHECK_EQ(read.uid, 1000U);
  CHECK_EQ(read.groups.size(), 2U);
  CHECK_EQ(read.uplinkMark, 0x80000000U);
  CHECK_EQ(read.folder, "/x/y.sluice");
  CHECK(!read.maxBytesPerFlow.has_value());
  CHECK_EQ(*read.maxBytes, 5U);
  CHECK_EQ(read.flowMarks, 0U);
  const ControlMessage marked = parseControlLine(start.substr(0, start.size() - 1) + ",\"flowMarks\":2449473536}");
  CHECK_EQ(std::get<StartMessage>(marked).flowMarks, 0x92000000U);
  is(start.substr(0, start.size() - 1) + ",\"flowMarks\":4294967296}", kMalformed);
  CHECK(!read.udp && read.udpIdle.dns == 10 && read.udpIdle.quic == 60 && read.udpIdle.other == 60 && read.refuse.empty());
  const std::string withUdp = start.substr(0, start.size() - 1) + R"(,"udp":true,"udpIdle":{"dns":3,"other":86400},"refuse":[{"from":443,"to":443},{"from":1,"to":65535}]})";
  const ControlMessage udpMessage = parseControlLine(withUdp);
  CHECK_EQ(udpMessage.index(), kStart);
  const auto& udp = std::get<StartMessage>(udpMessage);
  CHECK(udp.udp && udp.udpIdle.dns == 3 && udp.udpIdle.quic == 60 && udp.udpIdle.other == 86400);
  CHECK(udp.refuse.size() == 2 && udp.refuse[0].from == 443 && udp.refuse[1].to == 65535);
  for (const auto& [good, bad] : std::map<std::string, std::string>{
           {"\"udp\":true", "\"udp\":1"}, {"\"dns\":3", "\"dns\":0"}, {"86400", "86401"}, {"{\"dns\":3,\"other\":86400}", "7"},
           {"\"to\":443", "\"to\":442"}, {"\"to\":443", "\"too\":443"}, {"65535", "65536"}, {"[{\"from\":443,\"to\":443},", "[443,"}}) {
    std::string line = withUdp;
    line.replace(line.find(good), good.size(), bad);
    is(line, kMalformed);
  }
  std::string many = "{\"from\":1,\"to\":65535}";  // as many as a plan may have, and one more
  for (int more = 1; more < 4096; ++more) many += ",{\"from\":65535,\"to\":65535}";
  CHECK_EQ(std::get<UdpChoicesMessage>(parseControlLine("{\"type\":\"udp\",\"refuse\":[" + many + "]}")).refuse.size(), std::size_t{4096});
  is("{\"type\":\"udp\",\"refuse\":[" + many + ",{\"from\":1,\"to\":1}]}", kMalformed);
  const ControlMessage anew = parseControlLine(R"({"type":"udp","udpIdle":{"dns":3},"refuse":[{"from":443,"to":444}]})");
  CHECK_EQ(anew.index(), std::size_t{6});
  CHECK(std::get<UdpChoicesMessage>(anew).idle.dns == 3 && std::get<UdpChoicesMessage>(anew).idle.other == 60 && std::get<UdpChoicesMessage>(anew).refuse[0].to == 444);
  is(R"({"type":"udp","udpIdle":{"dns":0}})", kMalformed);
  is(R"({"type":"udp","refuse":[{"from":2,"to":1}]})", kMalformed);
  const std::string withProxies = start.substr(0, start.size() - 1) +
      R"(,"handOver":[{"ports":[{"from":80,"to":81}],"kind":"socks5","address":"::1","port":1080},{"ports":[{"from":443,"to":443}],"kind":"proxy-v2","path":"/run/x"},{"ports":[{"from":8080,"to":8080}],"kind":"tproxy","address":"127.0.0.1","port":3129,"mark":2449473536}]})";
  const ControlMessage proxiesMessage = parseControlLine(withProxies);
  CHECK_EQ(proxiesMessage.index(), kStart);
  const auto& proxies = std::get<StartMessage>(proxiesMessage).handOver;
  CHECK(proxies.size() == 3 && proxies[0].kind == HandOverWish::Kind::kSocks5 && proxies[0].proxy.address() == "::1" && proxies[0].proxy.port() == 1080);
  CHECK(proxies[0].ports[0].to == 81 && proxies[1].kind == HandOverWish::Kind::kProxyV2 && proxies[1].path == "/run/x");
  CHECK(proxies[2].kind == HandOverWish::Kind::kTproxy && proxies[2].mark == 0x92000000U && proxies[2].proxy.port() == 3129);
  for (const auto& [good, bad] : std::map<std::string, std::string>{
           {"\"::1\"", "\"localhost\""}, {"\"socks5\"", "\"tproxy\""}, {"2449473536", "0"}, {"\"127.0.0.1\",\"port\":3129", "\"127.0.0.1\",\"port\":0"}, {"1080", "0"}, {"/run/x", "run/x"}, {"/run/x", "/" + std::string(107, 'x')}, {"\"proxy-v2\"", "\"socks5\""}}) {
    std::string line = withProxies;
    line.replace(line.find(good), good.size(), bad);
    is(line, kMalformed);
  }
  // While open, for new flows; without the list it means nothing.
  const ControlMessage others = parseControlLine(R"({"type":"handOver","handOver":[{"ports":[{"from":80,"to":81}],"kind":"socks5","address":"::1","port":1080}]})");
  CHECK_EQ(others.index(), std::size_t{7});
  CHECK(std::get<HandOverMessage>(others).handOver.size() == 1 && std::get<HandOverMessage>(others).handOver[0].proxy.port() == 1080);
  CHECK(std::get<HandOverMessage>(parseControlLine(R"({"type":"handOver","handOver":[]})")).handOver.empty());
  is(R"({"type":"handOver"})", kMalformed);
  is(R"({"type":"handOver","handOver":[{"ports":[{"from":80,"to":81}],"kind":"socks5","address":"nowhere","port":1080}]})", kMalformed);
  const std::string keeping = start.substr(0, start.size() - 1) + R"(,"hold":{"group":1,"releasedMark":1},"keep":{"mark":33554432}})";
  const ControlMessage keepingMessage = parseControlLine(keeping);
  CHECK_EQ(keepingMessage.index(), kStart);
  CHECK_EQ(std::get<StartMessage>(keepingMessage).keep->mark, 0x02000000U);
  is(start.substr(0, start.size() - 1) + R"(,"keep":{"mark":33554432}})", kMalformed);  // only what is held can be kept
  CHECK(!read.redirect.has_value());
  const std::string redirected = start.substr(0, start.size() - 1) + R"(,"redirect":{"everywhere":true}})";
  const ControlMessage redirectedMessage = parseControlLine(redirected);
  CHECK_EQ(redirectedMessage.index(), kStart);
  CHECK(std::get<StartMessage>(redirectedMessage).redirect->everywhere);
  for (const std::string& more : {std::string(R"("udp":true)"), std::string(R"("hold":{"group":1,"releasedMark":1})")}) {
    is(redirected.substr(0, redirected.size() - 1) + "," + more + "}", kMalformed);
  }
  is(start.substr(0, start.size() - 1) + R"(,"redirect":true})", kMalformed);
  CHECK_EQ(*read.segmentBytes, 7U);
  CHECK(!read.ring);
  const std::map<std::string, std::string> spoilt = {{"\"uid\":1000", "\"uid\":4294967295"},     {"\"uid\":1000", "\"uid\":-1"},
                                                     {"50080", "0"},                           {"50080", "65536"},
                                                     {"[4,1000]", "[4,\"a\"]"},                {"[4,1000]", "4"},
                                                     {"/x/y", "x/y"},                          {"/x/y", "/x\\u0000y"},
                                                     {"\"threads\":2", "\"threads\":0"},       {"2147483648", "4294967296"},
                                                     {"\"payload\":true", "\"payload\":1"},    {"\"maxBytes\":5", "\"maxBytes\":-5"},
                                                     {"\"ring\":false", "\"ring\":0"},          {"\"segmentBytes\":7", "\"segmentBytes\":\"7\""},
                                                     {"8192", "0"},                            {"0.1.0", "a\\nb"}};
  for (const auto& [good, bad] : spoilt) {
    std::string line = start;
    line.replace(line.find(good), good.size(), bad);
    is(line, kMalformed);
  }
  CHECK_EQ(quoteJson("a\"\\\n\x1b\xff\xc3\xa9"), "\"a\\\"\\\\\\u000a\\u001b\xef\xbf\xbd\xc3\xa9\"");
}

std::map<std::string, std::string> status(pid_t pid) {
  std::map<std::string, std::string> found;
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    const auto colon = line.find(':');
    const auto value = line.find_first_not_of(" \t", colon + 1);
    found[line.substr(0, colon)] = value == std::string::npos ? "" : line.substr(value);
  }
  return found;
}
std::vector<pid_t> children(pid_t pid) {
  std::vector<pid_t> found;
  std::ifstream file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children");
  for (pid_t child = 0; file >> child;) found.push_back(child);
  return found;
}

void rights(uid_t uid) {
  RelaySettings settings;
  settings.uid = uid;
  settings.attribute = true;
  settings.threads = 2;
  Relay relay(settings);
  CHECK_EQ(Relay::number(relay.ready(), "port"), 50080);
  CHECK_EQ(Relay::number(relay.ready(), "pid"), relay.pid());
  CHECK_EQ(Relay::number(relay.ready(), "uid"), static_cast<std::int64_t>(uid));
  const Json* ipv6 = relay.ready().member("ipv6");
  CHECK(ipv6 != nullptr && ipv6->boolean() != nullptr && *ipv6->boolean());
  relay.ping();
  // Every thread, not only the first: capabilities are a thread's.
  int threads = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(relay.pid()) + "/task")) {
    ++threads;
    auto now = status(static_cast<pid_t>(std::stol(task.path().filename())));
    const std::string id = std::to_string(uid);
    CHECK_EQ(now["Uid"], id + "\t" + id + "\t" + id + "\t" + id);
    CHECK_EQ(now["Gid"], id + "\t" + id + "\t" + id + "\t" + id);
    CHECK(now["Groups"].starts_with(id) && now["Groups"].find_first_of("0123456789", id.size()) == std::string::npos);
    for (const char* set : {"CapEff", "CapPrm"}) CHECK_EQ(now[set], "0000000000002400");  // NET_BIND_SERVICE 10, NET_RAW 13
    for (const char* set : {"CapInh", "CapBnd", "CapAmb"}) CHECK_EQ(now[set], "0000000000000000");
    CHECK_EQ(now["NoNewPrivs"], "1");
  }
  CHECK(threads >= 3);
  // Not dumpable: its files in /proc are root's.
  struct stat owner {};
  CHECK_EQ(stat(("/proc/" + std::to_string(relay.pid()) + "/mem").c_str(), &owner), 0);
  CHECK_EQ(owner.st_uid, 0U);
  const auto witnesses = children(relay.pid());
  CHECK_EQ(witnesses.size(), 1U);
  auto witness = status(witnesses[0]);
  for (const char* set : {"CapEff", "CapPrm"}) CHECK_EQ(witness[set], "0000000000080004");  // SYS_PTRACE 19, DAC_READ_SEARCH 2
  for (const char* set : {"CapInh", "CapBnd", "CapAmb"}) CHECK_EQ(witness[set], "0000000000000000");
  CHECK_EQ(witness["NoNewPrivs"], "1");
  // The record is the person's, and only theirs.
  CHECK_EQ(stat(relay.capture().c_str(), &owner), 0);
  CHECK_EQ(owner.st_uid, uid);
  CHECK_EQ(owner.st_mode & 0777U, 0600U);
  relay.finish();
  // And the witness is gone with it.
  const std::int64_t until = milliseconds() + kPatience * 1000;
  while (kill(witnesses[0], 0) == 0 && status(witnesses[0])["State"].substr(0, 1) != "Z") CHECK(milliseconds() < until);
}

void failures() {
  {
    RelaySettings settings;
    settings.folder = "/nonexistent/x.sluice";
    Relay relay(settings, false);
    const Json line = relay.read();
    CHECK_EQ(Relay::text(line, "type"), "failed");
    CHECK_EQ(Relay::text(line, "code"), "capture-unwritable");
    CHECK_EQ(relay.waitStatus(), 1);
  }
  {
    const Folder roots;  // the person may not write there, although the relay began as root
    RelaySettings settings;
    settings.folder = roots.path();
    Relay relay(settings, false);
    CHECK_EQ(Relay::text(relay.read(), "code"), "capture-unwritable");
    CHECK_EQ(relay.waitStatus(), 1);
  }
  const Descriptor other = listenAt(at("127.0.0.1", 50080));
  {
    Relay relay({}, false);
    CHECK_EQ(Relay::text(relay.read(), "code"), "port-taken");
    CHECK_EQ(relay.waitStatus(), 1);
  }
  const Descriptor another = listenAt(at("::1", 50081));
  {
    RelaySettings settings;
    settings.portTries = 5;
    settings.threads = 2;
    Relay relay(settings);  // 50080 is taken in one family, 50081 in the other
    CHECK_EQ(Relay::number(relay.ready(), "port"), 50082);
    Relay second(settings);  // two relays of one person do not share a port
    CHECK_EQ(Relay::number(second.ready(), "port"), 50083);
    relay.finish();
    second.finish();
  }
}

void malformedStart() {
  Relay relay({}, true);
  relay.send("this is no JSON");
  CHECK_EQ(relay.waitStatus(), 0);  // a helper that talks nonsense is treated as one that is gone
}

void unknownIsLetBe() {
  Relay relay;
  relay.send(R"({"type":"new in a later version"})");
  relay.ping();
  relay.finish();
}

void pings() {
  RelaySettings settings;
  settings.threads = 4;
  Relay relay(settings);
  std::string many;
  for (int id = 1; id <= 20; ++id) many += "{\"type\":\"ping\",\"id\":" + std::to_string(id) + "}\n";
  many.pop_back();
  relay.send(many);
  for (int id = 1; id <= 20; ++id) {
    const Json pong = relay.await("pong");
    CHECK_EQ(Relay::number(pong, "id"), id);
    CHECK_EQ(Relay::number(pong, "active"), 0);
    CHECK_EQ(Relay::text(pong, "recording"), "on");
  }
  // A thread that does not turn is no answer.
  kill(relay.pid(), SIGSTOP);
  relay.send(R"({"type":"ping","id":99})");
  kill(relay.pid(), SIGCONT);
  CHECK_EQ(Relay::number(relay.await("pong"), "id"), 99);
  relay.finish();
}

struct Talk {
  Descriptor listener = listenAt(at("203.0.113.2", 8080));
  Descriptor client = connectTo(at("203.0.113.2", 8080));
  Descriptor server = acceptFrom(listener);
  Talk() {
    writeAll(client, "hello");
    CHECK_EQ(readExactly(server, 5), "hello");
  }
  void bothReset() const {
    CHECK_EQ(readToError(client), ECONNRESET);
    CHECK_EQ(readToError(server), ECONNRESET);
  }
};

void resetThenOn() {
  Relay relay;
  {
    const Talk talk;
    relay.send(R"({"type":"reset"})");
    talk.bothReset();
  }
  CHECK_EQ(relay.active(), 0);
  const Talk again;  // it still relays
  CHECK_EQ(relay.active(), 1);
  const auto record = relay.finish();
  again.bothReset();
  const auto closed = facts(record, "close");
  CHECK_EQ(closed.size(), 2U);
  for (const Json& fact : closed) {
    CHECK_EQ(Relay::text(fact, "reason"), "gate-closed");
    CHECK_EQ(Relay::text(fact, "closedBy"), "gate");
  }
}

void endOfInput() {
  Relay relay;
  const Talk talk;
  relay.hangUp();
  talk.bothReset();
  CHECK_EQ(relay.waitStatus(), 0);
  checkClosed(capture_reader::read(capture_reader::readFile(relay.capture())), "gate-closed", "gate");
}

void terminated() {
  Relay relay;
  const Talk talk;
  kill(relay.pid(), SIGINT);  // a key pressed in the terminal it shares is none of its business
  kill(relay.pid(), SIGHUP);
  CHECK_EQ(relay.active(), 1);
  kill(relay.pid(), SIGTERM);
  talk.bothReset();
  CHECK_EQ(relay.waitStatus(), 0);
  checkClosed(capture_reader::read(capture_reader::readFile(relay.capture())), "gate-closed", "gate");
}

// Killed without a chance to say anything, the relay still leaves no clean end behind.
void killed() {
  Relay relay;
  const Talk talk;
  kill(relay.pid(), SIGKILL);
  talk.bothReset();
}

// It dies with the helper even where the channel would not tell.
void helperKilled() {
  int report[2];
  CHECK_EQ(pipe2(report, O_CLOEXEC), 0);
  const pid_t helper = fork();
  CHECK(helper >= 0);
  if (helper == 0) {
    auto* relay = new Relay;  // never destroyed
    const pid_t pid = relay->pid();
    CHECK_EQ(write(report[1], &pid, sizeof pid), static_cast<ssize_t>(sizeof pid));
    pause();
  }
  pid_t relay = 0;
  CHECK_EQ(read(report[0], &relay, sizeof relay), static_cast<ssize_t>(sizeof relay));
  kill(helper, SIGKILL);
  CHECK_EQ(waitpid(helper, nullptr, 0), helper);
  const std::int64_t until = milliseconds() + kPatience * 1000;
  while (kill(relay, 0) == 0 && status(relay)["State"].substr(0, 1) != "Z") CHECK(milliseconds() < until);
}

void direct() {
  Relay relay;
  CHECK_EQ(refusal(at("127.0.0.1", 50080)), ECONNRESET);  // to the relay itself, intercepted by nobody
  CHECK_EQ(Relay::number(relay.ping(), "total"), 0);
  relay.finish();
}

void withoutIpv6() {
  std::ofstream("/proc/sys/net/ipv6/conf/all/disable_ipv6") << "1";
  std::ofstream("/proc/sys/net/ipv6/conf/lo/disable_ipv6") << "1";
  Relay relay;
  const Json* ipv6 = relay.ready().member("ipv6");
  CHECK(ipv6 != nullptr && ipv6->boolean() != nullptr && !*ipv6->boolean());
  const Talk talk;
  CHECK_EQ(relay.active(), 1);
  relay.finish();
}

}  // namespace

int main() {
  parsing();
  becomeMachine();
  rights(kPerson);
  rights(0);
  failures();
  malformedStart();
  unknownIsLetBe();
  pings();
  resetThenOn();
  endOfInput();
  terminated();
  killed();
  helperKilled();
  direct();
  withoutIpv6();
  return passed();
}
