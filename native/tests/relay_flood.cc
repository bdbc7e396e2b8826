// Half-open connections in crowds: the kernel answers them by cookies, the relay knows none of them, and who means it is served meanwhile.
#include <netinet/ip.h>
#include <netinet/tcp.h>

#include "relay_lab.h"

using namespace lab;

namespace {

constexpr int kQueue = 64;           // half-open connections a listener keeps before it answers by cookies
constexpr int kFlood = 40 * kQueue;

std::uint16_t sum(const std::uint8_t* bytes, std::size_t size, std::uint32_t more = 0) {
  for (std::size_t i = 0; i + 1 < size; i += 2) more += static_cast<std::uint32_t>(bytes[i] << 8U | bytes[i + 1]);
  while (more >> 16U != 0) more = (more & 0xffffU) + (more >> 16U);
  return htons(static_cast<std::uint16_t>(~more));
}

// SYNs of a machine that is not there, so nobody answers what comes back (RFC 9293, 3.1; checksums: RFC 1071).
void flood(const Endpoint& server) {
  const Descriptor raw{socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)};
  CHECK(raw);
  for (int i = 0; i < kFlood; ++i) {
    struct { iphdr ip; tcphdr tcp; } packet{};
    packet.ip.version = 4;
    packet.ip.ihl = 5;
    packet.ip.tot_len = htons(sizeof packet);
    packet.ip.ttl = 64;
    packet.ip.protocol = IPPROTO_TCP;
    packet.ip.saddr = inet_addr("198.51.100.77");
    packet.ip.daddr = reinterpret_cast<const sockaddr_in*>(&server.storage)->sin_addr.s_addr;
    packet.tcp.source = htons(static_cast<std::uint16_t>(10000 + i));
    packet.tcp.dest = htons(server.port());
    packet.tcp.seq = htonl(static_cast<std::uint32_t>(i) * 1000003U);
    packet.tcp.doff = 5;
    packet.tcp.syn = 1;
    packet.tcp.window = htons(65535);
    const auto* addresses = reinterpret_cast<const std::uint8_t*>(&packet.ip.saddr);
    std::uint32_t pseudo = IPPROTO_TCP + sizeof packet.tcp;
    for (int at = 0; at < 8; at += 2) pseudo += static_cast<std::uint32_t>(addresses[at] << 8U | addresses[at + 1]);
    packet.tcp.check = sum(reinterpret_cast<const std::uint8_t*>(&packet.tcp), sizeof packet.tcp, pseudo);
    CHECK_EQ(sendto(raw.get(), &packet, sizeof packet, 0, server.raw(), server.size()), static_cast<ssize_t>(sizeof packet));
  }
}

std::uint64_t cookiesSent() {
  std::ifstream file("/proc/thread-self/net/netstat");
  std::string names, values;
  std::getline(file, names);
  std::getline(file, values);
  std::istringstream name(names), value(values);
  for (std::string n, v; name >> n && value >> v;) {
    if (n == "SyncookiesSent") return std::stoull(v);
  }
  check::fail(__FILE__, __LINE__, "no SyncookiesSent");
}

void served(const Gateway& gateway, const Descriptor& listener, const Endpoint& server) {
  Descriptor client;
  gateway.client->inside([&] { client = connectTo(server); });
  Endpoint peer;
  const Descriptor accepted = acceptFrom(listener, &peer);
  writeAll(client, "anybody there?");
  CHECK_EQ(readExactly(accepted, 14), "anybody there?");
  writeAll(accepted, "yes");
  CHECK_EQ(readExactly(client, 3), "yes");
}

void set(const std::string& name, int value) {
  std::ofstream file("/proc/sys/net/" + name);
  file << value << std::flush;
  CHECK(file);
}

void halfOpen() {
  const Gateway gateway;
  set("core/somaxconn", kQueue);
  Relay relay;
  const Endpoint server = at("203.0.113.2", 8080);
  Descriptor listener;
  gateway.server->inside([&] { listener = listenAt(server); });
  gateway.client->inside([&] { flood(server); });
  CHECK(cookiesSent() > 0);
  for (int i = 0; i < 20; ++i) served(gateway, listener, server);
  relay.awaitActive(0);
  CHECK(relay.warnings().empty());
  const auto record = relay.finish();
  CHECK_EQ(facts(record, "open").size(), 20U);
  CHECK_EQ(facts(record, "connected").size(), 20U);
}

// Cookies for everybody, as some machines have it.
void cookies(const std::string& address) {
  const Gateway gateway;
  set("ipv4/tcp_syncookies", 2);
  Relay relay;
  const Endpoint server = at(address, 8080);
  Descriptor listener;
  gateway.server->inside([&] { listener = listenAt(server); });
  served(gateway, listener, server);
  CHECK_EQ(cookiesSent(), 1U);
  relay.awaitActive(0);
  CHECK_EQ(facts(relay.finish(), "connected").size(), 1U);
}

// Whose SYNs wait for their server: each of the crowd's has a connection of the relay's own, as long as a client may need to finish its handshake.
void held() {
  const Gateway gateway(true);
  RelaySettings settings;
  settings.hold = true;
  settings.maxFlows = 500;
  Relay relay(settings);
  CHECK(*relay.ready().member("holds")->boolean());
  const Endpoint server = at("203.0.113.2", 8080);
  Descriptor listener;
  gateway.server->inside([&] { listener = listenAt(at("203.0.113.2", 8081)); });
  gateway.client->inside([&] { flood(server); });  // a closed port: refused one by one
  served(gateway, listener, at("203.0.113.2", 8081));
  relay.awaitActive(0);
  const auto record = relay.finish();
  const auto closed = facts(record, "close");
  CHECK_EQ(closed.size(), facts(record, "open").size());
  CHECK_EQ(facts(record, "connected").size(), 1U);
}

}  // namespace

int main() {
  std::thread(halfOpen).join();
  for (const std::string address : {"203.0.113.2", "2001:db8:2::2"}) std::thread([&] { cookies(address); }).join();
  std::thread(held).join();
  return passed();
}
