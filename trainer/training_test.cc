// Whole jobs in one process: each rank a thread, on pictures that our own program makes.

#include "trainer/training.h"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "base/test_folder.h"
#include "memory/cpu_allocator.h"
#include "model/keras_archive.h"
#include "trainer/loaded_model.h"
#include "trainer/planner.h"
#include "trainer/training_fixture.h"
#include "trainer/trial.h"

namespace lockstep {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(Training, HasTheSameBitsForAnyRanksAndThreads) {
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  EXPECT_EQ(plan.total_steps, 6u);
  const auto alone = Run(plan.resolved, {{0, 4}}, 1);
  ASSERT_TRUE(alone.ok()) << alone.status();
  ASSERT_EQ(alone->record.steps.size(), 6u);
  ASSERT_EQ(alone->record.epochs.size(), 2u);
  EXPECT_NE(Hashes(alone->record)[0], Hashes(alone->record)[1]);
  const std::vector<std::vector<allreduce::LeafRange>> memberships = {
      {{0, 4}}, {{0, 2}, {2, 4}}, {{0, 1}, {1, 4}}, {{0, 1}, {1, 3}, {3, 4}}, {{0, 1}, {1, 2}, {2, 3}, {3, 4}}};
  for (const auto& runs : memberships) {
    for (const int threads : {1, 2}) {
      SCOPED_TRACE(testing::Message() << runs.size() << " ranks, " << threads << " threads");
      const auto other = Run(plan.resolved, runs, threads);
      ASSERT_TRUE(other.ok()) << other.status();
      EXPECT_EQ(Hashes(other->record), Hashes(alone->record));
      for (size_t i = 0; i < alone->record.steps.size(); ++i) {
        EXPECT_EQ(other->record.steps[i].loss, alone->record.steps[i].loss);
        EXPECT_EQ(other->record.steps[i].sample_paths, alone->record.steps[i].sample_paths);
        EXPECT_EQ(other->record.steps[i].sample_digest, alone->record.steps[i].sample_digest);
      }
      for (size_t i = 0; i < alone->record.epochs.size(); ++i) {
        EXPECT_EQ(other->record.epochs[i].validation, alone->record.epochs[i].validation);
        EXPECT_EQ(other->record.epochs[i].loss, alone->record.epochs[i].loss);
      }
      EXPECT_EQ(other->run.result.state_hash, alone->run.result.state_hash);
    }
  }
}

TEST_F(Training, UsesEverySampleOnceInAnEpoch) {
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  const auto outcome = Run(plan.resolved, {{0, 2}, {2, 4}}, 1);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  for (const uint32_t epoch : {1u, 2u}) {
    std::vector<std::string> used;
    for (const StepFigures& step : outcome->record.steps) {
      if (step.epoch == epoch) used.insert(used.end(), step.sample_paths.begin(), step.sample_paths.end());
    }
    EXPECT_EQ(used.size(), static_cast<size_t>(kTrain));
    std::sort(used.begin(), used.end());
    EXPECT_EQ(std::unique(used.begin(), used.end()), used.end());
  }
}

TEST_F(Training, EvaluatingTheTrainedFileGivesWhatValidationSaid) {
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  const auto fit = Run(plan.resolved, {{0, 4}}, 2);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_THAT(fit->run.artifacts, ElementsAre("trained.keras"));
  model_ = absl::StrCat(scratch_, "/run1.2.0/trained.keras");
  spec_.kind = JobKind::kEvaluate;
  spec_.train_folder = spec_.validation_folder;
  spec_.validation_folder.clear();
  const PlanOutcome evaluation = Plan();
  ASSERT_TRUE(evaluation.errors.empty()) << absl::StrJoin(evaluation.errors, "\n");
  const auto evaluated = Run(evaluation.resolved, {{0, 4}}, 1);
  ASSERT_TRUE(evaluated.ok()) << evaluated.status();
  const NamedValues& validation = fit->record.epochs.back().validation;
  ASSERT_EQ(validation.at(0).first, "loss");
  EXPECT_EQ(evaluated->run.result.loss, validation[0].second) << "bits, not about";
  EXPECT_EQ(evaluated->run.result.metrics.at(0).second, validation.at(1).second);
}

TEST_F(Training, APassTellsHowFarItIsAndEndsWhenItIsCancelled) {
  spec_.kind = JobKind::kEvaluate;
  spec_.validation_folder.clear();
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  const auto whole = Run(plan.resolved, {{0, 2}, {2, 4}}, 1);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->run.ending, Ending::kDone);
  ASSERT_FALSE(whole->record.passes.empty());
  const PassFigures& first = whole->record.passes[0];
  EXPECT_EQ(first.batch, 1u);
  EXPECT_EQ(first.batches, 3u);
  EXPECT_GT(*first.loss, 0);
  EXPECT_EQ(first.metrics.size(), whole->run.result.metrics.size());
  EXPECT_GT(first.memory.resident_bytes, 0);
  const auto cancelled = Run(plan.resolved, {{0, 2}, {2, 4}}, 1, /*cancel_after=*/1);
  ASSERT_TRUE(cancelled.ok()) << cancelled.status();
  EXPECT_EQ(cancelled->run.ending, Ending::kCancelled);
  EXPECT_EQ(cancelled->run.result.samples, 6u + 14u) << "half of the first batch, and the whole share of the other, whom nobody told";
}

TEST_F(Training, RestoringTheBestEpochGivesItsWeightsBackAndLeavesTheOptimizerAsKerasDoes) {
  spec_.validation_folder.clear();
  spec_.epochs = 5;
  // The highest loss is the first epoch's: the second is no improvement, and ends it.
  spec_.stop_early = StopEarlySpec{.metric = "loss", .patience = 1, .mode = "max", .restore_best = true};
  spec_.best_metric = "loss";
  spec_.best_mode = "max";
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  const auto outcome = Run(plan.resolved, {{0, 4}}, 2);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  ASSERT_EQ(outcome->record.epochs.size(), 2u);
  ASSERT_LT(outcome->record.epochs[1].loss, outcome->record.epochs[0].loss);
  const auto trained = KerasArchive::Open(absl::StrCat(scratch_, "/run1.2.0/trained.keras"));
  const auto best = KerasArchive::Open(absl::StrCat(scratch_, "/run1.2.0/best.keras"));
  ASSERT_TRUE(trained.ok() && best.ok()) << trained.status() << best.status();
  const auto read = [](const KerasArchive& archive, const std::string& path) {
    return *archive.Read<double>(path, archive.arrays().at(path).shape);
  };
  int slots = 0;
  for (const auto& [path, info] : (*best)->arrays()) {
    if (info.kind != KerasArchive::Kind::kFloat) continue;
    const bool equal = read(**trained, path) == read(**best, path);
    if (!absl::StartsWith(path, "optimizer/")) {
      EXPECT_TRUE(equal) << path;
    } else if (!info.shape.empty() && !equal) {
      ++slots;
    }
  }
  EXPECT_GT(slots, 0) << "Adam went on after the best epoch";
  EXPECT_EQ(read(**best, "optimizer/vars/0").at(0), 3);
  EXPECT_EQ(read(**trained, "optimizer/vars/0").at(0), 6);
}

TEST_F(Training, ABadPictureIsLeftOutAndListedAsFarAsTheJobAllows) {
  spec_.train_folder = CopyOfTrain();
  const fs::path victim = fs::directory_iterator(fs::directory_iterator(spec_.train_folder)->path())->path();
  fs::resize_file(victim, fs::file_size(victim) / 3);
  spec_.skip_bad = 1;
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  const auto one = Run(plan.resolved, {{0, 4}}, 1);
  const auto two = Run(plan.resolved, {{0, 2}, {2, 4}}, 1);
  ASSERT_TRUE(one.ok() && two.ok()) << one.status() << two.status();
  EXPECT_EQ(one->run.ending, Ending::kDone) << one->run.reason;
  EXPECT_EQ(Hashes(one->record), Hashes(two->record));
  EXPECT_EQ(one->record.epochs[0].samples, static_cast<uint64_t>(kTrain) - 1);
  ASSERT_EQ(one->record.epochs[0].bad_samples.size(), 1u);
  EXPECT_THAT(one->record.epochs[0].bad_samples[0], HasSubstr(victim.filename().string()));

  RunSpec strict = plan.resolved;
  strict.skip_bad = 0;
  const auto refused = Run(strict, {{0, 2}, {2, 4}}, 1);
  ASSERT_TRUE(refused.ok()) << refused.status();
  EXPECT_EQ(refused->run.ending, Ending::kBadInput);
  EXPECT_THAT(refused->run.reason, HasSubstr(victim.filename().string()));
}

TEST_F(Training, CancellingEndsAllRanksAtOneStep) {
  spec_.epochs = 100;
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  const auto outcome = Run(plan.resolved, {{0, 2}, {2, 4}}, 1, /*cancel_after=*/2);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome->run.ending, Ending::kCancelled);
  EXPECT_EQ(outcome->record.steps.size(), 3u) << "the step in which the wish was seen is committed";
}

TEST_F(Training, PlanningFindsEverythingThatIsWrongAtOnce) {
  spec_.virtual_replicas = 5;
  spec_.image.method = "bilinaer";
  spec_.train_folder = absl::StrCat(scratch_, "/nowhere");
  const PlanOutcome plan = Plan();
  EXPECT_EQ(plan.failure, Ending::kBadInput);
  const std::string errors = absl::StrJoin(plan.errors, "\n");
  EXPECT_THAT(errors,
              AllOf(HasSubstr("virtual_replicas: 5 does not divide the batch of 12"), HasSubstr("\"bilinaer\""), HasSubstr("/nowhere")));
}

TEST_F(Training, AModelThatDoesNotFitTheClassesIsRefused) {
  spec_.train_folder = CopyOfTrain();
  fs::create_directories(absl::StrCat(spec_.train_folder, "/zebra"));
  const fs::path picture = fs::directory_iterator(fs::directory_iterator(spec_.train_folder)->path())->path();
  fs::copy(picture, absl::StrCat(spec_.train_folder, "/zebra/one.jpg"));
  spec_.validation_folder.clear();
  const PlanOutcome plan = Plan();
  EXPECT_EQ(plan.failure, Ending::kBadInput);
  EXPECT_THAT(absl::StrJoin(plan.errors, "\n"), AllOf(HasSubstr("3"), HasSubstr("4")));
}

TEST_F(Training, ThePeakOfAnyMicroBatchIsPredictedToTheByte) {
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  spec_ = plan.resolved;
  for (const char* precision : {"float32", "float64"}) {
    const absl::StatusOr<LoadedModel> loaded = LoadModel(model_, precision);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const absl::StatusOr<Recipe> recipe = ReadJobRecipe(spec_, *loaded, kClasses);
    ASSERT_TRUE(recipe.ok()) << recipe.status();
    for (const JobKind kind : {JobKind::kFit, JobKind::kEvaluate, JobKind::kPredict}) {
      spec_.kind = kind;
      for (const int samples : {1, 4, 9, 15, 16, 33, 100}) {
        spec_.micro_batch = samples;
        const auto trial = Trial::Create(spec_, *loaded, *recipe);
        ASSERT_TRUE(trial.ok()) << trial.status();
        const auto pass = (*trial)->Record({});
        ASSERT_TRUE(pass.ok()) << pass.status();
        EXPECT_EQ(pass->extends(), samples > 1) << pass->method();
        const memory::Peak peak = pass->PeakAt(samples);
        EXPECT_EQ(peak.bytes, (*trial)->Measure({})->bytes) << precision << ", " << samples << " samples";
        if (kind != JobKind::kFit) continue;
        EXPECT_FALSE(peak.place.empty());
        const CallGraph& graph = loaded->model->call_graph();
        const std::vector<Segment> segments = memory::FewestBytes(pass->CostsAt(samples, graph)).segments;
        const auto twice = (*trial)->Record(segments);
        ASSERT_TRUE(twice.ok()) << twice.status();
        EXPECT_EQ(twice->PeakAt(samples).bytes, (*trial)->Measure(segments)->bytes) << precision << ", " << samples << " samples, twice";
        EXPECT_LE(twice->PeakAt(samples).bytes, samples < 16 ? peak.bytes : peak.bytes * 97 / 100);
      }
    }
  }
}

// The least that a job can be brought down to, and the step's part of it.
std::pair<int64_t, int64_t> Least(const PlanOutcome& plan) {
  const auto& remedies = plan.profile->remedies;
  const auto pipeline = std::find_if(remedies.begin(), remedies.end(), [](const auto& remedy) { return remedy.name == "pipeline"; });
  EXPECT_NE(pipeline, remedies.end());
  const int64_t around = pipeline->resident_bytes - plan.profile->bytes_per_further_thread;
  return {remedies.back().resident_bytes, remedies.back().resident_bytes - around};
}

TEST_F(Training, ThePeakOfARunIsThePlanned) {
  for (const int batch : {12, 28}) {
    spec_.batch = batch;
    const PlanOutcome plan = Plan();
    ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
    memory::CpuTensorPool().ResetPeak();
    ASSERT_TRUE(Run(plan.resolved, {{0, 4}}, 1).ok());
    const memory::BlockPool::Usage usage = memory::CpuTensorPool().GetUsage();
    EXPECT_EQ(usage.at_peak[memory::Category::kActivations], plan.profile->peak[memory::Category::kActivations]);
    EXPECT_LE(usage.peak_bytes, plan.profile->peak_bytes);
  }
}

TEST_F(Training, UnderALimitSegmentsAreComputedTwiceToTheSameBits) {
  spec_.batch = 28;
  spec_.steps = 4;
  const PlanOutcome plain = Plan();
  ASSERT_TRUE(plain.errors.empty()) << absl::StrJoin(plain.errors, "\n");
  EXPECT_TRUE(plain.resolved.recompute.segments.empty());
  EXPECT_FALSE(plain.resolved.next.empty());
  const auto [least, least_step] = Least(plain);
  spec_.memory_limit = least + (plain.profile->bytes_per_further_thread - least_step) / 2;
  const PlanOutcome fitted = Plan();
  ASSERT_TRUE(fitted.errors.empty()) << absl::StrJoin(fitted.errors, "\n");
  EXPECT_FALSE(fitted.resolved.recompute.segments.empty());
  EXPECT_EQ(fitted.resolved.threads, 1);
  EXPECT_LE(fitted.profile->resident_bytes, spec_.memory_limit);
  EXPECT_THAT(absl::StrJoin(fitted.notes, "\n"), HasSubstr("computed again in backward"));
  const auto without = Run(plain.resolved, {{0, 4}}, 1);
  memory::CpuTensorPool().ResetPeak();
  const auto with = Run(fitted.resolved, {{0, 4}}, 1);
  const memory::BlockPool::Usage usage = memory::CpuTensorPool().GetUsage();
  ASSERT_TRUE(without.ok() && with.ok()) << without.status() << with.status();
  EXPECT_EQ(with->run.ending, Ending::kDone) << with->run.reason;
  EXPECT_EQ(Hashes(with->record), Hashes(without->record));
  EXPECT_EQ(usage.at_peak[memory::Category::kActivations], fitted.profile->peak[memory::Category::kActivations]);
  // Asked not to, it is refused.
  spec_.remedies = false;
  EXPECT_EQ(Plan().failure, Ending::kOutOfMemory);
}

TEST_F(Training, ASmallerMicroBatchNeedsTheJobsWordAndIsRecorded) {
  const RunSpec asked = spec_;
  for (const int batch : {24, 28}) {
    SCOPED_TRACE(batch);
    spec_ = asked;
    spec_.batch = batch;
    memory::CpuTensorPool().SetLimit(0);
    PlanOutcome plan = Plan();
    ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
    const int whole = plan.resolved.micro_batch;
    const auto [least, step] = Least(plan);
    spec_.memory_limit = least - step / 4;
    EXPECT_EQ(Plan().failure, Ending::kOutOfMemory);
    spec_.allows_micro_batch = true;
    plan = Plan();
    ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
    EXPECT_LT(plan.resolved.micro_batch, whole);
    EXPECT_LE(plan.profile->resident_bytes, spec_.memory_limit);
    const auto& remedies = plan.profile->remedies;
    const auto smaller = std::find_if(remedies.begin(), remedies.end(), [](const auto& remedy) { return remedy.name == "micro_batch"; });
    ASSERT_NE(smaller, remedies.end());
    EXPECT_TRUE(smaller->applied && smaller->changes_bits);
    spec_ = plan.resolved;
    memory::CpuTensorPool().ResetPeak();
    const auto ran = Run(plan.resolved, {{0, 4}}, 1);
    ASSERT_TRUE(ran.ok()) << ran.status();
    EXPECT_EQ(ran->run.ending, Ending::kDone) << ran->run.reason;
    // Of seven samples two micro-batches of four are planned, and four and three are computed; of six it is two of three.
    const int64_t planned = plan.profile->peak[memory::Category::kActivations];
    const int64_t taken = memory::CpuTensorPool().GetUsage().at_peak[memory::Category::kActivations];
    EXPECT_LE(taken, planned + 512);
    EXPECT_GE(taken, planned - (batch == 24 ? 512 : 2048));
  }
}

TEST_F(Training, WhatCannotFitIsRefusedWithTheLargestBatchThatWould) {
  spec_.batch = 48;
  spec_.virtual_replicas = 4;
  PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  const auto [least, step] = Least(plan);
  spec_.memory_limit = least - step / 3;
  plan = Plan();
  ASSERT_EQ(plan.failure, Ending::kOutOfMemory);
  const std::string error = absl::StrJoin(plan.errors, "\n");
  int fits = 0;
  const size_t at = error.find(" samples a batch would fit");
  ASSERT_NE(at, std::string::npos) << error;
  ASSERT_TRUE(absl::SimpleAtoi(error.substr(error.rfind(' ', at - 1) + 1, at - error.rfind(' ', at - 1) - 1), &fits)) << error;
  // What may be computed again is chosen anew for each batch: a sample more for each virtual replica may fit then, not two.
  for (const int more : {0, 8}) {
    spec_.batch = fits + more;
    EXPECT_EQ(Plan().errors.empty(), more == 0) << fits;
  }
}

// From 16 samples on libtorch takes another path, of which recordings at few samples say nothing.
TEST_F(Training, TheLargestBatchIsFoundAcrossTheRegimesOfMicroBatches) {
  spec_.virtual_replicas = 4;
  const auto least_of = [this](int batch) {
    spec_.batch = batch, spec_.memory_limit = 0, spec_.plan_only = false;
    const PlanOutcome plan = Plan();
    EXPECT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
    const auto [least, step] = Least(plan);
    return least + step / 50;
  };
  const auto largest = [this](int batch, int64_t limit) {
    spec_.batch = batch, spec_.memory_limit = limit, spec_.plan_only = true;
    return static_cast<int>(Plan().profile->largest_batch);
  };
  const struct { int planned, about; } cases[] = {{48, 88}, {88, 40}, {4, 80}, {4, 24}};
  for (const auto& [planned, about] : cases) {
    SCOPED_TRACE(testing::Message() << "planned with " << planned << ", for a limit that suits " << about);
    const int64_t limit = least_of(about);
    const int fits = largest(planned, limit);
    EXPECT_NEAR(fits, about, 4) << "a sample for each virtual replica";
    for (const int more : {0, 8}) {
      spec_.batch = fits + more;
      EXPECT_EQ(Plan().errors.empty(), more == 0) << fits;
    }
  }
}

TEST_F(Training, WhatCannotFitIsRefusedWithWhatWould) {
  spec_.memory_limit = 100 << 10;
  const PlanOutcome plan = Plan();
  EXPECT_EQ(plan.failure, Ending::kOutOfMemory);
  EXPECT_THAT(absl::StrJoin(plan.errors, "\n"), HasSubstr("memory.limit"));
}

// Dies of its k-th step, as far as its peers can see.
class Dying final : public Record {
 public:
  explicit Dying(int at) : at_(at) {}
  void Step(StepFigures) override {
    if (++steps_ == at_) throw c10::Error(std::string("killed"), nullptr);
  }

 private:
  const int at_;
  int steps_ = 0;
};

// Three ranks; the one of `victim` dies at `step`, and the others go on. With `newcomer`, a trainer that knows nothing takes its
// place, as rank 0, and has to be given all of the state.
TEST_F(Training, SurvivorsGoOnFromLiveStateToTheSameBits) {
  spec_.best_metric = "val_loss";
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  const auto alone = Run(plan.resolved, {{0, 4}}, 1);
  ASSERT_TRUE(alone.ok()) << alone.status();
  for (const bool newcomer : {false, true}) {
    for (int step = 1; step <= 5; ++step) {
      const int victim = step % 3;
      SCOPED_TRACE(testing::Message() << "rank " << victim << " dies of step " << step << (newcomer ? ", a newcomer" : ""));
      const std::vector<allreduce::LeafRange> before = {{0, 1}, {1, 3}, {3, 4}};
      const std::vector<allreduce::LeafRange> after = newcomer ? before : std::vector<allreduce::LeafRange>{{0, 2}, {2, 4}};
      Meeting first(3), second(static_cast<int>(after.size()));
      std::vector<absl::StatusOr<RunOutcome>> outcomes(4, absl::UnknownError("did not run"));
      std::vector<Record> records(4);
      const auto run = [&](int index, int rank, int next_rank, Reporter& reporter) {
        RunSpec spec = plan.resolved;
        spec.runs = before;
        spec.rank = rank;
        spec.scratch = absl::StrCat(scratch_, "/", newcomer, step, ".", index);
        fs::create_directories(spec.scratch);
        int meetings = 0;
        const Rendezvous rendezvous =
            [&](const allreduce::Endpoint& mine,
                const std::map<std::string, std::string>& environment) -> absl::StatusOr<std::vector<allreduce::Endpoint>> {
          if (index == 3 && meetings++ == 0) return absl::FailedPreconditionError("generation 1 is over");
          return spec.generation == 1 && index != 3 && meetings++ == 0 ? first.For(rank)(mine, environment)
                                                                       : second.For(next_rank)(mine, environment);
        };
        const Regroup regroup = [&](const Asking& asking) -> absl::StatusOr<Placement> {
          if (next_rank < 0 || asking.finished) return absl::FailedPreconditionError("dead, or the job has ended");
          return Placement{2, next_rank, after, "another secret"};
        };
        outcomes[static_cast<size_t>(index)] = RunJob(spec, files_, rendezvous, regroup, {}, reporter);
      };
      std::vector<std::thread> processes;
      Dying dying(step);
      int next_rank = newcomer ? 1 : 0;
      for (int rank = 0; rank < 3; ++rank) {
        Reporter& reporter = rank == victim ? static_cast<Reporter&>(dying) : records[static_cast<size_t>(rank)];
        const int next = rank == victim ? -1 : next_rank++;
        processes.emplace_back([&run, &reporter, rank, next] { run(rank, rank, next, reporter); });
      }
      if (newcomer) processes.emplace_back([&] { run(3, 0, 0, records[3]); });
      for (std::thread& process : processes) process.join();
      EXPECT_FALSE(outcomes[static_cast<size_t>(victim)].ok());
      for (int index = 0; index < (newcomer ? 4 : 3); ++index) {
        if (index == victim) continue;
        const auto& outcome = outcomes[static_cast<size_t>(index)];
        ASSERT_TRUE(outcome.ok()) << outcome.status();
        EXPECT_EQ(outcome->result.state_hash, alone->run.result.state_hash);
        EXPECT_EQ(outcome->result.samples, alone->run.result.samples);
        EXPECT_EQ(outcome->result.validation, alone->run.result.validation);
        EXPECT_TRUE(fs::exists(absl::StrCat(scratch_, "/", newcomer, step, ".", index, "/best.keras")));
        const Record& record = records[static_cast<size_t>(index)];
        const std::vector<std::string> all = Hashes(alone->record);
        const std::vector<std::string> hashes = Hashes(record);
        const size_t from = record.steps.front().step - 1;
        EXPECT_EQ(hashes, std::vector<std::string>(all.begin() + static_cast<std::ptrdiff_t>(from), all.end()));
        EXPECT_TRUE(from == 0 || index == 3);
        EXPECT_EQ(record.epochs.back().loss, alone->record.epochs.back().loss);
      }
    }
  }
}

TEST_F(Training, GoesOnFromTheNewestWholeCheckpointToTheSameBits) {
  spec_.best_metric = "val_loss";
  spec_.optimizer = "adam";
  spec_.checkpoint_steps = 2;
  KeepCheckpoints();
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  EXPECT_GT(plan.profile->peak[memory::Category::kCheckpointCopies], 0);
  const auto alone = Run(plan.resolved, {{0, 4}}, 1);
  ASSERT_TRUE(alone.ok()) << alone.status();
  const std::vector<std::string> all = Hashes(alone->record);
  ASSERT_EQ(all.size(), 6u);
  fs::remove(absl::StrCat(scratch_, "/checkpoints/checkpoint-000000006.safetensors"));
  const std::string newest = absl::StrCat(scratch_, "/checkpoints/checkpoint-000000004.safetensors");
  ASSERT_TRUE(fs::exists(newest));
  RunSpec again = plan.resolved;
  again.checkpoint_steps = 100;
  again.checkpoints = {"checkpoint-000000006.safetensors", "checkpoint-000000004.safetensors", "checkpoint-000000002.safetensors"};
  for (const uint64_t from : {4u, 2u, 0u}) {
    for (const std::vector<allreduce::LeafRange>& runs : {std::vector<allreduce::LeafRange>{{0, 4}}, {{0, 1}, {1, 4}}}) {
      SCOPED_TRACE(testing::Message() << "from step " << from << " on " << runs.size() << " ranks");
      const auto rest = Run(again, runs, 1);
      ASSERT_TRUE(rest.ok()) << rest.status();
      EXPECT_EQ(Hashes(rest->record), std::vector<std::string>(all.begin() + static_cast<std::ptrdiff_t>(from), all.end()));
      EXPECT_EQ(rest->run.result.state_hash, alone->run.result.state_hash);
      EXPECT_EQ(rest->run.result.validation, alone->run.result.validation);
      EXPECT_EQ(rest->run.result.samples, alone->run.result.samples);
      EXPECT_EQ(rest->run.artifacts, alone->run.artifacts);
      EXPECT_EQ(rest->record.notes.size(), from == 4 ? 1u : from == 2 ? 2u : 3u) << "each that was passed over is named";
      EXPECT_THAT(rest->record.notes.back(), HasSubstr("passed over a damaged checkpoint"));
    }
    // Next time the newest of these is damaged.
    const std::string path = absl::StrCat(scratch_, "/checkpoints/checkpoint-00000000", from, ".safetensors");
    if (from == 0) break;
    const auto half = fs::file_size(path) / 2;
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(half));
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(half));
    file.put(byte);
    file.close();
  }
}

TEST_F(Training, AMissingPeerEndsTheRunInsteadOfHangingIt) {
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  RunSpec spec = plan.resolved;
  spec.runs = {{0, 2}, {2, 4}};
  spec.scratch = scratch_;
  Record record;
  const Rendezvous nobody = [](const allreduce::Endpoint&, const auto&) -> absl::StatusOr<std::vector<allreduce::Endpoint>> {
    return absl::FailedPreconditionError("generation 1 is not the newest");
  };
  EXPECT_EQ(RunJob(spec, files_, nobody, nullptr, {}, record).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace lockstep
