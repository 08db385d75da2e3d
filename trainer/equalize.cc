#include "trainer/equalize.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/status_macros.h"
#include "trainer/state_transfer.h"

namespace lockstep {
namespace {

std::string InScratch(const RunSpec& spec, const char* name) { return absl::StrCat(spec.scratch, "/", name); }

// What is the sender's own: how far it is, records, the best epoch's files.
absl::Status SaveProgress(const RunSpec& spec, FitState& state, const std::string& path) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  StateWriter write(out);
  state.Fields(write);
  RETURN_IF_ERROR(AppendFile(InScratch(spec, "best.keras"), out));
  RETURN_IF_ERROR(AppendFile(InScratch(spec, "best.weights"), out));
  out.close();
  return out.good() ? absl::OkStatus() : absl::UnknownError(absl::StrCat("cannot write ", path));
}

// What all who are as far have alike.
template <typename T>
absl::Status SaveTensors(const Replica<T>& replica, const std::string& path) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  replica.WriteState(out);
  out.close();
  return out.good() ? absl::OkStatus() : absl::UnknownError(absl::StrCat("cannot write ", path));
}

template <typename T>
absl::Status Load(const RunSpec& spec, const std::string& progress, const std::string& tensors, Replica<T>& replica, FitState& state) {
  std::ifstream in(progress, std::ios::binary);
  StateReader read(in);
  state.Fields(read);
  RETURN_IF_ERROR(ExtractFile(in, InScratch(spec, "best.keras")));
  RETURN_IF_ERROR(ExtractFile(in, InScratch(spec, "best.weights")));
  std::ifstream values(tensors, std::ios::binary);
  // Not for a newer generation to mend: the state is of no use.
  const absl::Status whole = replica.ReadState(values);
  return whole.ok() ? whole : absl::InternalError(whole.message());
}

}  // namespace

template <typename T>
absl::Status Equalize(const RunSpec& spec, GradientExchange<T>& exchange, Replica<T>& replica, FitState& state, Reporter& reporter) {
  if (spec.ranks() == 1) return absl::OkStatus();
  std::ostringstream mine;
  StateWriter write(mine);
  FitState::Position position = state.position();
  write(position);
  ASSIGN_OR_RETURN(const std::vector<std::string> all, exchange.Exchange(mine.str()));
  std::vector<FitState::Position> positions(all.size());
  for (size_t rank = 0; rank < all.size(); ++rank) {
    std::istringstream theirs(all[rank]);
    StateReader read(theirs);
    read(positions[rank]);
  }
  const auto furthest = std::max_element(positions.begin(), positions.end());
  if (std::all_of(positions.begin(), positions.end(), [&](const auto& one) { return one == *furthest; })) return absl::OkStatus();
  std::vector<int> sources;
  for (size_t rank = 0; rank < positions.size(); ++rank) {
    if (positions[rank] == *furthest) sources.push_back(static_cast<int>(rank));
  }
  const bool receives = position < *furthest;
  const std::string progress = InScratch(spec, "progress");
  const std::string tensors = InScratch(spec, "tensors");
  if (!receives) LOCKSTEP_FAILPOINT("trainer.send_state");
  if (receives) LOCKSTEP_FAILPOINT("trainer.receive_state");
  if (sources.front() == spec.rank) {
    state.records = reporter.Records();
    const absl::Status saved = SaveProgress(spec, state, progress);
    state.records.clear();
    RETURN_IF_ERROR(saved);
  }
  if (!receives) RETURN_IF_ERROR(SaveTensors(replica, tensors));
  const ExchangeBytes share = [&](std::string_view bytes) { return exchange.Exchange(bytes); };
  RETURN_IF_ERROR(ShareFile(share, {sources.front()}, spec.rank, receives, progress));
  RETURN_IF_ERROR(ShareFile(share, sources, spec.rank, receives, tensors));
  if (receives) {
    RETURN_IF_ERROR(Load(spec, progress, tensors, replica, state));
    reporter.TakeRecords(std::exchange(state.records, {}));
  }
  std::remove(progress.c_str());
  std::remove(tensors.c_str());
  return absl::OkStatus();
}

template absl::Status Equalize(const RunSpec&, GradientExchange<float>&, Replica<float>&, FitState&, Reporter&);
template absl::Status Equalize(const RunSpec&, GradientExchange<double>&, Replica<double>&, FitState&, Reporter&);

}  // namespace lockstep
