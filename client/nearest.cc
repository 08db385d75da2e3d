#include "client/nearest.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/edit_distance.h"

namespace lockstep {

std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string* best = nullptr;
  size_t best_distance = 0;
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(word, candidate);
    if (best == nullptr || distance < best_distance) {
      best = &candidate;
      best_distance = distance;
    }
  }
  if (best != nullptr && best_distance * 2 <= std::max(word.size(), best->size())) return absl::StrCat("did you mean '", *best, "'?");
  return absl::StrCat("known are: ", absl::StrJoin(candidates, ", "));
}

}  // namespace lockstep
