#pragma once
// The ledger of a job (law 2): the records of committed steps, held against the index of the data set. It knows nothing of the sampler:
// whatever fed the steps, a sample that was used twice in an epoch, or not at all without a reason, is found. docs/ledger.md.
//
// Holds one epoch at a time: 12 bytes a sample. Not thread-safe.

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "dataset/index.h"
#include "proto/progress.pb.h"

namespace lockstep {

// What the job says that matters for exactly-once.
struct LedgerTerms {
  uint64_t batch = 0;
  bool drop_last = false;  // the last partial batch of an epoch is dropped
  uint32_t virtual_replicas = 1;
  uint32_t whole_epochs = 0;  // passes that have ended
};

struct EpochAccount {
  uint32_t epoch = 0;
  uint64_t steps = 0;
  uint64_t used = 0;     // in exactly one committed step
  uint64_t bad = 0;      // left out: could not be decoded
  uint64_t dropped = 0;  // with the last partial batch, as the job says
  uint64_t unused = 0;   // of an epoch that has not ended
  bool whole = false;
};

class Ledger {
 public:
  // Of one virtual replica's share of a step, from the files; empty: it is what was recorded.
  using DigestCheck = std::function<std::string(const v1::LeafUse& use)>;

  // `check` may be null. The index must outlive this object.
  Ledger(const dataset::Index& index, LedgerTerms terms, DigestCheck check);

  // In the order of the records. Of one epoch, or of all.
  void Add(const v1::StepRecord& step);
  void Add(const v1::EpochRecord& epoch);
  // Once, after the last.
  void Finish();

  const std::vector<EpochAccount>& epochs() const { return epochs_; }
  // Everything that breaks the law, a line each: the first kMostViolations, and how many there are.
  static constexpr size_t kMostViolations = 200;
  const std::vector<std::string>& violations() const { return violations_; }
  uint64_t violation_count() const { return violation_count_; }

 private:
  struct Use {
    uint64_t step = 0;  // 0: none
    uint32_t leaf = 0;
  };

  void Violation(std::string text);
  void Begin(uint32_t epoch);
  void Take(const v1::StepRecord& step, uint32_t leaf, const v1::LeafUse& use);
  void Close();
  // Why a sample of a whole epoch was not used: by an epoch's record; empty: no reason is known.
  std::string WhyNot(int64_t sample) const;

  const dataset::Index& index_;
  const LedgerTerms terms_;
  const DigestCheck check_;
  uint64_t last_step_ = 0;
  std::vector<EpochAccount> epochs_;
  std::vector<Use> uses_;            // of this epoch, by sample
  std::set<uint64_t> bad_;           // named by a step
  std::set<std::string> bad_lines_;  // "path: reason", of the epoch's record
  std::vector<std::string> violations_;
  uint64_t violation_count_ = 0;
};

}  // namespace lockstep
