#include "coordinator/meeting.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lockstep {
namespace {

std::string Quoted(const Meeting::Environment& environment, const std::string& field) {
  const auto found = environment.find(field);
  return found == environment.end() ? "unknown" : absl::StrCat("\"", found->second, "\"");
}

// The first field whose values differ; empty: none.
std::string FirstDifference(const Meeting::Environment& a, const Meeting::Environment& b) {
  std::set<std::string> fields;
  for (const auto* environment : {&a, &b}) {
    for (const auto& entry : *environment) fields.insert(entry.first);
  }
  for (const std::string& field : fields) {
    if (Quoted(a, field) != Quoted(b, field)) return field;
  }
  return "";
}

}  // namespace

absl::Status Meeting::Join(uint32_t rank, const v1::Endpoint& endpoint, const Environment& environment) {
  if (rank >= seats_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank, " is none of the generation's ", seats_.size()));
  }
  if (complete() && seats_[rank]->endpoint.SerializeAsString() != endpoint.SerializeAsString()) {
    return absl::AbortedError(absl::StrCat("rank ", rank, " was started again, after all ranks had met"));
  }
  for (size_t other = 0; other < seats_.size(); ++other) {
    if (other == rank || !seats_[other]) continue;
    const Environment& theirs = seats_[other]->environment;
    const std::string field = FirstDifference(theirs, environment);
    if (field.empty()) continue;
    return absl::FailedPreconditionError(absl::StrCat("ranks of different kinds cannot train together, their bits would differ: ", field,
                                                      " is ", Quoted(theirs, field), " on rank ", other, ", and ",
                                                      Quoted(environment, field), " on rank ", rank));
  }
  seats_[rank] = Seat{endpoint, environment};
  return absl::OkStatus();
}

size_t Meeting::missing() const {
  return static_cast<size_t>(std::count_if(seats_.begin(), seats_.end(), [](const auto& seat) { return !seat; }));
}

std::set<uint32_t> Meeting::MissingRanks() const {
  std::set<uint32_t> ranks;
  for (size_t rank = 0; rank < seats_.size(); ++rank) {
    if (!seats_[rank]) ranks.insert(static_cast<uint32_t>(rank));
  }
  return ranks;
}

v1::RendezvousResponse Meeting::Response() const {
  v1::RendezvousResponse response;
  for (const auto& seat : seats_) *response.add_endpoints() = seat->endpoint;
  return response;
}

}  // namespace lockstep
