#include "witness/socket_diag.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace sluice {

std::optional<SocketFacts> SocketDiag::ask(const Endpoint& client, const Endpoint& server, bool udp) {
  if (socket_ < 0 && !open()) return std::nullopt;
  const std::string request = encodeDiagRequest(client, server, ++sequence_, udp);
  if (send(socket_, request.data(), request.size(), 0) != static_cast<ssize_t>(request.size())) return reopen();
  alignas(nlmsghdr) std::byte reply[4096];
  for (int tries = 0; tries < 4; ++tries) {  // an old reply may still lie there
    const ssize_t length = recv(socket_, reply, sizeof reply, 0);
    if (length < 0 && errno == EINTR) continue;
    if (length < static_cast<ssize_t>(sizeof(nlmsghdr))) return reopen();
    if (reinterpret_cast<const nlmsghdr*>(reply)->nlmsg_seq != sequence_) continue;
    return decodeDiagReply({reply, static_cast<std::size_t>(length)}, client, server, sequence_, udp);
  }
  return reopen();
}

bool SocketDiag::listens(const Endpoint& where) {
  Endpoint nobody = where;
  nobody.setPort(0);
  return ask(where, nobody, false).has_value();
}

bool SocketDiag::open() {
  socket_ = ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (socket_ < 0) return false;
  // The kernel answers inside send(); a time-out here is only against a surprise. Not SO_RCVTIMEO, which the filter of the
  // witness forbids: the reply is simply there.
  fcntl(socket_, F_SETFL, O_NONBLOCK);
  return true;
}

std::optional<SocketFacts> SocketDiag::reopen() {
  ::close(socket_);
  socket_ = -1;
  return std::nullopt;
}

}  // namespace sluice
