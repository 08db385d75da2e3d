// How a group comes to be: each rank connects to those below it, and accepts those above.
#include <sys/eventfd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "allreduce/group.h"
#include "allreduce/handshake.h"
#include "base/status_macros.h"

namespace lockstep::allreduce {
namespace {

// For a handshake that somebody else began, who may be no peer at all.
constexpr absl::Duration kStrangerTimeout = absl::Seconds(10);
// How often whoever waits for peers looks whether it does so in vain.
constexpr absl::Duration kLookEvery = absl::Milliseconds(50);

Identity IdentityOf(const Membership& membership, const Layout& layout) {
  return {membership.generation, Fingerprint(membership, layout), membership.rank, membership.ranks()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Group>> Group::Connect(Membership membership, const Layout& layout, const std::string& token,
                                                      const Timeouts& timeouts, std::unique_ptr<Listener> listener,
                                                      const std::vector<Endpoint>& endpoints) {
  RETURN_IF_ERROR(Validate(membership));
  const int ranks = membership.ranks();
  const int me = membership.rank;
  if (ranks > 1 && (listener == nullptr || endpoints.size() != static_cast<size_t>(ranks))) {
    return absl::InvalidArgumentError(absl::StrCat(ranks, " ranks need a listener and an endpoint each; there are ", endpoints.size()));
  }
  std::vector<bool> local(static_cast<size_t>(ranks), false), awaited(static_cast<size_t>(ranks), false);
  bool any_local = false;
  for (size_t rank = 0; rank < endpoints.size(); ++rank) {
    local[rank] = endpoints[rank].host_id == endpoints[static_cast<size_t>(me)].host_id;
    awaited[rank] = static_cast<int>(rank) > me;
    any_local |= local[rank] && static_cast<int>(rank) != me;
  }
  ASSIGN_OR_RETURN(RankMemory memory, RankMemory::Create(layout, membership.SubtreesOf(me).size(), any_local));
  FileDescriptor nudge(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!nudge.valid()) return SocketError(errno, "eventfd");
  std::unique_ptr<Group> group(new Group(std::move(membership), layout, timeouts, std::move(memory), std::move(nudge)));
  const absl::Time deadline = absl::Now() + timeouts.connect;
  for (int rank = 0; rank < me; ++rank) {
    const auto index = static_cast<size_t>(rank);
    const absl::Status connected = group->ConnectTo(rank, token, endpoints[index], local[index], deadline);
    if (connected.ok()) continue;
    const bool silent = absl::IsDeadlineExceeded(connected) || absl::IsUnavailable(connected);
    return WithSilentRanks(Annotate(connected, absl::StrCat("connecting to rank ", rank)),
                           silent ? std::vector<int>{rank} : std::vector<int>{});
  }
  if (me + 1 < ranks) RETURN_IF_ERROR(group->AcceptFrom(*listener, token, std::move(awaited), local, deadline));
  return group;
}

Group::Group(Membership membership, const Layout& layout, const Timeouts& timeouts, RankMemory memory, FileDescriptor nudge)
    : membership_(std::move(membership)), layout_(layout), timeouts_(timeouts), memory_(std::move(memory)), nudge_(std::move(nudge)) {}

absl::Status Group::ConnectTo(int rank, const std::string& token, const Endpoint& endpoint, bool local, absl::Time deadline) {
  absl::StatusOr<FileDescriptor> socket = local ? ConnectLocal(endpoint.local_socket, deadline) : ConnectTcp(endpoint.address, deadline);
  RETURN_IF_ERROR(socket.status());
  RETURN_IF_ERROR(Introduce(*socket, IdentityOf(membership_, layout_), rank, token, deadline));
  return AddPeer(rank, *std::move(socket), local, /*send_first=*/true, deadline);
}

// Whoever is refused may connect again, and does not keep others out.
absl::Status Group::AcceptFrom(const Listener& listener, const std::string& token, std::vector<bool> awaited,
                               const std::vector<bool>& is_local, absl::Time deadline) {
  std::string last_refusal;
  for (int missing = membership_.ranks() - 1 - membership_.rank; missing > 0;) {
    absl::StatusOr<Accepted> accepted = Accept(listener.tcp(), listener.local(), std::min(deadline, absl::Now() + kLookEvery));
    if (absl::IsDeadlineExceeded(accepted.status()) && timeouts_.abandoned && timeouts_.abandoned()) {
      return absl::AbortedError("a newer generation took the place of this one");
    }
    if (absl::IsDeadlineExceeded(accepted.status()) && absl::Now() < deadline) continue;
    if (absl::IsDeadlineExceeded(accepted.status())) {
      std::vector<int> ranks;
      for (size_t rank = 0; rank < awaited.size(); ++rank) {
        if (awaited[rank]) ranks.push_back(static_cast<int>(rank));
      }
      return WithSilentRanks(absl::DeadlineExceededError(absl::StrCat("did not connect in ", absl::FormatDuration(timeouts_.connect),
                                                                      ": rank ", absl::StrJoin(ranks, ", "),
                                                                      last_refusal.empty() ? "" : "; last refused: ", last_refusal)),
                             ranks);
    }
    RETURN_IF_ERROR(accepted.status());
    const auto is_awaited = [&](int rank) {
      return rank >= 0 && rank < membership_.ranks() && awaited[static_cast<size_t>(rank)] &&
             is_local[static_cast<size_t>(rank)] == accepted->local;
    };
    const absl::StatusOr<int> rank =
        Welcome(accepted->socket, IdentityOf(membership_, layout_), token, is_awaited, std::min(deadline, absl::Now() + kStrangerTimeout));
    if (!rank.ok()) {
      last_refusal = std::string(rank.status().message());
      continue;
    }
    RETURN_IF_ERROR(Annotate(AddPeer(*rank, std::move(accepted->socket), accepted->local, /*send_first=*/false, deadline),
                             absl::StrCat("rank ", *rank)));
    awaited[static_cast<size_t>(*rank)] = false;
    --missing;
  }
  return absl::OkStatus();
}

absl::Status Group::AddPeer(int rank, FileDescriptor socket, bool local, bool send_first, absl::Time deadline) {
  if (!local) {
    remote_.emplace_back(membership_, layout_, rank, memory_.vector(0), std::move(socket));
    return absl::OkStatus();
  }
  if (send_first) RETURN_IF_ERROR(SendDescriptor(socket, memory_.file(), deadline));
  ASSIGN_OR_RETURN(const FileDescriptor file, ReceiveDescriptor(socket, deadline));
  if (!send_first) RETURN_IF_ERROR(SendDescriptor(socket, memory_.file(), deadline));
  const size_t subtrees = membership_.SubtreesOf(rank).size();
  ASSIGN_OR_RETURN(RankMemory memory, RankMemory::Map(file, layout_, subtrees));
  local_.emplace_back(rank, subtrees, std::move(socket), std::move(memory));
  return absl::OkStatus();
}

}  // namespace lockstep::allreduce
