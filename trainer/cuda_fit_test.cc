// Planning for a CUDA device, without one.
#include "trainer/cuda_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "trainer/loaded_model.h"
#include "trainer/training_fixture.h"

namespace lockstep {
namespace {

using memory::Category;
using testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;

class CudaFitTest : public Training {
 protected:
  void SetUp() override {
    Training::SetUp();
    spec_.device = Device::kCuda;
    spec_.plan_only = true;
    spec_.validation_folder.clear();
    // So large that its activations are many segments of the device's allocator.
    spec_.batch = 10'000;
    spec_.virtual_replicas = 4;
    spec_.steps = 1;
  }

  PlanOutcome Planned(int64_t limit = 0) {
    spec_.memory_limit = limit;
    return Plan();
  }
  PlanOutcome PlannedWell(int64_t limit = 0) {
    PlanOutcome plan = Planned(limit);
    EXPECT_TRUE(plan.errors.empty()) << absl::StrJoin(plan.errors, "\n");
    if (!plan.profile) plan.profile.emplace();
    return plan;
  }
};

// What is live and what is reserved, request by request, in a few lines of the test's own.
struct ByHand {
  memory::CudaAllocator allocator;
  void Hold(const std::vector<std::pair<Category, int64_t>>& blocks) {
    for (const auto& [category, bytes] : blocks) ASSERT_TRUE(allocator.Allocate(bytes).has_value());
  }
  void Step(const memory::Trace& trace) {
    std::map<int32_t, int32_t> held;
    int32_t requests = 0;
    for (const memory::Trace::Event& event : trace.events) {
      if (event.release) {
        if (held.at(event.block) != memory::CudaAllocator::kNoBlock) allocator.Release(held.at(event.block));
        held.erase(event.block);
      } else {
        held[requests++] = *allocator.Allocate(event.bytes);
      }
    }
    for (const auto& [request, handle] : held) {
      if (handle != memory::CudaAllocator::kNoBlock) allocator.Release(handle);
    }
  }
};

TEST_F(CudaFitTest, TheDeviceTakesWhatTheReplayedStepReservesAndTheBookedConstants) {
  const PlanOutcome plan = PlannedWell();
  spec_ = plan.resolved;
  const absl::StatusOr<LoadedModel> loaded = LoadModel(model_, spec_.precision);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const absl::StatusOr<Recipe> recipe = ReadJobRecipe(spec_, *loaded, kClasses);
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  const auto trial = Trial::Create(spec_, *loaded, *recipe);
  ASSERT_TRUE(trial.ok()) << trial.status();
  const auto pass = (*trial)->Record({});
  ASSERT_TRUE(pass.ok()) << pass.status();
  const int64_t channels = loaded->model->input_shape().back();
  const int64_t pictures = spec_.micro_batch * (spec_.image.height * spec_.image.width * channels * 4 + 8);
  const auto gradient = static_cast<int64_t>((*trial)->gradients().bytes());
  const memory::CudaConstants constants = memory::CudaConstantsOf(0);

  std::vector<std::pair<Category, int64_t>> blocks = memory::WorkspaceBlocks(constants);
  int64_t state = 0;
  for (const auto& [category, bytes] : (*trial)->state_blocks()) {
    blocks.emplace_back(category, bytes);
    state += bytes;
  }
  // Four leaves, one after another: the sum of the first two is where all end up, that of the others beside it.
  for (int i = 0; i < 2; ++i) blocks.emplace_back(Category::kGradients, gradient);
  for (int i = 0; i < 2; ++i) blocks.emplace_back(Category::kInputPipeline, pictures);
  ByHand hand;
  hand.Hold(blocks);
  const int64_t held = hand.allocator.usage().allocated;
  for (int step = 0; step < 3; ++step) hand.Step(pass->At(spec_.micro_batch));

  const MemoryProfile& profile = *plan.profile;
  EXPECT_EQ(profile.device, Device::kCuda);
  EXPECT_EQ(profile.threads, 1);
  EXPECT_EQ(profile.resident_bytes, hand.allocator.usage().peak_reserved + constants.context_bytes);
  EXPECT_EQ(profile.peak_bytes, hand.allocator.usage().peak_allocated);
  EXPECT_EQ(profile.bytes_per_further_thread, hand.allocator.usage().peak_allocated - held);
  EXPECT_EQ(profile.peak.Total(), profile.resident_bytes);
  EXPECT_EQ(profile.peak[Category::kRuntime], constants.context_bytes);
  EXPECT_GE(profile.peak[Category::kWorkspace], (32 + 32 + 256) * kMiB);
  EXPECT_GE(profile.peak[Category::kParameters] + profile.peak[Category::kOptimizer], state);
  EXPECT_EQ(profile.peak[Category::kCommunication], 0);
  EXPECT_EQ(profile.peak[Category::kCheckpointCopies], 0) << "they are on the host";
  EXPECT_THAT(profile.at_peak, testing::MatchesRegex("(forward|backward) .*"));
  EXPECT_FALSE(profile.timeline_bytes.empty());

  EXPECT_EQ(profile.host[Category::kRuntime], (100 << 20) + constants.host_bytes);
  EXPECT_EQ(profile.host[Category::kInputPipeline], spec_.pipeline_bytes + 2 * memory::PinnedBytes(pictures));
  EXPECT_EQ(profile.host[Category::kCheckpointCopies], (*trial)->state_bytes() + (*trial)->largest_variable_bytes());
  EXPECT_EQ(profile.host[Category::kActivations], 0);
}

TEST_F(CudaFitTest, ReplicasTakeBuffersForEachOther) {
  const PlanOutcome alone = PlannedWell();
  spec_.most_replicas = 2;
  const PlanOutcome two = PlannedWell();
  spec_.most_replicas = 4;
  const PlanOutcome four = PlannedWell();
  const memory::CudaConstants constants = memory::CudaConstantsOf(0);
  EXPECT_GE(two.profile->peak[Category::kCommunication], memory::NcclBytes(constants, 2));
  EXPECT_GE(four.profile->peak[Category::kCommunication], memory::NcclBytes(constants, 4));
  EXPECT_GT(two.profile->resident_bytes, alone.profile->resident_bytes);
  EXPECT_GT(four.profile->resident_bytes, two.profile->resident_bytes);
  EXPECT_EQ(four.profile->threads, 1);
}

TEST_F(CudaFitTest, ThreadsAndThePipelineOfTheHostAreNoRemediesOfADevice) {
  spec_.threads = 4;
  spec_.worker_memory_bytes = 1;  // of the machine that plans
  const PlanOutcome plan = PlannedWell(64LL << 30);
  EXPECT_EQ(plan.resolved.threads, 1);
  EXPECT_EQ(plan.resolved.pipeline_bytes, 256 << 20);
  for (const auto& remedy : plan.profile->remedies) EXPECT_EQ(remedy.name, "recompute");
  EXPECT_GT(plan.profile->largest_batch, 10'000);
  EXPECT_EQ(plan.resolved.tensor_bytes, (64LL << 30) - memory::CudaConstantsOf(0).context_bytes);
}

// The number in front of `word`, after the last blank.
int64_t NumberBefore(const std::string& text, const std::string& word) {
  const size_t at = text.find(word);
  int64_t number = 0;
  if (at == std::string::npos || !absl::SimpleAtoi(text.substr(text.rfind(' ', at - 1) + 1, at - text.rfind(' ', at - 1) - 1), &number)) {
    ADD_FAILURE() << "no number before \"" << word << "\" in: " << text;
  }
  return number;
}

TEST_F(CudaFitTest, WhatDoesNotFitIsComputedAgainAsFarAsNeeded) {
  const PlanOutcome plain = PlannedWell();
  const int64_t around = plain.profile->resident_bytes - plain.profile->bytes_per_further_thread;
  // As little as it can be brought down to.
  const int64_t limit = NumberBefore(absl::StrJoin(Planned(around).errors, "\n"), "MiB") * kMiB;
  ASSERT_LT(limit, plain.profile->resident_bytes);
  const PlanOutcome plan = PlannedWell(limit);
  ASSERT_FALSE(plan.profile->remedies.empty());
  EXPECT_EQ(plan.profile->remedies[0].name, "recompute");
  EXPECT_TRUE(plan.profile->remedies[0].applied);
  EXPECT_FALSE(plan.profile->remedies[0].changes_bits);
  EXPECT_EQ(plan.profile->remedies[0].resident_bytes, plan.profile->resident_bytes);
  EXPECT_LE(plan.profile->resident_bytes, limit);
  EXPECT_FALSE(plan.resolved.recompute.segments.empty());
  EXPECT_EQ(plan.resolved.micro_batch, plain.resolved.micro_batch);
  EXPECT_THAT(absl::StrJoin(plan.notes, "\n"), HasSubstr("bytes of the device"));
  spec_.remedies = false;
  EXPECT_EQ(Planned(limit).failure, Ending::kOutOfMemory);
}

TEST_F(CudaFitTest, WhatCannotFitIsRefusedWithTheLargestBatchAndTheLimitThatWould) {
  const PlanOutcome plain = PlannedWell();
  const int64_t around = plain.profile->resident_bytes - plain.profile->bytes_per_further_thread;
  const int64_t limit = around + plain.profile->bytes_per_further_thread / 8;
  const PlanOutcome refused = Planned(limit);
  ASSERT_EQ(refused.failure, Ending::kOutOfMemory);
  const std::string error = absl::StrJoin(refused.errors, "\n");
  EXPECT_THAT(error, HasSubstr("memory.limit: "));
  EXPECT_GT(refused.profile->resident_bytes, limit);
  const int64_t fits = NumberBefore(error, " samples a batch would fit");
  EXPECT_EQ(fits, refused.profile->largest_batch);
  EXPECT_LT(fits, spec_.batch);
  const int64_t enough = NumberBefore(error, "MiB") * kMiB;
  EXPECT_GT(enough, limit);
  EXPECT_LE(PlannedWell(enough).profile->resident_bytes, enough);

  spec_.batch = static_cast<int>(fits);
  EXPECT_LE(PlannedWell(limit).profile->resident_bytes, limit);
  spec_.batch = static_cast<int>(fits + fits / 4 / spec_.virtual_replicas * spec_.virtual_replicas);
  EXPECT_EQ(Planned(limit).failure, Ending::kOutOfMemory) << fits;
}

TEST_F(CudaFitTest, ALimitThatTheConstantsAloneExceedSaysSo) {
  const PlanOutcome refused = Planned(500 * kMiB);
  EXPECT_EQ(refused.failure, Ending::kOutOfMemory);
  EXPECT_EQ(refused.profile->largest_batch, 0);
  EXPECT_THAT(absl::StrJoin(refused.errors, "\n"), HasSubstr("It would fit with a limit of "));
}

TEST_F(CudaFitTest, WhereTheJobAllowsItMicroBatchesGetSmallerLast) {
  const PlanOutcome plain = PlannedWell();
  const int64_t around = plain.profile->resident_bytes - plain.profile->bytes_per_further_thread;
  const int64_t limit = around + plain.profile->bytes_per_further_thread / 8;
  spec_.allows_micro_batch = true;
  const PlanOutcome plan = PlannedWell(limit);
  EXPECT_LT(plan.resolved.micro_batch, plain.resolved.micro_batch);
  EXPECT_LE(plan.profile->resident_bytes, limit);
  const auto& remedies = plan.profile->remedies;
  ASSERT_GE(remedies.size(), 2u);
  EXPECT_EQ(remedies[0].name, "recompute");
  EXPECT_FALSE(remedies[0].applied);
  EXPECT_EQ(remedies[1].name, "micro_batch");
  EXPECT_TRUE(remedies[1].applied && remedies[1].changes_bits);
}

TEST_F(CudaFitTest, AnEvaluationHasNoGradientsAndNoCopies) {
  spec_.kind = JobKind::kEvaluate;
  const PlanOutcome plan = PlannedWell();
  EXPECT_EQ(plan.profile->peak[Category::kGradients], 0);
  EXPECT_EQ(plan.profile->host[Category::kCheckpointCopies], 0);
  EXPECT_GT(plan.profile->peak[Category::kActivations], 0);
}

}  // namespace
}  // namespace lockstep
