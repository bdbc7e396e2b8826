// Small pure things: text for facts, endpoints, the witness's messages, sock_diag replies.
#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>

#include <limits>

#include "capture/text.h"
#include "capture_fixture.h"
#include "check.h"
#include "net/syn_log.h"
#include "relay/upstream_set.h"
#include "witness/diag.h"
#include "witness/messages.h"

using namespace sluice;

namespace {

std::string json(std::string_view raw) {
  std::string out;
  appendJsonString(out, raw);
  return out;
}

void strings() {
  const std::string replaced = "\xEF\xBF\xBD";
  CHECK_EQ(json("curl"), "\"curl\"");
  CHECK_EQ(json(""), "\"\"");
  CHECK_EQ(json("a\"b\\c"), "\"a\\\"b\\\\c\"");
  CHECK_EQ(json(std::string_view("\0\n\x1b\x7f", 4)), "\"\\u0000\\u000a\\u001b\\u007f\"");
  CHECK_EQ(json("\xC2\x9B"), "\"\\u009b\"");                     // C1: what 8-bit terminals take for ESC [
  CHECK_EQ(json("\xE2\x80\xAE"), "\"\\u202e\"");                 // right-to-left override
  CHECK_EQ(json("\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80"), "\"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\"");
  CHECK_EQ(json("\xFF"), "\"" + replaced + "\"");
  CHECK_EQ(json("\xC0\xAF"), "\"" + replaced + replaced + "\"");                      // overlong
  CHECK_EQ(json("\xED\xA0\x80"), "\"" + replaced + replaced + replaced + "\"");       // surrogate
  CHECK_EQ(json("\xF4\x90\x80\x80"), "\"" + replaced + replaced + replaced + replaced + "\"");
  CHECK_EQ(json("\xF0\x9F\x98" "a"), "\"" + replaced + "a\"");   // a cut one is one
  std::string cut;
  appendUtf8(cut, "a\xE2\x82\xAC" "b", 3);
  CHECK_EQ(cut, "a");
  std::string number;
  appendNumber(number, std::numeric_limits<std::uint64_t>::max());
  appendNumber(number, std::numeric_limits<std::int64_t>::min());
  CHECK_EQ(number, "18446744073709551615-9223372036854775808");
}

void endpoints() {
  CHECK_EQ(endpoint("203.0.113.2", 80).address(), "203.0.113.2");
  CHECK_EQ(endpoint("2001:db8::2", 80).address(), "2001:db8::2");
  CHECK_EQ(endpoint("2001:db8::2", 65535).port(), 65535);
  CHECK(endpoint("203.0.113.2", 80) == endpoint("203.0.113.2", 80));
  CHECK(!(endpoint("203.0.113.2", 80) == endpoint("203.0.113.2", 81)));
  CHECK(!(endpoint("203.0.113.2", 80) == endpoint("203.0.113.3", 80)));
  CHECK(!(endpoint("203.0.113.2", 80) == endpoint("::ffff:203.0.113.2", 80)));
  Endpoint scoped = endpoint("fe80::1", 80);
  reinterpret_cast<sockaddr_in6&>(scoped.storage).sin6_scope_id = 2;
  CHECK(!(scoped == endpoint("fe80::1", 80)));
  CHECK_EQ(scoped.address(), "fe80::1");
  // A link-local address goes with its interface, by name or, where nobody bears that number, by it; another address never does.
  const auto written = [](std::string_view address, std::uint32_t interface) {
    Endpoint end = endpoint(std::string(address), 80);
    end.setScope(interface);
    std::string out;
    appendAddress(out, end);
    return out;
  };
  CHECK_EQ(written("fe80::1", 1), "fe80::1%lo");
  CHECK_EQ(written("fe80::1", 2'000'000'000), "fe80::1%2000000000");
  CHECK_EQ(written("fe80::1", 0), "fe80::1");
  CHECK_EQ(written("2001:db8::2", 1), "2001:db8::2");
  // Two machines on two links, between which nothing else may differ.
  const Endpoint client = endpoint("fe80::9", 40000);
  CHECK(!(UpstreamSet::key(client, scoped) == UpstreamSet::key(client, endpoint("fe80::1", 80))));
  CHECK(UpstreamSet::key(client, scoped) == UpstreamSet::key(client, scoped));
  CHECK(unmapped(endpoint("::ffff:203.0.113.2", 80)) == endpoint("203.0.113.2", 80));
  CHECK(unmapped(endpoint("2001:db8::2", 80)) == endpoint("2001:db8::2", 80));
  std::string text;
  appendAddress(text, endpoint("255.0.10.200", 1));
  CHECK_EQ(text, "255.0.10.200");
}

void logged() {
  // As the kernel writes it: the interfaces, then the packet last. linux/netfilter/nfnetlink_log.h
  struct {
    nlmsghdr header{};
    nfgenmsg body{};
    nlattr outgoing{NLA_HDRLEN + 4, NFULA_IFINDEX_OUTDEV};
    std::uint32_t interface = htonl(7);
    nlattr payload{NLA_HDRLEN + 4, NFULA_PAYLOAD};
    char bytes[4] = {'s', 'y', 'n', '!'};
  } message;
  message.header.nlmsg_len = sizeof message;
  message.header.nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET;
  const auto bytes = std::as_bytes(std::span(&message, 1));
  const auto packet = loggedPacket(bytes);
  CHECK(packet && packet->bytes.size() == 4 && packet->outgoing == 7);
  for (std::size_t length = 0; length < sizeof message; ++length) CHECK(!loggedPacket(bytes.first(length)));
  message.outgoing.nla_type = NFULA_IFINDEX_INDEV;
  CHECK(loggedPacket(bytes)->outgoing == 0);
}

void messages() {
  const WitnessQuestion question{9, endpoint("2001:db8::2", 40000), endpoint("2001:db8::3", 80), false, true};
  const std::string wire = encodeQuestion(question);
  const auto back = decodeQuestion(bytesOf(wire));
  CHECK(back && back->token == 9 && back->client == question.client && back->server == question.server && !back->udp && back->decides);
  for (std::size_t length = 0; length < wire.size(); ++length) CHECK(!decodeQuestion(bytesOf(std::string_view(wire).substr(0, length))));

  Program program{.pid = 12, .ppid = 1, .uid = 1000, .name = "curl", .path = "/usr/bin/curl", .user = "dev", .cmdline = {"curl", "", "\xff\n"}};
  const std::string answer = encodeAnswer({5, program});
  const auto same = decodeAnswer(bytesOf(answer));
  CHECK(same && same->token == 5 && same->program);
  CHECK(same->program->pid == 12 && same->program->ppid == 1 && same->program->uid == 1000 && same->program->cmdline == program.cmdline);
  CHECK(same->program->name == "curl" && same->program->path == "/usr/bin/curl" && same->program->user == "dev");
  for (std::size_t length = 0; length < answer.size(); ++length) CHECK(!decodeAnswer(bytesOf(std::string_view(answer).substr(0, length))));
  CHECK(!decodeAnswer(bytesOf(answer + "x")));
  CHECK(decodeAnswer(bytesOf(encodeAnswer({6, std::nullopt})))->program == std::nullopt);

  // Far too much is cut to what fits one message.
  program.name = program.path = program.user = std::string(10'000, 'n');
  program.cmdline.assign(100, std::string(1000, 'w'));
  const std::string large = encodeAnswer({7, program});
  CHECK(large.size() <= kMaxMessage);
  const auto bounded = decodeAnswer(bytesOf(large));
  CHECK(bounded && bounded->program->cmdline.size() == kMaxWords);
}

std::string reply(std::uint8_t family, std::uint8_t state, const char* from, std::uint16_t fromPort, const char* to, std::uint16_t toPort) {
  struct {
    nlmsghdr header;
    inet_diag_msg body;
  } wire{};
  wire.header = {sizeof wire, SOCK_DIAG_BY_FAMILY, 0, 3, 0};
  wire.body.idiag_family = family;
  wire.body.idiag_state = state;
  wire.body.id.idiag_sport = htons(fromPort);
  wire.body.id.idiag_dport = htons(toPort);
  inet_pton(family, from, wire.body.id.idiag_src);
  inet_pton(family, to, wire.body.id.idiag_dst);
  wire.body.idiag_uid = 1000;
  wire.body.idiag_inode = 77;
  return {reinterpret_cast<const char*>(&wire), sizeof wire};
}

void diag() {
  const Endpoint client = endpoint("198.51.100.2", 40000), server = endpoint("203.0.113.2", 80);
  const auto decode = [&](const std::string& bytes, std::uint32_t sequence = 3) { return decodeDiagReply(bytesOf(bytes), client, server, sequence); };
  const std::string good = reply(AF_INET, 1, "198.51.100.2", 40000, "203.0.113.2", 80);
  CHECK(decode(good) && decode(good)->inode == 77 && decode(good)->uid == 1000);
  CHECK(decode(reply(AF_INET6, 1, "::ffff:198.51.100.2", 40000, "::ffff:203.0.113.2", 80)));
  CHECK(!decode(reply(AF_INET6, 1, "2001:db8::1", 40000, "2001:db8::2", 80)));
  CHECK(!decode(good, 4));
  CHECK(!decode(reply(AF_INET, 10, "198.51.100.2", 40000, "203.0.113.2", 80)));
  CHECK(!decode(reply(AF_INET, 1, "198.51.100.2", 40001, "203.0.113.2", 80)));
  CHECK(!decode(reply(AF_INET, 1, "198.51.100.2", 40000, "203.0.113.2", 81)));
  CHECK(!decode(reply(AF_INET, 1, "198.51.100.3", 40000, "203.0.113.2", 80)));
  for (std::size_t length = 0; length < good.size(); ++length) CHECK(!decode(good.substr(0, length)));
}

}  // namespace

int main() {
  strings();
  endpoints();
  logged();
  messages();
  diag();
  return passed();
}
