#include "allreduce/membership.h"

#include <xxhash.h>

#include "absl/strings/str_cat.h"

namespace lockstep::allreduce {

absl::Status Validate(const Membership& membership) {
  if (membership.rank < 0 || membership.rank >= membership.ranks()) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", membership.rank, " of ", membership.ranks()));
  }
  int next = 0;
  for (int rank = 0; rank < membership.ranks(); ++rank) {
    const LeafRange& run = membership.runs[static_cast<size_t>(rank)];
    if (run.begin != next || run.size() < 1) {
      return absl::InvalidArgumentError(absl::StrCat("rank ", rank, " has leaves ", run.begin, " to ", run.end - 1, ", but leaf ", next,
                                                     " is next: every rank needs a run, and runs follow each other"));
    }
    next = run.end;
  }
  if (next == membership.leaves) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the ranks' runs hold ", next, " leaves, not ", membership.leaves));
}

uint64_t Fingerprint(const Membership& membership, const Layout& layout) {
  std::vector<uint64_t> words = {static_cast<uint64_t>(membership.leaves), static_cast<uint64_t>(layout.element), layout.elements,
                                 layout.segments.size(), layout.buckets.size()};
  for (const LeafRange& run : membership.runs) words.push_back(static_cast<uint64_t>(run.end));
  for (const auto* list : {&layout.segments, &layout.buckets}) {
    for (const Segment& segment : *list) words.insert(words.end(), {segment.offset, segment.count});
  }
  return XXH3_64bits(words.data(), words.size() * sizeof(uint64_t));
}

}  // namespace lockstep::allreduce
