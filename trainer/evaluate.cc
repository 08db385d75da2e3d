#include "trainer/evaluate.h"

#include <algorithm>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "trainer/remedy.h"

namespace lockstep {
namespace {

// Turns what a pass found into an ending, and counts what it left out.
void Judge(const RunSpec& spec, const DataSource& data, const JointVerdict& verdict, RunOutcome& outcome) {
  if (verdict.cancel) outcome.ending = Ending::kCancelled, outcome.reason = "cancelled";
  if (!verdict.error.empty()) {
    outcome.ending = verdict.out_of_memory ? Ending::kOutOfMemory : Ending::kFailed;
    outcome.reason = verdict.error;
  } else if (verdict.bad.size() > spec.skip_bad) {
    const BadSample& first = verdict.bad.front();
    outcome.ending = Ending::kBadInput;
    outcome.reason = absl::StrCat(verdict.bad.size(), " pictures cannot be used, the first is ", data.train().PathOf(first.sample), ": ",
                                  first.reason, " (data.bad_samples.skip allows ", spec.skip_bad, ")");
  }
}

void NoteBad(const DataSource& data, const JointVerdict& verdict, Reporter& reporter) {
  for (const BadSample& bad : verdict.bad) {
    reporter.Note(absl::StrCat("left out ", data.train().PathOf(bad.sample), ": ", bad.reason));
  }
}

// RFC 4180: quoted where it holds a comma, a quote or a line break.
std::string CsvField(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  return absl::StrCat("\"", absl::StrReplaceAll(absl::string_view(text.data(), text.size()), {{"\"", "\"\""}}), "\"");
}

std::vector<std::string> ColumnNames(const dataset::Index& index, int64_t units) {
  std::vector<std::string> names;
  for (const auto& name : index.class_names()) names.emplace_back(name);
  const bool one_per_unit = static_cast<int64_t>(names.size()) == units;
  if (units == 1 && names.size() == 2) return {names[1]};
  if (one_per_unit) return names;
  names.clear();
  for (int64_t i = 0; i < units; ++i) names.push_back(absl::StrCat("class_", i));
  return names;
}

// The class of one row: the largest of several units; of a single one, the second class from one half (of a probability) or zero on.
std::string ClassOf(const dataset::Index& index, const std::vector<std::string>& columns, const double* row, double threshold) {
  if (columns.size() > 1) return columns[static_cast<size_t>(std::max_element(row, row + columns.size()) - row)];
  const bool second = row[0] > threshold;
  if (index.class_names().size() == 2) return std::string(index.class_names()[second ? 1 : 0]);
  return second ? "1" : "0";
}

constexpr absl::Duration kReportEvery = absl::Seconds(1);

// One pass over the data: tells how far it has come, and what it took.
template <typename T>
class Pass {
 public:
  Pass(const RunSpec& spec, const DataSource& data, MemoryAccount& account, const GradientExchange<T>& exchange,
       const StepRunner<T>& runner, const dataset::Pipeline& pipeline, Reporter& reporter)
      : spec_(spec),
        batches_(static_cast<uint64_t>(data.train_sampler().StepsPerEpoch())),
        account_(account),
        exchange_(exchange),
        runner_(runner),
        pipeline_(pipeline),
        reporter_(reporter) {}

  uint64_t batches() const { return batches_; }

  // A PassWatcher.
  bool Watch(const PassSoFar& so_far) {
    if (so_far.batches == 1) account_.Settle(Owned());
    if (absl::Now() - reported_ >= kReportEvery) {
      reported_ = absl::Now();
      Report(so_far);
    }
    return !reporter_.CancelWanted();
  }

  void Fill(const Evaluation& evaluation, ResultFigures& result) const {
    result.samples = static_cast<uint64_t>(evaluation.verdict.samples);
    result.steps = batches_;
    result.wall_seconds = WallSeconds();
    result.images_per_second = static_cast<double>(evaluation.verdict.samples) / std::max(result.wall_seconds, 1e-9);
    result.memory = account_.Take(Owned());
  }

 private:
  double WallSeconds() const { return absl::ToDoubleSeconds(absl::Now() - start_); }

  OwnedBytes Owned() const {
    OwnedBytes owned = exchange_.owned_bytes();
    owned.input_pipeline = static_cast<int64_t>(pipeline_.stats().bytes);
    owned.in_heap += owned.input_pipeline;
    return owned;
  }

  void Report(const PassSoFar& so_far) const {
    const dataset::PipelineStats stats = pipeline_.stats();
    const MemoryFigures memory = account_.Take(Owned());
    const bool predicts = spec_.kind == JobKind::kPredict;
    StatusFigures status;
    status.phase = predicts ? "predicting" : "evaluating";
    status.pipeline_bytes = static_cast<uint64_t>(stats.bytes);
    status.pipeline_depth = static_cast<uint32_t>(stats.depth);
    status.memory = memory;
    reporter_.Status(std::move(status));
    if (spec_.rank != 0) return;
    PassFigures figures;
    figures.batch = so_far.batches;
    figures.batches = batches_;
    if (!predicts) {
      figures.loss = so_far.samples > 0 ? so_far.loss_sum / static_cast<double>(so_far.samples) : 0;
      figures.metrics = runner_.MetricValues(so_far.metrics);
    }
    figures.wall_seconds = WallSeconds();
    const double share = static_cast<double>(spec_.my_run().size()) / spec_.virtual_replicas;
    figures.images_per_second = static_cast<double>(so_far.samples) / share / std::max(figures.wall_seconds, 1e-9);
    figures.memory = memory;
    reporter_.Pass(std::move(figures));
  }

  const RunSpec& spec_;
  const uint64_t batches_;
  MemoryAccount& account_;
  const GradientExchange<T>& exchange_;
  const StepRunner<T>& runner_;
  const dataset::Pipeline& pipeline_;
  Reporter& reporter_;
  const absl::Time start_ = absl::Now();
  absl::Time reported_ = absl::InfinitePast();
};

// A pass has no effect but what comes of it: where memory runs out, which all ranks know alike, it is made again.
template <typename Once>
absl::StatusOr<RunOutcome> UntilThereIsMemory(const RunSpec& spec, Reporter& reporter, Once&& once) {
  for (int again = 1;; ++again) {
    ASSIGN_OR_RETURN(RunOutcome outcome, once());
    if (outcome.ending != Ending::kOutOfMemory || again > kMostAgain) return outcome;
    memory::CpuTensorPool().Trim();
    if (spec.rank == 0)
      reporter.Note(absl::StrCat("the pass ran out of memory on ", outcome.reason, "; made again after kept memory was given back"));
  }
}

template <typename T>
absl::StatusOr<RunOutcome> EvaluateOnce(const RunSpec& spec, const DataSource& data, MemoryAccount& account, GradientExchange<T>& exchange,
                                        StepRunner<T>& runner, Reporter& reporter) {
  RunOutcome outcome;
  ASSIGN_OR_RETURN(const std::unique_ptr<dataset::Pipeline> pipeline, data.TrainPipeline(0, 0));
  Pass<T> pass(spec, data, account, exchange, runner, *pipeline, reporter);
  ASSIGN_OR_RETURN(const Evaluation evaluation, runner.Evaluate(pass.batches(), *pipeline, Word{.cancel = reporter.CancelWanted()}, nullptr,
                                                                [&](const PassSoFar& so_far) { return pass.Watch(so_far); }));
  pass.Fill(evaluation, outcome.result);
  outcome.result.loss = evaluation.loss;
  outcome.result.metrics = evaluation.metrics;
  NoteBad(data, evaluation.verdict, reporter);
  Judge(spec, data, evaluation.verdict, outcome);
  return outcome;
}

template <typename T>
absl::StatusOr<RunOutcome> PredictOnce(const RunSpec& spec, const Model& model, const DataSource& data, MemoryAccount& account,
                                       GradientExchange<T>& exchange, StepRunner<T>& runner, Reporter& reporter) {
  RunOutcome outcome;
  const auto units = static_cast<size_t>(std::max<int64_t>(model.output_shape().back(), 1));
  const std::vector<std::string> columns = ColumnNames(data.train(), static_cast<int64_t>(units));
  const double threshold = model.output_activation() == Model::OutputActivation::kSigmoid ? 0.5 : 0;
  const std::string path = absl::StrCat(spec.scratch, "/predictions.csv");
  std::ofstream csv(path);
  csv << "path,class";
  for (const std::string& column : columns) csv << "," << CsvField(column);
  csv << "\n";
  const auto write = [&](const std::vector<int64_t>& ids, const std::vector<double>& rows) {
    for (size_t i = 0; i < ids.size(); ++i) {
      const double* row = rows.data() + i * units;
      csv << CsvField(data.train().PathOf(ids[i])) << "," << CsvField(ClassOf(data.train(), columns, row, threshold));
      for (size_t k = 0; k < units; ++k) csv << "," << absl::StrFormat("%.9g", row[k]);
      csv << "\n";
    }
  };
  ASSIGN_OR_RETURN(const std::unique_ptr<dataset::Pipeline> pipeline, data.TrainPipeline(0, 0));
  Pass<T> pass(spec, data, account, exchange, runner, *pipeline, reporter);
  ASSIGN_OR_RETURN(const Evaluation evaluation, runner.Evaluate(pass.batches(), *pipeline, Word{.cancel = reporter.CancelWanted()}, write,
                                                                [&](const PassSoFar& so_far) { return pass.Watch(so_far); }));
  csv.close();
  if (!csv) return absl::UnknownError(absl::StrCat("cannot write ", path, ": is the disk full?"));
  pass.Fill(evaluation, outcome.result);
  NoteBad(data, evaluation.verdict, reporter);
  Judge(spec, data, evaluation.verdict, outcome);
  if (outcome.ending == Ending::kDone) outcome.artifacts.emplace_back("predictions.csv");
  return outcome;
}

}  // namespace

template <typename T>
absl::StatusOr<RunOutcome> RunEvaluate(const RunSpec& spec, const DataSource& data, MemoryAccount& account, GradientExchange<T>& exchange,
                                       StepRunner<T>& runner, Reporter& reporter) {
  return UntilThereIsMemory(spec, reporter, [&] { return EvaluateOnce(spec, data, account, exchange, runner, reporter); });
}

template <typename T>
absl::StatusOr<RunOutcome> RunPredict(const RunSpec& spec, const Model& model, const DataSource& data, MemoryAccount& account,
                                      GradientExchange<T>& exchange, StepRunner<T>& runner, Reporter& reporter) {
  return UntilThereIsMemory(spec, reporter, [&] { return PredictOnce(spec, model, data, account, exchange, runner, reporter); });
}

template absl::StatusOr<RunOutcome> RunEvaluate(const RunSpec&, const DataSource&, MemoryAccount&, GradientExchange<float>&,
                                                StepRunner<float>&, Reporter&);
template absl::StatusOr<RunOutcome> RunEvaluate(const RunSpec&, const DataSource&, MemoryAccount&, GradientExchange<double>&,
                                                StepRunner<double>&, Reporter&);
template absl::StatusOr<RunOutcome> RunPredict(const RunSpec&, const Model&, const DataSource&, MemoryAccount&, GradientExchange<float>&,
                                               StepRunner<float>&, Reporter&);
template absl::StatusOr<RunOutcome> RunPredict(const RunSpec&, const Model&, const DataSource&, MemoryAccount&, GradientExchange<double>&,
                                               StepRunner<double>&, Reporter&);

}  // namespace lockstep
