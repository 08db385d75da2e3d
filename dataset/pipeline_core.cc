#include "dataset/pipeline_core.h"

#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/failpoint.h"

namespace lockstep::dataset {
namespace {

size_t ImageFloats(const ImageOptions& image) {
  return static_cast<size_t>(image.height) * static_cast<size_t>(image.width) * static_cast<size_t>(image.channels);
}

}  // namespace

PipelineShares ShareOut(const PipelineOptions& options, const Sampler& sampler) {
  PipelineShares shares;
  const auto images = static_cast<int64_t>(ImageFloats(options.image) * sizeof(float)) * sampler.LargestBatch();
  shares.slot_bytes = std::max<int64_t>((images + 63) / 64 * 64, 64);
  shares.thread_bytes = PictureLoader::OwnBytes(options.image);
  const int64_t beside_one_batch = options.memory_bytes - shares.slot_bytes;
  shares.threads = static_cast<int>(std::clamp<int64_t>(beside_one_batch / shares.thread_bytes, 1, std::max(options.threads, 1)));
  const int64_t rest = std::max<int64_t>(beside_one_batch - shares.threads * shares.thread_bytes, 0);
  const int64_t most = int64_t{std::max(options.steps_ahead, 1)} * std::max(options.virtual_replica_count, 1);
  const int64_t further = std::min(rest / 2 / shares.slot_bytes, most - 1);
  shares.most_ahead = static_cast<int>(1 + further);
  shares.shared_bytes = rest;
  shares.large_bytes = rest - further * shares.slot_bytes;
  return shares;
}

PrefetchTuner::Bounds BoundsOf(const PipelineOptions& options, const PipelineShares& shares) {
  return {.least_depth = std::min(std::max(options.virtual_replica_count, 1), shares.most_ahead),
          .most_depth = shares.most_ahead,
          .most_threads = shares.threads};
}

PipelineCore::PipelineCore(const PipelineOptions& options, const Index& index, std::string folder, const Sampler& sampler)
    : options_(options),
      shares_(ShareOut(options, sampler)),
      index_(index),
      sampler_(sampler),
      local_files_(LocalFiles()),
      load_options_{.image = options.image, .folder = std::move(folder), .retry_pause = options.retry_pause},
      shared_(shares_.shared_bytes, shares_.large_bytes),
      tuner_(BoundsOf(options, shares_)),
      epoch_(options.first_epoch),
      step_(options.first_step) {
  absl::MutexLock lock(&mutex_);
  ended_ = sampler_.StepsPerEpoch() == 0 || options_.virtual_replica_count == 0;
}

void PipelineCore::Start() {
  for (int i = 0; i < shares_.threads; ++i) threads_.emplace_back([this, i] { Fill(i); });
}

void PipelineCore::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    if (stopped_) return;
    stopped_ = true;
  }
  shared_.Close();
  stop_.Notify();
}

void PipelineCore::Join() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool PipelineCore::HasWork() const {
  if (stopped_ || CanOpen()) return true;
  return std::any_of(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->next < slot->ids.size(); });
}

bool PipelineCore::TakeBuffer(FloatBuffer& buffer) {
  if (!free_.empty()) {
    buffer = std::move(free_.back());
    free_.pop_back();
    return true;
  }
  // The first has bytes of its own.
  if (buffers_ > 0 && !shared_.TryAcquire(shares_.slot_bytes)) return false;
  buffer.reset(static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(shares_.slot_bytes))));
  if (buffer != nullptr) {
    ++buffers_;
  } else if (buffers_ > 0) {
    shared_.Release(shares_.slot_bytes);
  }
  return true;
}

void PipelineCore::ReturnBuffer(FloatBuffer buffer) {
  --held_;
  if (buffer == nullptr) return;
  if (buffers_ > 1 && (buffers_ > tuner_.depth() || shared_.is_waited_for())) {
    --buffers_;
    shared_.Release(shares_.slot_bytes);
  } else {
    free_.push_back(std::move(buffer));
  }
}

// The next batch in the order in which training asks: step by step, virtual replica by virtual replica.
void PipelineCore::OpenSlot() {
  auto slot = std::make_unique<BatchSlot>();
  if (!TakeBuffer(slot->images)) return;
  slot->epoch = epoch_;
  slot->step = step_;
  slot->virtual_replica = options_.first_virtual_replica + virtual_replica_;
  slot->image = options_.image;
  slot->ids = sampler_.Samples(epoch_, step_, slot->virtual_replica);
  // A drill for the ledger.
  if (step_ > 0 && LOCKSTEP_FAILPOINT("dataset.previous_batch")) slot->ids = sampler_.Samples(epoch_, step_ - 1, slot->virtual_replica);
  slot->labels.resize(slot->ids.size());
  slot->pictures.resize(slot->ids.size());
  if (slot->images == nullptr) {
    slot->pictures[0].status = absl::ResourceExhaustedError(absl::StrCat("no memory for a batch of ", shares_.slot_bytes, " bytes"));
    slot->next = slot->done = slot->ids.size();
  }
  if (slot->complete()) Seal(*slot);
  slots_.push_back(std::move(slot));
  ++held_;
  AdvanceCursor();
}

void PipelineCore::AdvanceCursor() {
  if (++virtual_replica_ < options_.virtual_replica_count) return;
  virtual_replica_ = 0;
  if (++step_ < sampler_.StepsPerEpoch()) return;
  step_ = 0;
  ++epoch_;
  ended_ = options_.one_pass;
}

PipelineCore::Work PipelineCore::TakeWork() {
  for (const auto& slot : slots_) {
    if (slot->next < slot->ids.size()) return {slot.get(), slot->next++};
  }
  if (CanOpen()) OpenSlot();
  return {};
}

// Sums up in the order of the pictures, whichever was loaded first.
void PipelineCore::Seal(BatchSlot& slot) {
  std::vector<uint64_t> hashes;
  for (size_t i = 0; i < slot.pictures.size(); ++i) {
    LoadedPicture& picture = slot.pictures[i];
    hashes.push_back(picture.hash);
    if (slot.status.ok()) slot.status = picture.status;
    if (!picture.bad.empty()) slot.bad.push_back({i, std::move(picture.bad)});
  }
  slot.digest = XXH3_64bits_withSeed(hashes.data(), hashes.size() * sizeof(uint64_t),
                                     XXH3_64bits(slot.ids.data(), slot.ids.size() * sizeof(int64_t)));
}

void PipelineCore::Fill(int thread) {
  PictureLoader loader(load_options_, options_.reader != nullptr ? *options_.reader : *local_files_, shared_, stop_);
  const size_t floats = ImageFloats(options_.image);
  int64_t touched = 0;
  const auto wanted = [this, thread]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopped_ || (thread < tuner_.threads() && HasWork()); };
  for (;;) {
    Work work;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&wanted));
      if (stopped_) return;
      work = TakeWork();
    }
    if (work.slot == nullptr) continue;
    BatchSlot& slot = *work.slot;
    const absl::Time start = absl::Now();
    const absl::StatusOr<SampleInfo> sample = index_.Sample(slot.ids[work.position]);
    slot.pictures[work.position] =
        sample.ok() ? loader.Load(*sample, slot.images.get() + floats * work.position) : LoadedPicture{sample.status(), "", 0};
    slot.labels[work.position] = sample.ok() ? sample->label : -1;
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    absl::MutexLock lock(&mutex_);
    touched_bytes_ += loader.touched_bytes() - touched;
    touched = loader.touched_bytes();
    stats_.decode_seconds += seconds;
    ++stats_.images;
    if (++slot.done == slot.ids.size()) Seal(slot);
  }
}

BatchSlot* PipelineCore::Find(int virtual_replica) const {
  for (const auto& slot : slots_) {
    if (slot->virtual_replica == virtual_replica) return slot.get();
  }
  return nullptr;
}

absl::StatusOr<std::unique_ptr<BatchSlot>> PipelineCore::Take(int virtual_replica) {
  const int mine = virtual_replica - options_.first_virtual_replica;
  if (mine < 0 || mine >= options_.virtual_replica_count) {
    return absl::InternalError(absl::StrCat("virtual replica ", virtual_replica, " is not one of this pipeline's"));
  }
  const absl::Time start = absl::Now();
  absl::MutexLock lock(&mutex_);
  const auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    const BatchSlot* slot = Find(virtual_replica);
    return stopped_ || (slot != nullptr ? slot->complete() : ended_);
  };
  PrefetchTuner::Waited waited = PrefetchTuner::Waited::kNot;
  if (!ready()) {
    waited = HasWork() || ended_      ? PrefetchTuner::Waited::kForThreads
             : held_ < tuner_.depth() ? PrefetchTuner::Waited::kForBytes
                                      : PrefetchTuner::Waited::kForDepth;
  }
  ++stats_.waiting;
  mutex_.Await(absl::Condition(&ready));
  --stats_.waiting;
  stats_.wait_seconds += absl::ToDoubleSeconds(absl::Now() - start);
  if (stopped_) return absl::CancelledError("the input pipeline was stopped");
  const BatchSlot* found = Find(virtual_replica);
  if (found == nullptr) return absl::OutOfRangeError("the epoch has ended");
  const auto at = std::find_if(slots_.begin(), slots_.end(), [found](const auto& slot) { return slot.get() == found; });
  std::unique_ptr<BatchSlot> slot = std::move(*at);
  slots_.erase(at);
  tuner_.Took(waited, Ready());
  if (slot->status.ok()) return slot;
  ReturnBuffer(std::move(slot->images));
  return slot->status;
}

void PipelineCore::Return(std::unique_ptr<BatchSlot> slot) {
  absl::MutexLock lock(&mutex_);
  ReturnBuffer(std::move(slot->images));
}

int PipelineCore::Ready() const {
  return static_cast<int>(std::count_if(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->complete(); }));
}

PipelineStats PipelineCore::stats() const {
  absl::MutexLock lock(&mutex_);
  PipelineStats stats = stats_;
  stats.bytes = (buffers_ > 0 ? shares_.slot_bytes : 0) + shared_.used() + touched_bytes_;
  stats.depth = Ready();
  stats.most_depth = tuner_.depth();
  stats.threads = tuner_.threads();
  return stats;
}

}  // namespace lockstep::dataset
