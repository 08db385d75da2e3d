// What becomes of a step, or a pass, that ran out of memory on some replica.

#include <c10/util/Exception.h>

#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "trainer/fit_loop.h"
#include "trainer/state_transfer.h"

namespace lockstep {
namespace {

constexpr size_t kLayersInLog = 8;
constexpr size_t kLayersInNote = 2;

std::string Count(int count, const char* noun) { return absl::StrCat(count, " ", noun, count == 1 ? "" : "s"); }

std::string Done(const RemedyChoice& choice) {
  switch (choice.remedy) {
    case Remedy::kGiveBack: return "taken again after kept memory was given back";
    case Remedy::kFewerThreads: return absl::StrCat("taken again on ", Count(choice.after.threads, "thread"), ", and so from now on");
    case Remedy::kRecompute:
      return absl::StrCat("taken again with planned recomputation ", choice.after.recomputations, ", and so from now on");
    case Remedy::kAgain: return absl::StrCat("taken again as it is, try ", choice.after.again, " of ", kMostAgain);
    case Remedy::kNone: break;
  }
  return "nothing that keeps the bits is left to do about it";
}

void LogRefusal(const RunSpec& spec, const std::string& what, const memory::Refusal& refusal) {
  LOG_WARNING(
      "job=%s rank=%d event=out_of_memory in=\"%s\" place=\"%s\" asked_bytes=%d category=%s live_bytes=%d limit_bytes=%d "
      "live=\"%s\"",
      spec.job_id, spec.rank, what, refusal.place, refusal.bytes, memory::CategoryName(refusal.category), refusal.live.Total(),
      refusal.limit_bytes, refusal.LiveText(kLayersInLog));
}

// `missing` bytes of a limit, or those that the machine did not have.
std::string WhatWouldDo(const RunSpec& spec, int64_t missing, int64_t asked) {
  const int64_t batch = BatchThatWouldDo(spec, missing > 0 ? missing : asked);
  const std::string smaller = batch > 0 ? absl::StrCat(" batch of ", batch, ", by what planning found of a sample,") : " smaller batch";
  if (missing == 0) return absl::StrCat("A", smaller, " would do, or more memory");
  const int64_t mebibytes = (spec.memory_limit + missing + (1 << 20) - 1) >> 20;
  return absl::StrCat("A memory.limit of ", mebibytes, "MiB would have held this request, though perhaps not the next; a", smaller,
                      " would do too");
}

}  // namespace

// What a replica tells the others of itself: how far it has come with remedies, what was refused to it, and by how much.
template <typename T>
absl::StatusOr<typename Fit<T>::Shortage> Fit<T>::Confer(const std::string& what, const JointVerdict& verdict,
                                                         const std::optional<memory::Refusal>& refusal) {
  std::ostringstream mine;
  StateWriter write(mine);
  std::string text;
  int64_t missing = 0, asked = 0;
  if (refusal) {
    LogRefusal(spec_, what, *refusal);
    text = absl::StrCat(refusal->Text(), " (", refusal->LiveText(kLayersInNote), ")");
    missing = refusal->missing_bytes;
    asked = refusal->bytes;
  }
  write(remedies_, missing, asked, text);
  ASSIGN_OR_RETURN(const std::vector<std::string> all, place_.exchange().Exchange(mine.str()));
  Shortage shortage;
  std::vector<Remedies> remedies(all.size());
  for (size_t rank = 0; rank < all.size(); ++rank) {
    std::istringstream theirs(all[rank]);
    StateReader read(theirs);
    int64_t more = 0, request = 0;
    read(remedies[rank], more, request, text);
    shortage.missing_bytes = std::max(shortage.missing_bytes, more);
    shortage.asked_bytes = std::max(shortage.asked_bytes, request);
    if (shortage.text.empty() && !text.empty()) shortage.text = absl::StrCat("rank ", rank, ": ", text);
  }
  if (shortage.text.empty()) shortage.text = verdict.error;
  shortage.furthest = Furthest(remedies);
  return shortage;
}

template <typename T>
absl::Status Fit<T>::TakeAgain(const std::string& what, const JointVerdict& verdict, const std::optional<memory::Refusal>& refusal) {
  ASSIGN_OR_RETURN(const Shortage shortage, Confer(what, verdict, refusal));
  int most_leaves = 0;
  for (const allreduce::LeafRange& run : spec_.runs) most_leaves = std::max(most_leaves, run.size());
  const RemedyChoice choice = NextRemedy(
      shortage.furthest, {.most_leaves = most_leaves, .recomputations = recomputations_, .allowed = spec_.remedies, .step = state_.step});
  const size_t short_ranks = verdict.ranks_out_of_memory.size();
  const std::string told = absl::StrCat(what, " ran out of memory on ", short_ranks == 1 ? "rank " : "ranks ",
                                        absl::StrJoin(verdict.ranks_out_of_memory, ", "), "; ", shortage.text);
  if (choice.remedy == Remedy::kNone) {
    End(Ending::kOutOfMemory,
        absl::StrCat(told, "; ", Done(choice), ". ", WhatWouldDo(spec_, shortage.missing_bytes, shortage.asked_bytes)));
    return absl::OkStatus();
  }
  ++retries_;
  remedies_ = choice.after;
  place_.Ease(remedies_);
  if (spec_.rank == 0) reporter_.Note(absl::StrCat(told, "; ", Done(choice)));
  return absl::OkStatus();
}

template <typename T>
absl::Status Fit<T>::WriteArchive(const char* name) {
  for (int again = 1;; ++again) {
    try {
      return replica_.WriteArchive(files_.model, Scratch(name));
    } catch (const c10::OutOfMemoryError& error) {
      const memory::Requests::Refused refused = place_.requests().TakeRefused();
      if (refused.first) LogRefusal(spec_, name, *refused.first);
      if (again > kMostAgain) return absl::ResourceExhaustedError(absl::StrCat("writing ", name, ": ", error.what_without_backtrace()));
      // Nobody waits for it, so that nobody has to be asked.
      ++retries_;
      memory::CpuTensorPool().Trim();
    }
  }
}

template class Fit<float>;
template class Fit<double>;

}  // namespace lockstep
