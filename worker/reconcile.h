#pragma once
// What a worker has to do so that what runs becomes what the coordinator wants. A pure function of (wanted, actual, now): hours
// pass in tests by editing the input. Laws:
//
//   - a trainer is started once, however often it is ordered and however it ended;
//   - one that is cancelled before it was started is started too, and then told: its peers may be waiting for it;
//   - while one of its job that is not wanted any more still runs here, a trainer is not started (a stopped one may wake);
//   - one that is not wanted any more may end by itself for a moment, then gets SIGTERM, then SIGKILL; one that a newer
//     one of its job takes the place of gets SIGKILL at once, because nothing that it does can count.
//
// Thread-safe: no state.

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "proto/cluster.pb.h"

namespace lockstep {

struct TrainerKey {
  std::string job_id;
  uint64_t generation = 0;
  v1::Role role = v1::ROLE_UNSPECIFIED;
  uint32_t rank = 0;

  auto operator<=>(const TrainerKey&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 takes the default for a 0
  bool operator==(const TrainerKey&) const = default;
};

TrainerKey KeyOf(const v1::TrainerOrder& order);
// "job=J generation=1 rank=0 role=TRAIN", for logs.
std::string ToString(const TrainerKey& key);

// What a running trainer is told, again whenever it changes.
struct TrainerWord {
  bool cancel = false;
  bool pause = false;
  uint64_t newest_generation = 0;

  bool operator==(const TrainerWord&) const = default;
};

struct WantedTrainer {
  TrainerKey key;
  TrainerWord word;
};

// A trainer that was started here, until its end is known to the coordinator and it is not wanted any more.
struct ActualTrainer {
  TrainerKey key;
  bool ended = false;
  // The coordinator knows that it ended.
  bool acknowledged = false;
  std::optional<absl::Time> unwanted_since;
  TrainerWord told;
  bool terminated = false;
  bool killed = false;
};

struct ReconcileOptions {
  // From not being wanted to SIGTERM, and to SIGKILL.
  absl::Duration patience = absl::Seconds(1);
  absl::Duration grace = absl::Seconds(5);
};

struct Reconciliation {
  std::vector<TrainerKey> start;
  std::vector<TrainerKey> tell;
  std::vector<TrainerKey> terminate;
  std::vector<TrainerKey> kill;
  std::vector<TrainerKey> forget;
  // When to look again, if nothing happens before.
  absl::Time next = absl::InfiniteFuture();
};

Reconciliation Reconcile(absl::Span<const WantedTrainer> wanted, absl::Span<const ActualTrainer> actual, absl::Time now,
                         const ReconcileOptions& options);

}  // namespace lockstep
