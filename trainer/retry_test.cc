// Jobs that run out of memory on the way, and end as if they had not.

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "memory/cpu_allocator.h"
#include "memory/requests.h"
#include "trainer/loaded_model.h"
#include "trainer/training_fixture.h"

namespace lockstep {
namespace {

using memory::FailingRequest;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class Retry : public Training {
 protected:
  void TearDown() override {
    memory::SetFailingRequests({});
    Training::TearDown();
  }

  // Of tensors, by category.
  static std::vector<int64_t> Live() {
    const memory::Bytes live = memory::CpuTensorPool().GetUsage().live;
    std::vector<int64_t> bytes;
    for (size_t i = 0; i < memory::kCategories; ++i) {
      const auto category = static_cast<memory::Category>(i);
      if (category != memory::Category::kAllocatorSlack) bytes.push_back(live[category]);
    }
    return bytes;
  }

  // Some calls of the model, to be computed twice.
  Recomputation Some() const {
    const auto loaded = LoadModel(model_, "float32");
    const CallGraph& graph = loaded->model->call_graph();
    std::vector<int> cuts;
    for (int call = 0; call < static_cast<int>(graph.calls.size()); ++call) {
      if (graph.MayCut(call)) cuts.push_back(call);
    }
    return {.segments = {{cuts[1], cuts[cuts.size() / 2]}, {cuts[cuts.size() / 2], cuts.back()}}};
  }

  // As the other one, in all that is a function of the job.
  static void ExpectTheSame(const Outcome& mine, const Outcome& other) {
    EXPECT_EQ(mine.run.ending, Ending::kDone) << mine.run.reason;
    EXPECT_EQ(Hashes(mine.record), Hashes(other.record));
    EXPECT_EQ(mine.run.result.state_hash, other.run.result.state_hash);
    EXPECT_EQ(mine.run.artifacts, other.run.artifacts);
    ASSERT_EQ(mine.record.steps.size(), other.record.steps.size());
    for (size_t i = 0; i < mine.record.steps.size(); ++i) {
      EXPECT_EQ(mine.record.steps[i].sample_paths, other.record.steps[i].sample_paths);
      EXPECT_EQ(mine.record.steps[i].sample_digest, other.record.steps[i].sample_digest);
    }
    ASSERT_EQ(mine.record.epochs.size(), other.record.epochs.size());
    for (size_t i = 0; i < mine.record.epochs.size(); ++i) {
      EXPECT_EQ(mine.record.epochs[i].validation, other.record.epochs[i].validation);
    }
  }
};

TEST_F(Retry, AnyRequestOfAStepAndOfWhatFollowsItMayFail) {
  // With a picture that is left out, and what is written at the end of an epoch.
  spec_.train_folder = CopyOfTrain();
  const fs::path victim = fs::directory_iterator(fs::directory_iterator(spec_.train_folder)->path())->path();
  fs::resize_file(victim, fs::file_size(victim) / 3);
  spec_.skip_bad = 1;
  spec_.epochs = 1;
  spec_.best_metric = "val_loss";
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  const auto alone = Run(plan.resolved, {{0, 4}}, 1);
  ASSERT_TRUE(alone.ok()) << alone.status();
  const std::vector<int64_t> live = Live();
  RunSpec spec = plan.resolved;
  int in_step = 0, in_validation = 0, elsewhere = 0;
  for (uint64_t request = 1;; request += 11) {
    SCOPED_TRACE(testing::Message() << "request " << request);
    memory::SetFailingRequests({{0, 3, request}});
    spec.recompute = request % 2 == 0 ? Some() : Recomputation();
    const auto disturbed = Run(spec, {{0, 4}}, 1);
    if (memory::FailingRequestsLeft() > 0) break;  // there are not so many
    ASSERT_TRUE(disturbed.ok()) << disturbed.status();
    ExpectTheSame(*disturbed, *alone);
    EXPECT_EQ(Live(), live) << "bytes were leaked";
    const std::vector<std::string>& notes = disturbed->record.notes;
    const auto told = [&notes](const char* text) {
      return std::any_of(notes.begin(), notes.end(), [text](const std::string& note) { return absl::StartsWith(note, text); });
    };
    in_step += told("step 3 ran out of memory on rank 0; ") ? 1 : 0;
    in_validation += told("validation after step 3 ran out of memory on rank 0; ") ? 1 : 0;
    elsewhere += notes.size() == 1 ? 1 : 0;  // of the picture
    if (HasFailure()) break;
  }
  EXPECT_GT(in_step, 20);
  EXPECT_GT(in_validation, 3);
  EXPECT_GT(elsewhere, 0) << "archives";
}

TEST_F(Retry, RanksInTroubleDiscardTheStepTogether) {
  spec_.epochs = 20;
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  const auto alone = Run(plan.resolved, {{0, 4}}, 1);
  ASSERT_TRUE(alone.ok()) << alone.status();
  const std::vector<int64_t> live = Live();
  for (const std::vector<allreduce::LeafRange>& runs : {std::vector<allreduce::LeafRange>{{0, 2}, {2, 4}}, {{0, 1}, {1, 3}, {3, 4}}}) {
    for (const int threads : {1, 2}) {
      SCOPED_TRACE(testing::Message() << runs.size() << " ranks, " << threads << " threads");
      const auto ranks = static_cast<uint64_t>(runs.size());
      std::vector<FailingRequest> failing;
      for (uint64_t step = 1; step <= 60; ++step) {
        failing.push_back({static_cast<int>(step % ranks), step, step * 7 % 85 + 1});
        // Another at the same time, and one while the step is taken again.
        if (step % 5 == 0) failing.push_back({static_cast<int>((step + 1) % ranks), step, step * 11 % 85 + 1});
        if (step % 7 == 0) failing.push_back({static_cast<int>(step % ranks), step, step * 7 % 85 + 2});
      }
      memory::SetFailingRequests(failing);
      const auto disturbed = Run(plan.resolved, runs, threads);
      ASSERT_TRUE(disturbed.ok()) << disturbed.status();
      EXPECT_LT(memory::FailingRequestsLeft(), failing.size() / 10);
      ExpectTheSame(*disturbed, *alone);
      EXPECT_EQ(Live(), live) << "bytes were leaked";
      EXPECT_GT(disturbed->record.notes.size(), 55u);
    }
  }
}

// Asks for what there cannot be, once, and does without: as a library that has another way.
class Swallowing final : public Record {
 public:
  void Enter(const char* phase, uint64_t step) override {
    if (std::string(phase) != "compute" || step != 2 || swallowed_) return;
    swallowed_ = true;
    EXPECT_THROW(at::empty({int64_t{1} << 55}), c10::OutOfMemoryError);
  }

 private:
  bool swallowed_ = false;
};

TEST_F(Retry, ARefusalThatALibrarySwallowedMakesTheStepBad) {
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  const auto alone = Run(plan.resolved, {{0, 4}}, 1);
  ASSERT_TRUE(alone.ok()) << alone.status();
  Swallowing record;
  RunSpec spec = plan.resolved;
  spec.scratch = absl::StrCat(scratch_, "/swallowing");
  fs::create_directories(spec.scratch);
  const auto run = RunJob(spec, files_, nullptr, nullptr, storage_, record);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_THAT(record.notes, ElementsAre(AllOf(HasSubstr("step 2 ran out of memory on rank 0; "),
                                              HasSubstr("taken again after kept memory was given back"))));
  EXPECT_EQ(Hashes(record), Hashes(alone->record));
}

TEST_F(Retry, WhereNothingIsLeftToDoTheJobFailsAndSaysWhatWasMissing) {
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  RunSpec spec = plan.resolved;
  spec.next = {Some(), Some()};
  for (const bool allowed : {true, false}) {
    spec.remedies = allowed;
    memory::SetFailingRequests(std::vector<FailingRequest>(100, FailingRequest{1, 2, 40}));
    const auto failed = Run(spec, {{0, 2}, {2, 4}}, 2);
    ASSERT_TRUE(failed.ok()) << failed.status();
    EXPECT_EQ(failed->run.ending, Ending::kOutOfMemory);
    EXPECT_EQ(failed->record.steps.size(), 1u);
    EXPECT_THAT(failed->run.reason, AllOf(HasSubstr("step 2 ran out of memory on rank 1; rank 1: "), HasSubstr(" asked for "),
                                          HasSubstr("nothing that keeps the bits is left"), HasSubstr("A batch of 8, ")));
    std::vector<std::string> remedies;
    for (const std::string& note : failed->record.notes) remedies.push_back(note.substr(note.rfind("; ") + 2));
    if (allowed) {
      EXPECT_THAT(remedies,
                  ElementsAre("taken again after kept memory was given back", "taken again on 1 thread, and so from now on",
                              "taken again with planned recomputation 1, and so from now on",
                              "taken again with planned recomputation 2, and so from now on", HasSubstr("taken again as it is, try 1 of 3"),
                              HasSubstr("taken again as it is, try 2 of 3"), HasSubstr("taken again as it is, try 3 of 3")));
    } else {
      EXPECT_THAT(remedies, ElementsAre("taken again after kept memory was given back", HasSubstr("taken again as it is, try 1 of 3"),
                                        HasSubstr("taken again as it is, try 2 of 3"), HasSubstr("taken again as it is, try 3 of 3")));
    }
  }
}

TEST_F(Retry, UnderALimitForOneThreadTwoBecomeOne) {
  spec_.epochs = 20;
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  RunSpec spec = plan.resolved;
  spec.memory_limit = spec.tensor_bytes = 1 << 30;
  spec.next.clear();
  memory::CpuTensorPool().ResetPeak();
  const auto alone = Run(spec, {{0, 4}}, 1);
  ASSERT_TRUE(alone.ok()) << alone.status();
  const memory::BlockPool::Usage usage = memory::CpuTensorPool().GetUsage();
  const int64_t beside = spec.tensor_bytes - usage.limit_bytes;  // what the sums take
  memory::CpuTensorPool().SetLimit(0);
  spec.tensor_bytes = usage.peak_bytes + usage.peak_bytes / 50 + beside;
  const auto both = Run(spec, {{0, 4}}, 2);
  ASSERT_TRUE(both.ok()) << both.status();
  ExpectTheSame(*both, *alone);
  EXPECT_THAT(both->record.notes, Contains(HasSubstr("taken again on 1 thread")));
  EXPECT_THAT(both->record.notes, Contains(AllOf(HasSubstr("activations "), HasSubstr("largest layers: "))));
  // And under one that no thread can do with.
  spec.tensor_bytes = usage.peak_bytes * 9 / 10 + beside;
  const auto failed = Run(spec, {{0, 4}}, 2);
  ASSERT_TRUE(failed.ok()) << failed.status();
  EXPECT_EQ(failed->run.ending, Ending::kOutOfMemory);
  EXPECT_THAT(failed->run.reason, AllOf(HasSubstr("A memory.limit of "), HasSubstr("MiB would have held this request")));
  // The batch that is named as one that would do does.
  int batch = 0;
  const std::string& reason = failed->run.reason;
  const size_t at = reason.find("a batch of ");
  ASSERT_NE(at, std::string::npos) << reason;
  ASSERT_TRUE(absl::SimpleAtoi(reason.substr(at + 11, reason.find(',', at) - at - 11), &batch)) << reason;
  EXPECT_LT(batch, spec.batch);
  EXPECT_GT(batch, 0);
  const int64_t bytes = spec.tensor_bytes;
  spec_.batch = batch;
  spec = Plan().resolved;
  spec.memory_limit = 1 << 30;
  spec.tensor_bytes = bytes;
  spec.next.clear();
  const auto smaller = Run(spec, {{0, 4}}, 1);
  ASSERT_TRUE(smaller.ok()) << smaller.status();
  EXPECT_EQ(smaller->run.ending, Ending::kDone) << smaller->run.reason;
}

TEST_F(Retry, APassThatTrainsNothingIsMadeAgain) {
  spec_.validation_folder.clear();
  for (const JobKind kind : {JobKind::kEvaluate, JobKind::kPredict}) {
    spec_.kind = kind;
    const PlanOutcome plan = Plan();
    ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
    const auto read = [&] {
      std::ifstream file(absl::StrCat(scratch_, "/run1.1.0/predictions.csv"));
      return std::string(std::istreambuf_iterator<char>(file), {});
    };
    const auto alone = Run(plan.resolved, {{0, 4}}, 1);
    ASSERT_TRUE(alone.ok()) << alone.status();
    const std::string predictions = read();
    EXPECT_EQ(predictions.empty(), kind == JobKind::kEvaluate);
    memory::SetFailingRequests({{0, 0, 150}});
    const auto disturbed = Run(plan.resolved, {{0, 4}}, 1);
    ASSERT_TRUE(disturbed.ok()) << disturbed.status();
    EXPECT_EQ(memory::FailingRequestsLeft(), 0u);
    EXPECT_EQ(disturbed->run.ending, Ending::kDone) << disturbed->run.reason;
    EXPECT_EQ(disturbed->run.result.loss, alone->run.result.loss);
    EXPECT_EQ(disturbed->run.result.samples, alone->run.result.samples);
    EXPECT_EQ(read(), predictions);
    EXPECT_THAT(disturbed->record.notes, ElementsAre(HasSubstr("the pass ran out of memory on rank 0: validate ")));
    memory::SetFailingRequests(std::vector<FailingRequest>(1000, FailingRequest{0, 0, 150}));
    EXPECT_EQ(Run(plan.resolved, {{0, 4}}, 1)->run.ending, Ending::kDone) << "counted on from the pass before: it comes once";
  }
}

TEST_F(Retry, OutsideOfStepsItIsAClearFailure) {
  const PlanOutcome plan = Plan();
  ASSERT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
  memory::CpuTensorPool().SetLimit(4 << 10);
  const auto failed = Run(plan.resolved, {{0, 4}}, 1);
  ASSERT_TRUE(failed.ok()) << failed.status();
  EXPECT_EQ(failed->run.ending, Ending::kOutOfMemory);
  EXPECT_THAT(failed->run.reason, AllOf(HasSubstr("rank 0, outside of steps: out of memory: "), HasSubstr("bytes asked for")));
  const auto other = Run(plan.resolved, {{0, 2}, {2, 4}}, 1);
  EXPECT_EQ(other.status().code(), absl::StatusCode::kResourceExhausted) << "rank 1 does not end the job";
}

}  // namespace
}  // namespace lockstep
