#include "allreduce/group.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace lockstep::allreduce {
namespace {

// How long to spin before sleeping: longer than a peer that runs on another core needs to answer. Halved whenever that was in vain (the
// peer is computing, or waits for this very core), doubled when it was not.
constexpr absl::Duration kLongestSpin = absl::Microseconds(100);
constexpr absl::Duration kShortestSpin = absl::Microseconds(5);

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

// When each peer was last heard of while we wait.
namespace {

constexpr char kSilentPayload[] = "lockstep.dev/silent_ranks";

}  // namespace

absl::Status WithSilentRanks(absl::Status status, const std::vector<int>& ranks) {
  if (!ranks.empty()) status.SetPayload(kSilentPayload, absl::Cord(absl::StrJoin(ranks, ",")));
  return status;
}

std::vector<int> SilentRanks(const absl::Status& status) {
  std::vector<int> ranks;
  const auto payload = status.GetPayload(kSilentPayload);
  if (!payload) return ranks;
  for (const absl::string_view text : absl::StrSplit(std::string(*payload), ',')) {
    int rank = 0;
    if (absl::SimpleAtoi(text, &rank)) ranks.push_back(rank);
  }
  return ranks;
}

struct Group::Watch {
  std::vector<uint64_t> signs;
  std::vector<absl::Time> heard;
};

absl::StatusOr<bool> Group::Wait(absl::FunctionRef<bool()> done, const Due& due, const std::atomic<bool>* yield) {
  if (done()) return true;
  const bool may_spin = yield == nullptr;
  const absl::Time spin_until = absl::Now() + (may_spin ? spin_ : absl::ZeroDuration());
  Watch watch;
  for (bool slept = false;; slept = true) {
    do {
      for (RemotePeer& peer : remote_) RETURN_IF_ERROR(peer.Pump());
      if (done()) {
        if (may_spin && !slept) spin_ = std::min(2 * spin_, kLongestSpin);
        return true;
      }
      if (yield != nullptr && yield->load()) return false;
      Relax();
    } while (absl::Now() < spin_until);
    if (may_spin && !slept) spin_ = std::max(spin_ / 2, kShortestSpin);
    RETURN_IF_ERROR(CheckPeers(done, due));
    RETURN_IF_ERROR(CheckSilence(watch, due));
    if (absl::Now() >= next_beat_) RETURN_IF_ERROR(GiveSignOfLife());
    RETURN_IF_ERROR(Park(done, beat()));
  }
}

absl::Status Group::GiveSignOfLife() {
  next_beat_ = absl::Now() + beat();
  memory_.control().beats.fetch_add(1);
  for (RemotePeer& peer : remote_) {
    // What is on its way already is a sign.
    if (peer.all_sent()) peer.Send(FrameType::kAlive, 0, {});
    RETURN_IF_ERROR(peer.Pump());
  }
  return absl::OkStatus();
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
  size_t next = files.size();
  for (auto peer = remote_.rbegin(); peer != remote_.rend(); ++peer) {
    if (!peer->closed()) peer->Notice(files[--next].revents);
  }
  return absl::OkStatus();
}

// What a peer did before it closed its connection counts, so `done` is asked again. Who left without a word is named before
// those who left because of that.
absl::Status Group::CheckPeers(absl::FunctionRef<bool()> done, const Due& due) {
  std::string died, gave_up;
  std::vector<int> gone;
  const auto check = [&](const auto& peer) {
    if (!peer.closed() || !Owes(peer, due)) return;
    const std::string name = absl::StrCat("rank ", peer.rank());
    if (peer.last_word().empty()) gone.push_back(peer.rank());
    if (peer.last_word().empty() && died.empty()) died = absl::StrCat(name, " is gone: its connection closed");
    if (!peer.last_word().empty() && gave_up.empty()) gave_up = absl::StrCat(name, " gave up: ", peer.last_word());
  };
  for (const LocalPeer& peer : local_) check(peer);
  for (const RemotePeer& peer : remote_) check(peer);
  if ((died.empty() && gave_up.empty()) || done()) return absl::OkStatus();
  return WithSilentRanks(absl::AbortedError(died.empty() ? gave_up : died), gone);
}

std::vector<uint64_t> Group::SignsOfLife() const {
  std::vector<uint64_t> signs;
  for (const LocalPeer& peer : local_) signs.push_back(peer.control().beats.load());
  for (const RemotePeer& peer : remote_) signs.push_back(peer.bytes_received());
  return signs;
}

absl::Status Group::CheckSilence(Watch& watch, const Due& due) const {
  const absl::Time now = absl::Now();
  const std::vector<uint64_t> signs = SignsOfLife();
  if (watch.signs.empty()) watch = {signs, std::vector<absl::Time>(signs.size(), now)};
  std::vector<int> silent;
  size_t index = 0;
  const auto check = [&](const auto& peer, bool waits_for_us) {
    absl::Time& heard = watch.heard[index];
    if (std::exchange(watch.signs[index], signs[index]) != signs[index] || waits_for_us) heard = now;
    if (Owes(peer, due) && now - heard > timeouts_.silence) silent.push_back(peer.rank());
    ++index;
  };
  for (const LocalPeer& peer : local_) check(peer, false);
  for (const RemotePeer& peer : remote_) check(peer, peer.waits_for_place());
  if (silent.empty()) return absl::OkStatus();
  std::sort(silent.begin(), silent.end());
  return WithSilentRanks(absl::AbortedError(absl::StrCat("rank ", absl::StrJoin(silent, ", "), " gave no sign of life for ",
                                                         absl::FormatDuration(timeouts_.silence))),
                         silent);
}

void Group::GiveUp(const std::string& why) {
  for (LocalPeer& peer : local_) peer.GiveUp(why);
  for (RemotePeer& peer : remote_) peer.GiveUp(why);
}

}  // namespace lockstep::allreduce
