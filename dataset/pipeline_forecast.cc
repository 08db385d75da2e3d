#include "dataset/pipeline_forecast.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "dataset/picture_loader.h"
#include "dataset/pipeline_core.h"
#include "dataset/prefetch_tuner.h"

namespace lockstep::dataset {
namespace {

constexpr int64_t kMostPictures = 8;
constexpr absl::Duration kMostTime = absl::Milliseconds(250);
// No picture that a usual budget holds is larger.
constexpr int64_t kLargestPicture = 256 << 20;
// By then depth and threads are where they stay, or at their bounds.
constexpr int64_t kSteps = 128;
constexpr double kNever = std::numeric_limits<double>::infinity();

class Play {
 public:
  Play(const PipelineOptions& options, const PipelineShares& shares, double fill_seconds, double train_seconds, int threads,
       int64_t batches)
      : leaves_(std::max(options.virtual_replica_count, 1)),
        batches_(batches),
        end_(options.one_pass ? batches : std::numeric_limits<int64_t>::max()),
        fill_seconds_(fill_seconds),
        train_seconds_(train_seconds),
        tuner_(BoundsOf(options, shares)),
        fill_left_(fill_seconds) {
    threads = std::clamp(threads, 1, leaves_);
    for (int i = 0; i < threads; ++i) takers_.push_back({leaves_ * i / threads, leaves_ * (i + 1) / threads, leaves_ * i / threads});
  }

  void Run() {
    while (step_ * leaves_ < batches_) {
      StartAll();
      Advance();
    }
  }

  int most_held() const { return most_held_; }
  int most_threads() const { return most_threads_; }

 private:
  using Waited = PrefetchTuner::Waited;
  struct Taker {
    int first = 0, end = 0, leaf = 0;
    double busy_until = kNever;
    bool waits = false;
    Waited waited = Waited::kNot;
  };

  bool CanOpen() const { return opened_ < end_ && held_ < tuner_.depth(); }
  void Open() {
    if (filled_ < opened_ || !CanOpen()) return;
    ++opened_;
    most_held_ = std::max(most_held_, ++held_);
  }

  // Whoever has nothing to do asks for its next batch; whoever's batch is there takes it.
  void StartAll() {
    for (bool more = true; more;) {
      more = false;
      Open();
      for (Taker& taker : takers_) {
        if (taker.leaf == taker.end || taker.busy_until != kNever) continue;
        const int64_t batch = step_ * leaves_ + taker.leaf;
        if (!taker.waits) {
          taker.waits = true;
          taker.waited = batch < filled_ ? Waited::kNot : filled_ < opened_ || CanOpen() ? Waited::kForThreads : Waited::kForDepth;
        }
        if (batch >= filled_) continue;
        ++taken_;
        tuner_.Took(taker.waited, static_cast<int>(filled_ - taken_));
        most_threads_ = std::max(most_threads_, tuner_.threads());
        taker.waits = false;
        taker.busy_until = now_ + train_seconds_;
        more = true;
      }
    }
  }

  // To the next moment at which a batch is full or done with.
  void Advance() {
    const int threads = tuner_.threads();
    const double full = filled_ < opened_ ? now_ + fill_left_ / threads : kNever;
    double done = kNever;
    for (const Taker& taker : takers_) done = std::min(done, taker.busy_until);
    const double before = now_;
    now_ = std::min(full, done);
    if (full <= done) {
      ++filled_;
      fill_left_ = fill_seconds_;
      return;
    }
    if (full != kNever) fill_left_ -= (now_ - before) * threads;
    bool all = true;
    for (Taker& taker : takers_) {
      if (taker.busy_until <= now_) {
        taker.busy_until = kNever;
        ++taker.leaf;
        --held_;
      }
      all = all && taker.leaf == taker.end;
    }
    if (!all) return;
    ++step_;
    for (Taker& taker : takers_) taker.leaf = taker.first;
  }

  const int leaves_;
  const int64_t batches_, end_;                // that are played; that there are
  const double fill_seconds_, train_seconds_;  // of a batch, on one thread
  PrefetchTuner tuner_;
  std::vector<Taker> takers_;
  double now_ = 0, fill_left_;
  // In the order in which they are opened: those before `filled_` are full. All that was taken is.
  int64_t step_ = 0, opened_ = 0, filled_ = 0, taken_ = 0;
  int held_ = 0, most_held_ = 0, most_threads_ = 1;
};

}  // namespace

PictureCosts MeasurePictures(const ImageOptions& image, const Index& index, const std::string& folder) {
  const std::unique_ptr<FileReader> files = LocalFiles();
  BytePool pool(kLargestPicture);
  const absl::Notification stopped;
  PictureLoader loader({.image = image, .folder = folder, .tries = 1}, *files, pool, stopped);
  std::vector<float> pixels(static_cast<size_t>(image.height) * static_cast<size_t>(image.width) * static_cast<size_t>(image.channels));
  PictureCosts costs;
  const absl::Time start = absl::Now();
  const int64_t wanted = std::min<int64_t>(index.size(), kMostPictures);
  int loaded = 0;
  for (int64_t i = 0; i < wanted && absl::Now() - start < kMostTime; ++i) {
    const absl::StatusOr<SampleInfo> sample = index.Sample(i * index.size() / wanted);
    if (!sample.ok()) continue;
    const absl::Time begun = absl::Now();
    const LoadedPicture picture = loader.Load(*sample, pixels.data());
    if (!picture.status.ok()) continue;
    ++loaded;
    costs.seconds += absl::ToDoubleSeconds(absl::Now() - begun);
    costs.large_bytes = std::max(costs.large_bytes, picture.pool_bytes);
  }
  costs.seconds /= std::max(loaded, 1);
  costs.thread_bytes = loader.touched_bytes();
  return costs;
}

int64_t ForecastBytes(const PipelineOptions& options, const Sampler& sampler, const PictureCosts& picture, const Consumption& consumption) {
  const PipelineShares shares = ShareOut(options, sampler);
  const auto samples = static_cast<double>(sampler.LargestBatch());
  const int64_t steps = options.one_pass ? std::min(sampler.StepsPerEpoch(), kSteps) : kSteps;
  Play play(options, shares, samples * picture.seconds, samples * consumption.seconds_per_sample, consumption.threads,
            steps * std::max(options.virtual_replica_count, 1));
  play.Run();
  const int64_t threads = play.most_threads();
  const int64_t each = std::min(picture.thread_bytes, shares.thread_bytes) + std::min(picture.large_bytes, shares.large_bytes);
  return std::min(play.most_held() * shares.slot_bytes + threads * each, options.memory_bytes);
}

}  // namespace lockstep::dataset
