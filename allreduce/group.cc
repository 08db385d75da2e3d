#include "allreduce/group.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace lockstep::allreduce {
namespace {

// How long to spin before sleeping: longer than a peer that runs on another core needs to answer. Halved whenever that was in vain (the
// peer is computing, or waits for this very core), doubled when it was not.
constexpr absl::Duration kLongestSpin = absl::Microseconds(100);
constexpr absl::Duration kShortestSpin = absl::Microseconds(5);
constexpr absl::Duration kLongestSleep = absl::Seconds(1);

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

void Group::WakePeers() {
  for (LocalPeer& peer : local_) peer.Wake();
}

void Group::AnnounceReady(uint64_t buckets) {
  memory_.control().ready.store(buckets);
  WakePeers();
}

void Group::AnnounceFinished(uint64_t exchanges) {
  memory_.control().finished.store(exchanges);
  WakePeers();
}

void Group::AnnounceVerdict(uint64_t exchanges, std::string_view verdict, bool with_gradients, uint64_t ready_buckets) {
  ControlBlock& control = memory_.control();
  std::memcpy(control.verdict, verdict.data(), verdict.size());
  control.verdict_bytes = static_cast<uint32_t>(verdict.size());
  control.with_gradients = with_gradients ? 1 : 0;
  control.posted.store(exchanges);
  control.ready.store(ready_buckets);
  WakePeers();
}

void Group::Nudge() { eventfd_write(nudge_.get(), 1); }

absl::StatusOr<bool> Group::Wait(absl::FunctionRef<bool()> done, const Due& due, const std::atomic<bool>* yield) {
  if (done()) return true;
  absl::Time heard = absl::Now();
  const absl::Time spin_until = yield == nullptr ? heard + spin_ : heard;
  bool slept = false;
  uint64_t moved = BytesMoved();
  for (;;) {
    for (RemotePeer& peer : remote_) RETURN_IF_ERROR(peer.Pump());
    if (done()) {
      if (yield == nullptr && !slept) spin_ = std::min(2 * spin_, kLongestSpin);
      return true;
    }
    if (yield != nullptr && yield->load()) return false;
    const absl::Time now = absl::Now();
    if (now < spin_until) {
      Relax();
      continue;
    }
    if (yield == nullptr && !slept) spin_ = std::max(spin_ / 2, kShortestSpin);
    slept = true;
    RETURN_IF_ERROR(CheckPeers(done, due));
    if (moved != BytesMoved()) heard = now;
    moved = BytesMoved();
    const absl::Duration left = heard + timeouts_.silence - now;
    if (yield == nullptr && left <= absl::ZeroDuration()) return SilentPeers(due);
    RETURN_IF_ERROR(Park(done, yield == nullptr ? std::min(left, kLongestSleep) : kLongestSleep));
  }
}

// The order matters: we say that we sleep, then look once more, and peers change their words before they look whether we sleep.
absl::Status Group::Park(absl::FunctionRef<bool()> done, absl::Duration at_most) {
  std::vector<pollfd> files = {{nudge_.get(), POLLIN, 0}};
  for (const LocalPeer& peer : local_) {
    if (!peer.closed()) files.push_back({peer.fd(), POLLIN, 0});
  }
  for (const RemotePeer& peer : remote_) {
    if (!peer.closed()) files.push_back({peer.fd(), peer.events(), 0});
  }
  memory_.control().parked.store(1);
  if (!done()) {
    const int ready = poll(files.data(), files.size(), static_cast<int>(absl::ToInt64Milliseconds(at_most)) + 1);
    if (ready < 0 && errno != EINTR) return SocketError(errno, "poll");
  }
  memory_.control().parked.store(0);
  if (files.front().revents != 0) {
    eventfd_t nudges = 0;
    eventfd_read(nudge_.get(), &nudges);
  }
  for (LocalPeer& peer : local_) peer.Pump();
  return absl::OkStatus();
}

// What a peer did before it closed its connection counts, so `done` is asked again. Who left without a word is named before
// those who left because of that.
absl::Status Group::CheckPeers(absl::FunctionRef<bool()> done, const Due& due) {
  std::string died, gave_up;
  const auto check = [&](const auto& peer) {
    if (!peer.closed() || !Owes(peer, due)) return;
    const std::string name = absl::StrCat("rank ", peer.rank());
    if (peer.last_word().empty() && died.empty()) died = absl::StrCat(name, " is gone: its connection closed");
    if (!peer.last_word().empty() && gave_up.empty()) gave_up = absl::StrCat(name, " gave up: ", peer.last_word());
  };
  for (const LocalPeer& peer : local_) check(peer);
  for (const RemotePeer& peer : remote_) check(peer);
  if ((died.empty() && gave_up.empty()) || done()) return absl::OkStatus();
  return absl::AbortedError(died.empty() ? gave_up : died);
}

// Those that have not even come to the end of their step, if there are such: the others are waiting too.
absl::Status Group::SilentPeers(const Due& due) const {
  std::vector<int> computing, owing;
  for (const LocalPeer& peer : local_) {
    if (peer.control().posted.load() < due.exchanges) computing.push_back(peer.rank());
    if (Owes(peer, due)) owing.push_back(peer.rank());
  }
  for (const RemotePeer& peer : remote_) {
    if (peer.verdicts_received() < due.exchanges) computing.push_back(peer.rank());
    if (Owes(peer, due) || !peer.all_sent()) owing.push_back(peer.rank());
  }
  std::vector<int>& ranks = computing.empty() ? owing : computing;
  std::sort(ranks.begin(), ranks.end());
  return absl::AbortedError(
      absl::StrCat("rank ", absl::StrJoin(ranks, ", "), " did nothing for ", absl::FormatDuration(timeouts_.silence)));
}

uint64_t Group::BytesMoved() const {
  uint64_t bytes = 0;
  for (const RemotePeer& peer : remote_) bytes += peer.bytes_sent() + peer.bytes_received();
  return bytes;
}

void Group::GiveUp(const std::string& why) {
  for (LocalPeer& peer : local_) peer.GiveUp(why);
  for (RemotePeer& peer : remote_) peer.GiveUp(why);
}

}  // namespace lockstep::allreduce
