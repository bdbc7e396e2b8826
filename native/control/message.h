// What the helper says to the relay and the relay to the helper: ARCHITECTURE.md, "Relay control".
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "capture/recorder.h"
#include "relay/hand_over.h"

namespace sluice {

struct PortRange { std::uint16_t from = 0, to = 0; };  // both ends included

// Seconds without a datagram after which a flow of UDP is over.
struct UdpIdle { unsigned dns = 10, quic = 60, other = 60; };

struct HoldOptions {
  std::uint16_t group = 0;            // nfnetlink_log group that the rules give held SYNs to
  std::uint32_t releasedMark = 0;     // what leads a released SYN to the listener
};

struct RedirectOptions { bool everywhere = false; };  // devices are translated to this machine's other addresses

struct KeepOptions { std::uint32_t mark = 0; };  // of answers to clients of flows that keep their ports

struct StartMessage {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;          // at most 65,536
  std::uint16_t port = 0;             // 1..65535
  unsigned portTries = 0;             // ports tried after the first, at most 1,000
  bool ipv6 = true;
  unsigned threads = 1;               // 1..64
  std::uint32_t uplinkMark = 0;       // 0: none
  std::uint32_t flowMarks = 0;        // bits that conntrack is to forget of flows before; may be absent
  std::string folder;                 // absolute
  bool payload = true;
  std::optional<std::uint64_t> maxBytesPerFlow, maxBytes, segmentBytes;
  bool ring = true;                  // maxBytes is a budget for the newest segments
  bool attribute = false;
  unsigned maxFlows = 0;              // 1..1,000,000
  std::optional<HoldOptions> hold;    // SYNs are held until their server has answered
  std::optional<KeepOptions> keep;    // held flows go on with their clients' ports
  std::optional<RedirectOptions> redirect;  // the kernel cannot hand connections over as they are; without UDP and holding then
  std::string version;                // printable ASCII, 1..64
  bool udp = false;                   // the rest may be absent
  UdpIdle udpIdle;                    // 1..86,400 each
  std::vector<HandOverWish> handOver; // ports sent to a proxy; at most 128
  std::vector<PortRange> refuse;      // of UDP, answered as closed; at most 1,024
};
struct UdpChoicesMessage { UdpIdle idle; std::vector<PortRange> refuse; };  // from now on
struct HandOverMessage { std::vector<HandOverWish> handOver; };  // from now on, for new flows
struct PingMessage { std::int64_t id = 0; };
struct ResetMessage {};
struct QuitMessage {};
struct UnknownMessage {};                           // an object with a type that is none of these
struct MalformedMessage { std::string reason; };

using ControlMessage = std::variant<StartMessage, PingMessage, ResetMessage, QuitMessage, UnknownMessage, MalformedMessage, UdpChoicesMessage, HandOverMessage>;

// Pure. `line` is without its line feed; everything in it is checked for type and range, what is not known is let be.
ControlMessage parseControlLine(std::string_view line);

struct Counters {
  std::uint64_t active = 0, total = 0, bytes = 0;
  std::uint64_t datagrams = 0, udpFlows = 0;  // relayed; flows of UDP there are, silent ones too
  bool operator==(const Counters&) const = default;
};

// Lines with their line feed.
std::string formatReady(std::uint16_t port, std::uint16_t keptPort, bool ipv6, bool holds, pid_t pid, uid_t uid);  // keptPort 0: there is none
std::string formatFailed(std::string_view code, std::string_view message, std::string_view detail);
std::string formatPong(std::int64_t id, const Counters& counters, Recording recording);
std::string formatFlows(const Counters& counters);
std::string formatWarning(std::string_view code, std::string_view message);

}  // namespace sluice
