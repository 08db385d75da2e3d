#pragma once
// A rank's connections to all its peers, and the only place where it waits for them: it spins for a while, then sleeps until a
// peer says that something changed, or goes away, or time runs out.
//
// Thread-safety: Announce* and Nudge from any thread; the rest belongs to whoever drives the collective, one thread at a time.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "allreduce/listener.h"
#include "allreduce/local_peer.h"
#include "allreduce/membership.h"
#include "allreduce/rank_memory.h"
#include "allreduce/remote_peer.h"

namespace lockstep::allreduce {

// The ranks that could not be heard any more, of an error that came of that; none of any other.
std::vector<int> SilentRanks(const absl::Status& status);
absl::Status WithSilentRanks(absl::Status status, const std::vector<int>& ranks);

struct Timeouts {
  // For all peers to connect.
  absl::Duration connect = absl::Seconds(60);
  // Of a peer that others wait for, and that gives no sign of life (it is stopped, or its host is away). One that computes does.
  absl::Duration silence = absl::Seconds(60);
  // While peers connect: true once they may be waited for in vain, because a newer generation took the place of theirs.
  std::function<bool()> abandoned;
};

class Group {
 public:
  // As OrderedAllReduce::Connect. `layout` must outlive the group.
  static absl::StatusOr<std::unique_ptr<Group>> Connect(Membership membership, const Layout& layout, const std::string& token,
                                                        const Timeouts& timeouts, std::unique_ptr<Listener> listener,
                                                        const std::vector<Endpoint>& endpoints);

  const Membership& membership() const { return membership_; }
  const RankMemory& memory() const { return memory_; }
  // By rank among their kind.
  std::deque<LocalPeer>& local() { return local_; }
  std::deque<RemotePeer>& remote() { return remote_; }

  // What peers must have done for the exchange under way to be complete: a peer that has may close its connection.
  struct Due {
    uint64_t exchanges = 0;
    uint64_t buckets = 0;
  };

  void AnnounceReady(uint64_t buckets);
  void AnnounceFinished(uint64_t exchanges);
  // Leaves the verdict where local peers read it.
  void AnnounceVerdict(uint64_t exchanges, std::string_view verdict, bool with_gradients, uint64_t ready_buckets);

  // Waits until `done`. With `yield`: false if that became true first. Aborted names a peer that died, gave up or was silent for too
  // long; DataLoss, FailedPrecondition: see RemotePeer::Pump.
  absl::StatusOr<bool> Wait(absl::FunctionRef<bool()> done, const Due& due, const std::atomic<bool>* yield);
  // Makes Wait look at `yield`.
  void Nudge();
  // How often peers are to hear from us. Wait sees to it; who does not wait calls GiveSignOfLife.
  absl::Duration beat() const { return std::min(timeouts_.silence / 4, absl::Seconds(5)); }
  absl::Status GiveSignOfLife();

  // Tells the peers why, and closes all connections.
  void GiveUp(const std::string& why);

 private:
  Group(Membership membership, const Layout& layout, const Timeouts& timeouts, RankMemory memory, FileDescriptor nudge);
  absl::Status ConnectTo(int rank, const std::string& token, const Endpoint& endpoint, bool local, absl::Time deadline);
  absl::Status AcceptFrom(const Listener& listener, const std::string& token, std::vector<bool> awaited, const std::vector<bool>& is_local,
                          absl::Time deadline);
  absl::Status AddPeer(int rank, FileDescriptor socket, bool local, bool send_first, absl::Time deadline);
  bool Owes(const LocalPeer& peer, const Due& due) const { return peer.control().finished.load() < due.exchanges; }
  bool Owes(const RemotePeer& peer, const Due& due) const {
    return peer.verdicts_received() < due.exchanges || peer.results_received() < due.buckets;
  }
  absl::Status CheckPeers(absl::FunctionRef<bool()> done, const Due& due);
  absl::Status Park(absl::FunctionRef<bool()> done, absl::Duration at_most);
  void WakePeers();
  // What changes while a peer is alive, of all peers.
  std::vector<uint64_t> SignsOfLife() const;
  struct Watch;
  absl::Status CheckSilence(Watch& watch, const Due& due) const;

  const Membership membership_;
  const Layout& layout_;
  const Timeouts timeouts_;
  const RankMemory memory_;
  const FileDescriptor nudge_;  // eventfd
  absl::Time next_beat_ = absl::Now() + beat();
  absl::Duration spin_ = absl::Microseconds(5);  // before sleeping; adapts
  std::deque<LocalPeer> local_;
  std::deque<RemotePeer> remote_;
};

}  // namespace lockstep::allreduce
