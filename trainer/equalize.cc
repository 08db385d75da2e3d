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

template <typename T>
absl::Status Save(const RunSpec& spec, const Replica<T>& replica, FitState& state, const std::string& path) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  StateWriter write(out);
  state.Fields(write);
  replica.WriteState(out);
  RETURN_IF_ERROR(AppendFile(InScratch(spec, "best.keras"), out));
  RETURN_IF_ERROR(AppendFile(InScratch(spec, "best.weights"), out));
  out.close();
  return out.good() ? absl::OkStatus() : absl::UnknownError(absl::StrCat("cannot write ", path));
}

template <typename T>
absl::Status Load(const RunSpec& spec, const std::string& path, Replica<T>& replica, FitState& state) {
  std::ifstream in(path, std::ios::binary);
  StateReader read(in);
  state.Fields(read);
  // Not for a newer generation to mend: the state is of no use.
  if (const absl::Status whole = replica.ReadState(in); !whole.ok()) return absl::InternalError(whole.message());
  RETURN_IF_ERROR(ExtractFile(in, InScratch(spec, "best.keras")));
  return ExtractFile(in, InScratch(spec, "best.weights"));
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
  const int source = static_cast<int>(furthest - positions.begin());
  const bool sends = source == spec.rank;
  const bool receives = position < *furthest;
  const std::string path = InScratch(spec, "state");
  if (sends) LOCKSTEP_FAILPOINT("trainer.send_state");
  if (receives) LOCKSTEP_FAILPOINT("trainer.receive_state");
  if (sends) {
    state.records = reporter.Records();
    const absl::Status saved = Save(spec, replica, state, path);
    state.records.clear();
    RETURN_IF_ERROR(saved);
  }
  RETURN_IF_ERROR(ShareFile([&](std::string_view bytes) { return exchange.Exchange(bytes); }, source, sends, receives, path));
  if (receives) {
    RETURN_IF_ERROR(Load(spec, path, replica, state));
    reporter.TakeRecords(std::exchange(state.records, {}));
  }
  if (sends || receives) std::remove(path.c_str());
  return absl::OkStatus();
}

template absl::Status Equalize(const RunSpec&, GradientExchange<float>&, Replica<float>&, FitState&, Reporter&);
template absl::Status Equalize(const RunSpec&, GradientExchange<double>&, Replica<double>&, FitState&, Reporter&);

}  // namespace lockstep
