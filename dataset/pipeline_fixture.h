#pragma once
// A small data set, its index, and pipelines over it, for the tests of the pipeline.

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/test_folder.h"
#include "dataset/index.h"
#include "dataset/pipeline.h"
#include "dataset/sampler.h"
#include "dataset/test_pictures.h"
#include "gtest/gtest.h"

namespace lockstep::dataset {

// What Next gave, kept after the batch is gone.
struct Seen {
  uint64_t epoch;
  int64_t step;
  int virtual_replica;
  std::vector<int64_t> ids, labels;
  std::vector<float> images;
  uint64_t digest;
  std::vector<std::string> bad;

  bool operator==(const Seen&) const = default;
  bool operator<(const Seen& o) const { return std::tie(epoch, step, virtual_replica) < std::tie(o.epoch, o.step, o.virtual_replica); }
};

inline Seen See(const Batch& batch, int virtual_replica) {
  Seen seen{batch.epoch(), batch.step(), virtual_replica, {}, {}, {}, batch.digest(), {}};
  seen.ids.assign(batch.sample_ids().begin(), batch.sample_ids().end());
  seen.labels.assign(batch.labels(), batch.labels() + batch.size());
  const size_t floats = batch.size() * static_cast<size_t>(batch.height() * batch.width() * batch.channels());
  seen.images.assign(batch.images(), batch.images() + floats);
  for (const BadPicture& bad : batch.bad()) seen.bad.push_back(absl::StrCat(bad.position, ": ", bad.reason));
  return seen;
}

class PipelineTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 22; ++i) {
      const int size = 20 + i;
      const std::string name = absl::StrCat(i % 2 == 0 ? "cat/" : "dog/", i + 100);
      if (i % 5 == 0) {
        data_.Write(name + ".png", EncodePng(NoisyPixels(size, 2 * size, 3, i)));
      } else {
        data_.Write(name + ".jpg", EncodeJpeg(SmoothPixels(2 * size, size, i % 3 == 0 ? 1 : 3, i)));
      }
    }
  }

  void Open(SamplerOptions sampling) {
    const auto summary = BuildIndex(data_.path(), out_ / "index", {});
    ASSERT_TRUE(summary.ok()) << summary.status();
    index_ = std::move(*Index::Open(out_ / "index"));
    sampling.num_samples = index_->size();
    sampler_ = std::move(*Sampler::Create(sampling));
    options_.image = {.height = 16, .width = 12, .scale = 1.0 / 255};
    options_.virtual_replica_count = sampling.virtual_replicas;
    options_.one_pass = true;
    options_.retry_pause = absl::ZeroDuration();
  }
  std::unique_ptr<Pipeline> Start() {
    auto pipeline = Pipeline::Create(options_, *index_, data_.path(), *sampler_);
    EXPECT_TRUE(pipeline.ok()) << pipeline.status();
    return std::move(*pipeline);
  }
  int64_t Least() { return MinimumBytes(options_, *sampler_); }

  // All batches of `steps` steps, asked for by several threads as a trainer's leaves are.
  std::vector<Seen> Drain(Pipeline& pipeline, int64_t steps, int threads) {
    const int first = options_.first_virtual_replica, count = options_.virtual_replica_count;
    std::vector<std::vector<Seen>> seen(static_cast<size_t>(threads));
    std::vector<std::thread> consumers;
    for (int t = 0; t < threads; ++t) {
      consumers.emplace_back([&, t] {
        for (int64_t step = 0; step < steps; ++step) {
          for (int v = first + count * t / threads; v < first + count * (t + 1) / threads; ++v) {
            const absl::StatusOr<Batch> batch = pipeline.Next(v);
            ASSERT_TRUE(batch.ok()) << batch.status();
            seen[static_cast<size_t>(t)].push_back(See(*batch, v));
            const PipelineStats stats = pipeline.stats();
            EXPECT_LE(stats.bytes, options_.memory_bytes);
            EXPECT_GT(stats.bytes, 0);
          }
        }
      });
    }
    for (std::thread& consumer : consumers) consumer.join();
    std::vector<Seen> all;
    for (const auto& some : seen) all.insert(all.end(), some.begin(), some.end());
    std::sort(all.begin(), all.end());
    return all;
  }

  const TestFolder data_, out_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<Sampler> sampler_;
  PipelineOptions options_;
};

}  // namespace lockstep::dataset
