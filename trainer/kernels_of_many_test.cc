#include "trainer/kernels_of_many.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/test_folder.h"
#include "memory/cpu_allocator.h"
#include "memory/trace.h"
#include "model/test_archive.h"
#include "trainer/loaded_model.h"
#include "trainer/trial.h"

namespace lockstep {
namespace {

// Forward and backward of a 1×1, a strided 1×1 and a 3×3 convolution with bias, one after another.
class Convolutions {
 public:
  explicit Convolutions(bool input_needs_gradient) : input_needs_gradient_(input_needs_gradient) {
    for (const int64_t size : {1, 1, 3}) {
      weights_.push_back(at::randn({8, 8, size, size}).requires_grad_());
      biases_.push_back(at::randn({8}).requires_grad_());
    }
  }
  memory::Trace Record(int64_t samples) const {
    memory::Recording recording;
    Run(samples);
    return recording.Take();
  }

 private:
  void Run(int64_t samples) const {
    at::Tensor x = at::ones({samples, 8, 12, 12}).requires_grad_(input_needs_gradient_);
    for (size_t i = 0; i < weights_.size(); ++i) x = at::conv2d(x, weights_[i], biases_[i], /*stride=*/i == 1 ? 2 : 1);
    x.sum().backward();
    for (const std::vector<at::Tensor>* variables : {&weights_, &biases_}) {
      for (const at::Tensor& variable : *variables) variable.mutable_grad().reset();
    }
  }

  const bool input_needs_gradient_;
  std::vector<at::Tensor> weights_, biases_;
};

class KernelsOfMany : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasMKLDNN()) GTEST_SKIP() << "this libtorch has one kernel only";
    memory::CpuTensorPool();
    at::set_num_threads(1);
  }
};

TEST_F(KernelsOfMany, AFewSamplesTakeTheKernelsOfMany) {
  const Convolutions convolutions(true);
  const memory::Trace many = convolutions.Record(kManySamples), more = convolutions.Record(kManySamples * 3);
  for (const bool as_many : {false, true}) {
    std::optional<ScopedKernelsOfMany> kernels;
    if (as_many) kernels.emplace();
    const absl::StatusOr<memory::AffineTrace> fit = memory::AffineTrace::Fit(convolutions.Record(2), 2, convolutions.Record(3), 3);
    ASSERT_TRUE(fit.ok()) << fit.status();
    EXPECT_EQ(fit->Check(many, kManySamples).ok(), as_many);
    EXPECT_EQ(fit->Check(more, kManySamples * 3).ok(), as_many);
    EXPECT_TRUE(!kernels || kernels->all_taken());
  }
  EXPECT_EQ(at::get_num_threads(), 1);
}

TEST_F(KernelsOfMany, SoDoesTheFirstConvolutionOfAThread) {
  const Convolutions convolutions(true);
  const memory::Trace many = convolutions.Record(kManySamples);
  absl::StatusOr<memory::AffineTrace> fit = absl::UnknownError("");
  std::thread([&] {
    const ScopedKernelsOfMany kernels;
    const memory::Trace two = convolutions.Record(2);
    fit = memory::AffineTrace::Fit(two, 2, convolutions.Record(3), 3);
  }).join();
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_TRUE(fit->Check(many, kManySamples).ok());
}

TEST_F(KernelsOfMany, ItIsSaidWhereAConvolutionCouldNotBeTold) {
  const Convolutions convolutions(false);
  ScopedKernelsOfMany kernels;
  convolutions.Record(2);
  EXPECT_FALSE(kernels.all_taken());
}

// The first layer with a gradient is a 1×1 convolution.
TEST_F(KernelsOfMany, WhereItCouldNotBeToldManySamplesAreRecorded) {
  TestArchive archive =
      TestArchive::Sequential({nullptr, 12, 12, 3}, {{"Conv2D", {{"filters", 8}, {"kernel_size", {3, 3}}, {"trainable", false}}},
                                                     {"Conv2D", {{"filters", 8}, {"kernel_size", {1, 1}}}},
                                                     {"Conv2D", {{"filters", 8}, {"kernel_size", {1, 1}}}},
                                                     {"GlobalAveragePooling2D", Json::object()},
                                                     {"Dense", {{"units", 3}}}});
  archive.Filled("layers/conv2d/vars/0", {3, 3, 3, 8}, 0.1).Filled("layers/conv2d/vars/1", {8}, 0);
  for (const char* layer : {"layers/conv2d_1", "layers/conv2d_2"}) {
    archive.Filled(std::string(layer) + "/vars/0", {1, 1, 8, 8}, 0.1).Filled(std::string(layer) + "/vars/1", {8}, 0);
  }
  archive.Filled("layers/dense/vars/0", {8, 3}, 0.1).Filled("layers/dense/vars/1", {3}, 0);
  const TestFolder folder;
  RunSpec spec;
  spec.model_file = folder.path() + "/model.keras";
  std::ofstream(spec.model_file, std::ios::binary) << archive.Bytes();
  spec.kind = JobKind::kFit;
  spec.image.height = spec.image.width = 12;
  spec.virtual_replicas = 1;
  spec.optimizer = "sgd";
  spec.loss = "sparse_categorical_crossentropy";
  const absl::StatusOr<LoadedModel> loaded = LoadModel(spec.model_file, "float32");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const absl::StatusOr<Recipe> recipe = ReadJobRecipe(spec, *loaded, 3);
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  for (const int samples : {4, 16, 50}) {
    spec.batch = spec.micro_batch = samples;
    const auto trial = Trial::Create(spec, *loaded, *recipe);
    ASSERT_TRUE(trial.ok()) << trial.status();
    const auto pass = (*trial)->Record({});
    ASSERT_TRUE(pass.ok()) << pass.status();
    EXPECT_TRUE(pass->extends()) << pass->method();
    EXPECT_EQ(pass->method().find("steps of 16 and 17 samples") == 0, samples >= kManySamples) << pass->method();
    EXPECT_EQ(pass->PeakAt(samples).bytes, (*trial)->Measure({})->bytes) << samples << " samples";
  }
}

}  // namespace
}  // namespace lockstep
