#include "ledger/ledger.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lockstep {

Ledger::Ledger(const dataset::Index& index, LedgerTerms terms, DigestCheck check)
    : index_(index), terms_(terms), check_(std::move(check)) {}

void Ledger::Violation(std::string text) {
  if (violations_.size() < kMostViolations) violations_.push_back(std::move(text));
  ++violation_count_;
}

void Ledger::Begin(uint32_t epoch) {
  Close();
  epochs_.push_back({.epoch = epoch, .whole = epoch <= terms_.whole_epochs});
  uses_.assign(static_cast<size_t>(index_.size()), Use());
  bad_.clear();
  bad_lines_.clear();
}

void Ledger::Add(const v1::StepRecord& step) {
  if (epochs_.empty() || step.epoch() != epochs_.back().epoch) {
    if (!epochs_.empty() && step.epoch() != epochs_.back().epoch + 1) {
      Violation(absl::StrCat("step ", step.step(), " is of epoch ", step.epoch(), ", the one before of epoch ", epochs_.back().epoch));
    }
    Begin(step.epoch());
  }
  if (last_step_ > 0 && step.step() != last_step_ + 1) Violation(absl::StrCat("step ", step.step(), " comes after step ", last_step_));
  last_step_ = step.step();
  ++epochs_.back().steps;
  if (step.leaves_size() != static_cast<int>(terms_.virtual_replicas)) {
    return Violation(absl::StrCat("step ", step.step(), " names ", step.leaves_size(), " virtual replicas of ", terms_.virtual_replicas));
  }
  std::vector<uint64_t> digests;
  uint64_t good = 0;
  for (int leaf = 0; leaf < step.leaves_size(); ++leaf) {
    Take(step, static_cast<uint32_t>(leaf), step.leaves(leaf));
    digests.push_back(step.leaves(leaf).digest());
    good += static_cast<uint64_t>(step.leaves(leaf).samples_size() - step.leaves(leaf).bad_size());
  }
  if (good != step.samples()) {
    Violation(absl::StrCat("step ", step.step(), " used ", step.samples(), " samples, and its virtual replicas name ", good));
  }
  if (XXH3_64bits(digests.data(), digests.size() * sizeof(uint64_t)) != step.sample_digest()) {
    Violation(absl::StrCat("step ", step.step(), ": the digest of the step is not that of its virtual replicas"));
  }
}

void Ledger::Take(const v1::StepRecord& step, uint32_t leaf, const v1::LeafUse& use) {
  const auto where = [&] { return absl::StrCat("step ", step.step(), ", virtual replica ", leaf); };
  for (const uint64_t sample : use.samples()) {
    if (sample >= uses_.size()) {
      Violation(absl::StrCat(where(), ": there is no sample ", sample, "; the data set has ", uses_.size()));
      continue;
    }
    const bool bad = std::find(use.bad().begin(), use.bad().end(), sample) != use.bad().end();
    if (bad) bad_.insert(sample);
    Use& before = uses_[sample];
    if (before.step > 0) {
      Violation(absl::StrCat(index_.PathOf(static_cast<int64_t>(sample)), " (sample ", sample, ") is used twice in epoch ", step.epoch(),
                             ": in step ", before.step, " by virtual replica ", before.leaf, ", and in ", where()));
    } else {
      before = {step.step(), leaf};
      ++(bad ? epochs_.back().bad : epochs_.back().used);
    }
  }
  if (!check_) return;
  if (const std::string wrong = check_(use); !wrong.empty()) Violation(absl::StrCat(where(), ": ", wrong));
}

void Ledger::Add(const v1::EpochRecord& epoch) {
  if (epochs_.empty() || epochs_.back().epoch != epoch.epoch()) return;
  bad_lines_.insert(epoch.bad_samples().begin(), epoch.bad_samples().end());
}

std::string Ledger::WhyNot(int64_t sample) const {
  const std::string path = absl::StrCat(index_.PathOf(sample), ": ");
  const auto line = bad_lines_.lower_bound(path);
  return line != bad_lines_.end() && line->starts_with(path) ? line->substr(path.size()) : "";
}

void Ledger::Close() {
  if (epochs_.empty()) return;
  EpochAccount& account = epochs_.back();
  std::vector<int64_t> missing;
  for (size_t sample = 0; sample < uses_.size(); ++sample) {
    if (uses_[sample].step == 0) missing.push_back(static_cast<int64_t>(sample));
  }
  if (!account.whole) {
    account.unused = missing.size();
    return;
  }
  // Of a step none of whose samples could be decoded there is no record.
  std::erase_if(missing, [&](int64_t sample) {
    if (WhyNot(sample).empty()) return false;
    ++account.bad;
    return true;
  });
  const uint64_t partial = terms_.drop_last && terms_.batch > 0 ? uses_.size() % terms_.batch : 0;
  if (missing.size() == partial) {
    account.dropped = partial;
    return;
  }
  for (const int64_t sample : missing) {
    Violation(absl::StrCat(index_.PathOf(sample), " (sample ", sample, ") is not used in epoch ", account.epoch,
                           partial > 0
                               ? absl::StrCat(": ", missing.size(), " are not, and the last batch that may be dropped has ", partial)
                               : ", and nothing says why"));
  }
}

void Ledger::Finish() { Close(); }

}  // namespace lockstep
