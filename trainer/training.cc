#include "trainer/training.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <memory>
#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "trainer/evaluate.h"
#include "trainer/fit.h"
#include "trainer/loaded_model.h"
#include "trainer/place.h"

namespace lockstep {
namespace {

// Outside of steps, which end such errors themselves: while it loaded, met the others or was given the state.
absl::StatusOr<RunOutcome> RanOut(const RunSpec& spec, const std::string& error) {
  std::string reason = absl::StrCat("rank ", spec.rank, ", outside of steps: ", error);
  if (const auto refusal = memory::CpuTensorPool().LastRefusal()) absl::StrAppend(&reason, " (", refusal->LiveText(0), ")");
  LOG_WARNING("job=%s rank=%d event=out_of_memory reason=\"%s\"", spec.job_id, spec.rank, reason);
  // What the others do without this replica is not for it to say.
  if (spec.rank != 0) return absl::ResourceExhaustedError(reason);
  RunOutcome outcome;
  outcome.ending = Ending::kOutOfMemory;
  outcome.reason = std::move(reason);
  return outcome;
}

template <typename T>
absl::StatusOr<RunOutcome> Run(RunSpec& spec, const RunFiles& files, LoadedModel& loaded, const DataSource& data, MemoryAccount& account,
                               const Rendezvous& rendezvous, const Regroup& regroup, const CheckpointStorage& storage, Reporter& reporter) {
  const bool trains = spec.kind == JobKind::kFit;
  ASSIGN_OR_RETURN(const Recipe recipe, ReadJobRecipe(spec, loaded, static_cast<int64_t>(data.train().class_names().size())));
  ASSIGN_OR_RETURN(const std::unique_ptr<Replica<T>> replica, Replica<T>::Create(*loaded.model, *loaded.archive, recipe));
  loaded.archive.reset();  // it holds the file's weights; what is in the replica is enough
  // Passes that train nothing only exchange verdicts.
  const size_t nothing[] = {1};
  const allreduce::Layout layout =
      trains ? replica->gradient_layout().layout : allreduce::MakeLayout(nothing, allreduce::ElementOf<T>(), 1);
  Place<T> place(spec, *loaded.model, recipe, *replica, layout, rendezvous, trains ? regroup : Regroup(), reporter);
  if (trains) return RunFit<T>(spec, files, *loaded.model, recipe, data, account, *replica, place, storage, reporter);
  RETURN_IF_ERROR(place.Enter());
  switch (spec.kind) {
    case JobKind::kFit: break;
    case JobKind::kEvaluate: return RunEvaluate<T>(spec, data, account, place.exchange(), place.runner(), reporter);
    case JobKind::kPredict: return RunPredict<T>(spec, *loaded.model, data, account, place.exchange(), place.runner(), reporter);
  }
  return absl::InternalError("a job of no kind");
}

}  // namespace

absl::StatusOr<RunOutcome> RunJob(const RunSpec& ordered, const RunFiles& files, const Rendezvous& rendezvous, const Regroup& regroup,
                                  const CheckpointStorage& storage, Reporter& reporter) {
  RunSpec spec = ordered;  // its placement changes where a peer dies
  try {
    at::set_num_threads(1);
    MemoryAccount account(memory::CpuTensorPool(), spec.tensor_bytes);
    ASSIGN_OR_RETURN(LoadedModel loaded, LoadModel(files.model, spec.precision));
    const int channels = static_cast<int>(loaded.model->input_shape().back());
    ASSIGN_OR_RETURN(const std::unique_ptr<DataSource> data, DataSource::Open(spec, channels, files.train_index, files.validation_index));
    if (loaded.model->dtype() == at::kDouble) {
      return Run<double>(spec, files, loaded, *data, account, rendezvous, regroup, storage, reporter);
    }
    return Run<float>(spec, files, loaded, *data, account, rendezvous, regroup, storage, reporter);
  } catch (const c10::OutOfMemoryError& error) {
    return RanOut(spec, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return RanOut(spec, "out of memory outside of tensors");
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  }
}

}  // namespace lockstep
