// New flows of UDP, and reading: the listeners, then the flows' own sockets.
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "net/resting_ports.h"
#include "net/udp_socket.h"
#include "net/upstream.h"
#include "relay/refusal.h"
#include "relay/udp_relay.h"

namespace sluice {
namespace {

constexpr int kRoundsATurn = 16;                       // of a listener, each of UdpInbox::kMost datagrams
constexpr std::int64_t kWitnessPatience = 50'000'000;  // ns, as for TCP

std::size_t indexOf(int family) { return family == AF_INET ? 0 : 1; }

// Not one host: nothing that could be asked on somebody's behalf.
bool manyOrNone(const Endpoint& server) {
  const AddressBytes bytes = addressBytes(server);
  if (!server.v4()) return bytes[0] == 0xff || std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
  const bool all = bytes[12] == 255 && bytes[13] == 255 && bytes[14] == 255 && bytes[15] == 255;
  return (bytes[12] & 0xf0U) == 0xe0 || bytes[12] == 0 || all;
}

UdpKind kindOf(std::uint16_t port, std::span<const std::byte> first) {
  if (port == 53 || port == 5353) return UdpKind::kDns;
  return port == 443 || isQuic(first) ? UdpKind::kQuic : UdpKind::kOther;
}

std::uint64_t countOf(std::span<const UdpPiece> pieces) {
  std::uint64_t count = 0;
  for (const UdpPiece& piece : pieces) eachDatagram({&piece, 1, piece.segment}, [&](std::span<const std::byte>) { ++count; });
  return count;
}

}  // namespace

UdpRelay::UdpRelay(Surroundings surroundings, std::array<Descriptor, 2> listeners)
    : surroundings_(std::move(surroundings)), shared_(surroundings_.shared), track_(surroundings_.track), listeners_(std::move(listeners)),
      packet_(kMaxPacket) {
  bool good = inbox_.good();
  for (std::uint64_t family = 0; family < 2; ++family) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = kListenTag + family;
    if (listeners_[family]) good = good && ::epoll_ctl(surroundings_.epoll, EPOLL_CTL_ADD, listeners_[family].get(), &event) == 0;
  }
  if (!good) std::abort();  // at start, as the Worker does
}

UdpRelay::~UdpRelay() = default;

bool UdpRelay::listen(std::size_t family) {
  if (!listeners_[family]) return true;
  std::array<UdpPiece, UdpInbox::kMost> pieces;
  for (int round = 0; round < kRoundsATurn; ++round) {
    const int count = inbox_.receive(listeners_[family].get());
    const std::size_t all = count > 0 ? static_cast<std::size_t>(count) : 0;
    for (std::size_t at = 0; at < all;) {
      const UdpControl first = inbox_.control(at);
      std::size_t size = 0, next = at;
      if (!first.destination) {
        ++at;
        continue;
      }
      pieces[size++] = {inbox_.bytes(next++), first.segment, first.tos};
      while (next < all && inbox_.from(next) == inbox_.from(at)) {
        const UdpControl control = inbox_.control(next);
        if (!control.destination || !(*control.destination == *first.destination)) break;
        pieces[size++] = {inbox_.bytes(next++), control.segment, control.tos};
      }
      arrive(inbox_.from(at), *first.destination, {pieces.data(), size});
      at = next;
    }
    if (all < UdpInbox::kMost) {
      watchFresh(family);
      return true;
    }
  }
  return false;
}

void UdpRelay::arrive(const Endpoint& client, const Endpoint& server, std::span<const UdpPiece> pieces) {
  const UpstreamSet::Key key = UpstreamSet::key(client, server);
  const auto found = flows_.find(key);
  UdpFlow* const flow = found != flows_.end() ? found->second.get() : open(key, client, server, pieces);
  if (flow != nullptr) relay(*flow, Direction::kUp, pieces);
}

void UdpRelay::take(const StrayDatagram& stray) {
  const UdpPiece piece{std::as_bytes(std::span(stray.bytes)), 0, stray.tos};
  arrive(stray.client, stray.server, {&piece, 1});
}

void UdpRelay::handOver(std::size_t owner, const Endpoint& client, const Endpoint& server, std::span<const UdpPiece> pieces) {
  for (const UdpPiece& piece : pieces) {
    eachDatagram({&piece, 1, piece.segment}, [&](std::span<const std::byte> bytes) {
      surroundings_.hand(owner, {client, server, piece.tos, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())});
    });
  }
}

bool UdpRelay::admit() {
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (shared_.active.fetch_add(1, std::memory_order_relaxed) < shared_.options.maxFlows) return true;
    shared_.active.fetch_sub(1, std::memory_order_relaxed);
    if (!shedOldest()) return false;
  }
  return false;
}

void UdpRelay::beginTurn() {
  const std::uint32_t generation = shared_.udpChoices.generation();
  if (generation == choicesGeneration_) return;
  choices_ = shared_.udpChoices.get();
  choicesGeneration_ = generation;
}

UdpFlow* UdpRelay::open(const UpstreamSet::Key& key, const Endpoint& client, const Endpoint& server, std::span<const UdpPiece> pieces) {
  if (manyOrNone(server) || client.family() != server.family()) return nullptr;
  if (server.port() == shared_.options.port && AddressList{}.contains(server)) return nullptr;  // meant for the relay itself: not intercepted
  const bool refuse = choices_.refuses(server.port());
  if (!refuse) {
    const std::size_t owner = shared_.udpOwners.claim(key, surroundings_.index);
    if (owner != surroundings_.index) return handOver(owner, client, server, pieces), nullptr;
  }
  auto owned = std::make_unique<UdpFlow>();
  UdpFlow& flow = *owned;
  flow.key = key;
  flow.record.id = shared_.nextId.fetch_add(1, std::memory_order_relaxed);
  flow.record.client = client;
  flow.record.server = server;
  flow.record.udp = true;
  flow.local = fromHere(surroundings_.own, client, server);
  flow.kind = flow.ordinary = kindOf(server.port(), pieces[0].bytes);
  ++counts_.total;
  if (refuse) return brief(flow, pieces, CloseReason::kRefused), nullptr;

  const std::uint8_t depth = shared_.udpUpstreams.depth(key);
  const bool loop = depth >= kLoopDepth;
  if (loop || !admit()) {
    shared_.udpOwners.release(key);
    if (loop) shared_.warn(kLoopRefused);
    brief(flow, pieces, loop ? CloseReason::kFailed : CloseReason::kShed);
    return nullptr;
  }
  flows_.emplace(key, std::move(owned));
  ++counts_.flows;
  ask(flow);
  track_.opened(flow.record, scopeOf(flow.local, server, surroundings_.own), surroundings_.now);
  if (const int error = makeSockets(flow, depth); error != 0) {
    const CloseReason reason = refusalOf(error);
    flow.record.lost[0] += countOf(pieces);
    if (reason == CloseReason::kUnreachable) tellError(server, hostUnreachable(server.family()), {client, server, pieces[0].bytes.size(), pieces[0].bytes});
    close(flow, reason, reason == CloseReason::kShed ? ClosedBy::kGate : ClosedBy::kNone);
    return nullptr;
  }
  track_.connected(flow.record, flow.upstreamEnd, surroundings_.now);
  flow.listed = true;
  byAge_[static_cast<std::size_t>(flow.kind)].append(flow);
  return &flow;
}

// Before anything else: the program may be gone in a millisecond. Its datagram does not wait for it, only what it is answered.
void UdpRelay::ask(UdpFlow& flow) {
  const int witness = shared_.witness.load(std::memory_order_relaxed);
  if (!flow.local || witness < 0 || !sendQuestion(witness, {token(flow), flow.record.client, flow.record.server, true})) return;
  flow.awaiting = true;
  awaiting_.emplace(token(flow), &flow);
  askedBy_.emplace_back(surroundings_.now + kWitnessPatience, token(flow));
}

void UdpRelay::brief(UdpFlow& flow, std::span<const UdpPiece> pieces, CloseReason reason) {
  const FlowRecord& record = flow.record;
  track_.opened(flow.record, scopeOf(flow.local, record.server, surroundings_.own), surroundings_.now);
  if (reason == CloseReason::kRefused) {
    for (const UdpPiece& piece : pieces) {
      eachDatagram({&piece, 1, piece.segment}, [&](std::span<const std::byte> bytes) {
        sent(flow, Direction::kUp, bytes);
        tellError(record.server, portUnreachable(record.server.family()), {record.client, record.server, bytes.size(), bytes});
      });
    }
  } else {
    flow.record.lost[0] += countOf(pieces);
  }
  if (reason == CloseReason::kShed) shared_.countShed();
  track_.closed(flow.record, reason, ClosedBy::kGate, surroundings_.now);
}

int UdpRelay::makeSockets(UdpFlow& flow, std::uint8_t depth) {
  const Endpoint& client = flow.record.client;
  const Endpoint& server = flow.record.server;
  const UpstreamRequest request{client, server, flow.local, surroundings_.own.contains(server), true, shared_.options.uplinkMark};
  // Not the port of a program's socket that has gone while its flow is known: what is still said to that would be heard here.
  const auto fits = [&](const Endpoint& own) { return !restingUdpPorts().rests(own.port(), server) && !shared_.udpOwners.known(UpstreamSet::key(own, server)); };
  Upstream upstream = openUdpUpstream(request, fits);
  if (upstream.fd < 0 && exhausted(upstream.error) && shedOldest()) upstream = openUdpUpstream(request, fits);
  if (upstream.fd < 0) return upstream.error;
  flow.fd[kServer] = upstream.fd;
  flow.upstreamEnd = upstream.local;
  flow.upstream = UpstreamSet::key(upstream.local, server);
  shared_.udpUpstreams.insert(flow.upstream, static_cast<std::uint8_t>(depth + 1));
  flow.inUpstreams = true;

  int error = 0;
  Descriptor facing;
  // A server on this very machine has that address and port: a socket of ours there would take datagrams of its other clients, and what the relay itself says to it, until it is connected.
  const bool shares = request.ownServer;
  if (!shares) facing = openUdpClientSide(client, server, shared_.options.uplinkMark, error);
  if (!shares && !facing && exhausted(error) && shedOldest()) facing = openUdpClientSide(client, server, shared_.options.uplinkMark, error);
  if (!facing && exhausted(error)) return error;
  // Any other reason (a local program holds that port on all addresses), and for a server here: the listener goes on receiving, and answers leave as whole packets.
  if (facing) {
    flow.fd[kClient] = facing.release();
    flow.fresh = true;
    fresh_[indexOf(server.family())].push_back(&flow);
  }
  return watch(flow, kServer, flow.awaiting ? 0U : std::uint32_t{EPOLLIN}, EPOLL_CTL_ADD) ? 0 : ENOMEM;
}

bool UdpRelay::watch(UdpFlow& flow, Side side, std::uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = reinterpret_cast<std::uint64_t>(&flow) | kFlowBit | side;
  return ::epoll_ctl(surroundings_.epoll, operation, flow.fd[side], &event) == 0;
}

// The listener is empty, so what their own sockets hold came later.
void UdpRelay::watchFresh(std::size_t family) {
  std::vector<UdpFlow*> fresh;
  fresh.swap(fresh_[family]);
  for (UdpFlow* flow : fresh) {
    flow->fresh = false;
    if (!watch(*flow, kClient, EPOLLIN, EPOLL_CTL_ADD)) close(*flow, CloseReason::kShed, ClosedBy::kGate);
  }
}

void UdpRelay::onEvent(std::uint64_t tag, std::uint32_t events) {
  UdpFlow& flow = *reinterpret_cast<UdpFlow*>(tag & ~std::uint64_t{63});
  const auto side = static_cast<Side>(tag & 1U);
  if (flow.dead) return;
  if ((events & EPOLLERR) != 0) takeErrors(flow, side);
  if ((events & EPOLLIN) != 0 && !(side == kServer && flow.awaiting)) readable(flow, side);
}

void UdpRelay::readable(UdpFlow& flow, Side side) {
  const int count = inbox_.receive(flow.fd[side]);
  if (count < 0 && errno != EAGAIN) return takeErrors(flow, side);
  const Endpoint& peer = side == kClient ? flow.record.client : flow.record.server;
  std::array<UdpPiece, UdpInbox::kMost> pieces;
  std::size_t size = 0;
  bool strangers = false;
  for (std::size_t at = 0; at < static_cast<std::size_t>(std::max(0, count)); ++at) {
    if (!(inbox_.from(at) == peer)) {
      strangers = true;
      continue;
    }
    const UdpControl control = inbox_.control(at);
    pieces[size++] = {inbox_.bytes(at), control.segment, control.tos};
  }
  if (size > 0) relay(flow, side == kClient ? Direction::kUp : Direction::kDown, {pieces.data(), size});
  if (!strangers || side == kServer) return;
  // Between bind() and connect() a socket takes datagrams of any client: they belong to other flows.
  const Endpoint server = flow.record.server;
  for (std::size_t at = 0; at < static_cast<std::size_t>(count); ++at) {
    if (inbox_.from(at) == flow.record.client) continue;
    const UdpControl control = inbox_.control(at);
    const UdpPiece piece{inbox_.bytes(at), control.segment, control.tos};
    arrive(inbox_.from(at), server, {&piece, 1});
  }
}

}  // namespace sluice
