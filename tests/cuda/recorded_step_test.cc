// A training step as planning records it, written for micro-batches that fill the large pool, on the model of the CUDA allocator and on the
// real one.

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "memory/cuda_allocator.h"
#include "tests/cuda/side_by_side.h"
#include "trainer/loaded_model.h"
#include "trainer/trial.h"

namespace lockstep {
namespace {

constexpr int kClasses = 3;

class RecordedStep : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    RunSpec spec;
    spec.kind = JobKind::kFit;
    spec.model_file = LOCKSTEP_TEST_DATA "/tiny_residual.keras";
    spec.image.height = spec.image.width = 24;
    spec.virtual_replicas = 1;
    spec.batch = spec.micro_batch = GetParam();
    spec.optimizer = "adam";
    const absl::StatusOr<LoadedModel> loaded = LoadModel(spec.model_file, "float32");
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    const absl::StatusOr<Recipe> recipe = ReadJobRecipe(spec, *loaded, kClasses);
    ASSERT_TRUE(recipe.ok()) << recipe.status();
    const auto trial = Trial::Create(spec, *loaded, *recipe);
    ASSERT_TRUE(trial.ok()) << trial.status();
    const auto pass = (*trial)->Record({});
    ASSERT_TRUE(pass.ok()) << pass.status();
    step_ = pass->At(GetParam());
    state_ = (*trial)->state_blocks();
  }

  // Both, with what ReplayOnCuda says. Whether it fits.
  bool Compare(int steps, int64_t limit, RealAllocator::LimitBy by) {
    SCOPED_TRACE(testing::Message() << steps << " steps, limit " << limit);
    const memory::CudaReplay said = memory::ReplayOnCuda(state_, step_, steps, limit);
    SideBySide both(limit, by);
    EXPECT_EQ(both.Replay(state_, step_, steps), said.fits);
    EXPECT_EQ(both.difference(), "");
    EXPECT_EQ(both.real().peak_allocated, said.peak_allocated);
    EXPECT_EQ(both.real().peak_reserved, said.peak_reserved);
    return said.fits;
  }

  memory::Trace step_;
  std::vector<std::pair<memory::Category, int64_t>> state_;
};

TEST_P(RecordedStep, TakesOfTheRealAllocatorWhatTheModelSays) {
  using enum RealAllocator::LimitBy;
  for (const int steps : {1, 2, 5}) EXPECT_TRUE(Compare(steps, 0, kFraction));
  const memory::CudaReplay all = memory::ReplayOnCuda(state_, step_, 3, 0);
  EXPECT_GT(all.peak_allocated, GetParam() * 24 * 24 * int64_t{4});
  for (const auto by : {kFraction, kDevice}) {
    EXPECT_TRUE(Compare(3, all.peak_reserved, by));
    EXPECT_FALSE(Compare(3, all.peak_allocated / 2, by));
    // Whether it fits in between is for the allocator to say.
    for (int i = 1; i < 16; ++i) Compare(3, all.peak_allocated + (all.peak_reserved - all.peak_allocated) * i / 16, by);
  }
}

INSTANTIATE_TEST_SUITE_P(OfSamples, RecordedStep, testing::Values(2, 15, 16, 64, 333, 1024, 5000));

}  // namespace
}  // namespace lockstep
