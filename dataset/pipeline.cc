#include "dataset/pipeline.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "dataset/decode.h"
#include "dataset/resize.h"

namespace lockstep::dataset {
namespace {

constexpr int kMostAhead = 64;             // batches, whatever the budget
constexpr int64_t kScratchEach = 4 << 20;  // a thread's share for one file and its pixels; larger pictures take turns
constexpr int kReadTries = 3;
constexpr absl::Duration kRetryPause = absl::Milliseconds(50);

size_t ImageFloats(const ImageOptions& image) {
  return static_cast<size_t>(image.height) * static_cast<size_t>(image.width) * static_cast<size_t>(image.channels);
}

int64_t BatchBytes(const ImageOptions& image, int64_t batch) {
  return static_cast<int64_t>(ImageFloats(image) * sizeof(float)) * batch;
}

struct FreeBytes {
  void operator()(float* bytes) const { std::free(bytes); }
};

}  // namespace

struct BatchSlot {
  std::unique_ptr<float, FreeBytes> images;
  uint64_t epoch = 0;
  int64_t step = 0;
  int virtual_replica = 0;
  ImageOptions image;
  std::vector<int64_t> ids, labels;
  std::vector<uint64_t> file_hashes;
  std::vector<BadPicture> bad;
  absl::Status status;
  uint64_t digest = 0;
  size_t next = 0;  // picture to hand out
  size_t done = 0;

  bool complete() const { return done == ids.size(); }
};

class PipelineCore {
 public:
  PipelineCore(const PipelineOptions& options, const Index& index, std::string folder, const Sampler& sampler);

  void Start(const std::shared_ptr<PipelineCore>& self);
  void Stop();
  void Join();
  absl::StatusOr<std::unique_ptr<BatchSlot>> Take(int virtual_replica);
  void Return(std::unique_ptr<BatchSlot> slot);
  PipelineStats stats() const;

 private:
  struct Work {
    BatchSlot* slot = nullptr;
    size_t position = 0;
  };
  void Decode();
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  Work TakeWork() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OpenSlot() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  BatchSlot* Find(int virtual_replica) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool CanOpen() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !ended_ && held_ < most_ahead_; }
  // What happened to one picture.
  struct Picture {
    absl::Status read;  // of the file
    std::string bad;    // why it cannot be decoded
    uint64_t hash = 0;
  };
  Picture Load(int64_t sample, Resizer& resizer, Pixels& pixels, std::string& file, float* out);
  absl::Status ReadWhole(const SampleInfo& info, std::string& file);
  int64_t AcquireScratch(int64_t bytes);
  void ReleaseScratch(int64_t bytes);
  static void Seal(BatchSlot& slot);

  const PipelineOptions options_;
  const Index& index_;
  const std::string folder_;
  const Sampler& sampler_;
  const int64_t slot_bytes_;
  const int64_t scratch_bytes_;
  const int most_ahead_;

  mutable absl::Mutex mutex_;
  std::deque<std::unique_ptr<BatchSlot>> slots_ ABSL_GUARDED_BY(mutex_);  // opened, oldest first
  std::vector<std::unique_ptr<float, FreeBytes>> free_ ABSL_GUARDED_BY(mutex_);
  int held_ ABSL_GUARDED_BY(mutex_) = 0;    // slots opened and not returned yet
  uint64_t epoch_ ABSL_GUARDED_BY(mutex_);  // of the slot to open next
  int64_t step_ ABSL_GUARDED_BY(mutex_) = 0;
  int virtual_replica_ ABSL_GUARDED_BY(mutex_) = 0;  // counted from the first of ours
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t scratch_ ABSL_GUARDED_BY(mutex_) = 0;
  PipelineStats stats_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

int64_t MinimumBytes(const PipelineOptions& options, const Sampler& sampler) {
  return BatchBytes(options.image, sampler.LargestBatch()) + kScratchEach;
}

PipelineCore::PipelineCore(const PipelineOptions& options, const Index& index, std::string folder, const Sampler& sampler)
    : options_(options),
      index_(index),
      folder_(std::move(folder)),
      sampler_(sampler),
      slot_bytes_(BatchBytes(options.image, sampler.LargestBatch())),
      scratch_bytes_(std::min(kScratchEach * std::max(options.threads, 1), options.memory_bytes - slot_bytes_)),
      most_ahead_(static_cast<int>(
          std::clamp<int64_t>((options.memory_bytes - scratch_bytes_) / std::max<int64_t>(slot_bytes_, 1), 1, kMostAhead))),
      epoch_(options.first_epoch) {
  absl::MutexLock lock(&mutex_);
  ended_ = sampler_.StepsPerEpoch() == 0 || options_.virtual_replica_count == 0;
}

void PipelineCore::Start(const std::shared_ptr<PipelineCore>& self) {
  for (int i = 0; i < std::max(options_.threads, 1); ++i) threads_.emplace_back([self] { self->Decode(); });
}

void PipelineCore::Stop() {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
}

void PipelineCore::Join() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool PipelineCore::HasWork() const {
  if (stopped_ || CanOpen()) return true;
  return std::any_of(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->next < slot->ids.size(); });
}

// The next batch in the order in which training asks: step by step, virtual replica by virtual replica.
void PipelineCore::OpenSlot() {
  auto slot = std::make_unique<BatchSlot>();
  if (free_.empty()) {
    const auto bytes = static_cast<size_t>((slot_bytes_ + 63) / 64 * 64);
    slot->images.reset(static_cast<float*>(std::aligned_alloc(64, std::max<size_t>(bytes, 64))));
    stats_.bytes += slot_bytes_;
  } else {
    slot->images = std::move(free_.back());
    free_.pop_back();
  }
  slot->epoch = epoch_;
  slot->step = step_;
  slot->virtual_replica = options_.first_virtual_replica + virtual_replica_;
  slot->image = options_.image;
  slot->ids = sampler_.Samples(epoch_, step_, slot->virtual_replica);
  slot->labels.resize(slot->ids.size());
  slot->file_hashes.resize(slot->ids.size());
  if (slot->images == nullptr) {
    slot->status = absl::ResourceExhaustedError(absl::StrCat("no memory for a batch of ", slot_bytes_, " bytes"));
    slot->next = slot->done = slot->ids.size();
  }
  if (slot->ids.empty()) Seal(*slot);
  slots_.push_back(std::move(slot));
  ++held_;
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

void PipelineCore::Seal(BatchSlot& slot) {
  std::sort(slot.bad.begin(), slot.bad.end(), [](const BadPicture& a, const BadPicture& b) { return a.position < b.position; });
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_64bits_reset(state.get());
  XXH3_64bits_update(state.get(), slot.ids.data(), slot.ids.size() * sizeof(int64_t));
  XXH3_64bits_update(state.get(), slot.file_hashes.data(), slot.file_hashes.size() * sizeof(uint64_t));
  slot.digest = XXH3_64bits_digest(state.get());
}

void PipelineCore::Decode() {
  Resizer resizer(options_.image);
  Pixels pixels;
  std::string file;
  const size_t floats = ImageFloats(options_.image);
  for (;;) {
    Work work;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &PipelineCore::HasWork));
      if (stopped_) return;
      work = TakeWork();
    }
    if (work.slot == nullptr) continue;
    const int64_t sample = work.slot->ids[work.position];
    const absl::Time start = absl::Now();
    Picture picture = Load(sample, resizer, pixels, file, work.slot->images.get() + floats * work.position);
    absl::MutexLock lock(&mutex_);
    stats_.decode_seconds += absl::ToDoubleSeconds(absl::Now() - start);
    ++stats_.images;
    BatchSlot& slot = *work.slot;
    slot.labels[work.position] = index_.Sample(sample).label;
    slot.file_hashes[work.position] = picture.hash;
    if (slot.status.ok()) slot.status = picture.read;
    if (!picture.bad.empty()) slot.bad.push_back({work.position, std::move(picture.bad)});
    if (++slot.done == slot.ids.size()) Seal(slot);
  }
}

PipelineCore::Picture PipelineCore::Load(int64_t sample, Resizer& resizer, Pixels& pixels, std::string& file, float* out) {
  const SampleInfo info = index_.Sample(sample);
  Picture picture;
  // Pixels are not known before the file is opened: what a thread's share does not cover is asked for once they are.
  const int64_t taken = AcquireScratch(info.bytes);
  const auto release = absl::MakeCleanup([&] { ReleaseScratch(taken); });
  for (int attempt = 1;; ++attempt) {
    picture.read = ReadWhole(info, file);
    if (picture.read.ok() || attempt == kReadTries) break;
    absl::SleepFor(kRetryPause * attempt);
  }
  if (!picture.read.ok()) return picture;
  picture.hash = XXH3_64bits(file.data(), file.size());
  DecodeOptions decode;
  decode.channels = options_.image.channels;
  if (!options_.image.full_decode) decode.least_height = options_.image.height, decode.least_width = options_.image.width;
  const absl::Status decoded = dataset::Decode(file, decode, pixels);
  if (decoded.ok()) {
    resizer.Run(pixels, out);
  } else {
    picture.bad = std::string(decoded.message());
    std::memset(out, 0, ImageFloats(options_.image) * sizeof(float));
  }
  // One huge picture must not stay with the thread for good.
  if (pixels.data.capacity() > static_cast<size_t>(kScratchEach)) pixels.data = {};
  if (file.capacity() > static_cast<size_t>(kScratchEach)) file = {};
  return picture;
}

absl::Status PipelineCore::ReadWhole(const SampleInfo& info, std::string& file) {
  const std::string path = absl::StrCat(folder_, "/", absl::string_view(info.path.data(), info.path.size()));
  const auto unavailable = [](const absl::Status& status) { return absl::UnavailableError(status.message()); };
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return unavailable(ErrnoStatus(errno, "cannot open", path));
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  struct stat stat_info {};
  if (fstat(fd, &stat_info) != 0) return unavailable(ErrnoStatus(errno, "cannot stat", path));
  if (stat_info.st_size != info.bytes) {
    return absl::UnavailableError(absl::StrCat(path, " has changed since the data set was listed: ", info.bytes,
                                               " bytes then, ", stat_info.st_size, " now"));
  }
  file.resize(static_cast<size_t>(info.bytes));
  size_t have = 0;
  while (have < file.size()) {
    const ssize_t count = read(fd, file.data() + have, file.size() - have);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return unavailable(ErrnoStatus(errno, "cannot read", path));
    if (count == 0) return absl::UnavailableError(absl::StrCat(path, " ended early"));
    have += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

int64_t PipelineCore::AcquireScratch(int64_t bytes) {
  // A file of more than a share waits until it is alone, and then takes all there is.
  const int64_t wanted = bytes > kScratchEach / 4 ? scratch_bytes_ : std::min(kScratchEach, scratch_bytes_);
  absl::MutexLock lock(&mutex_);
  const auto room = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopped_ || scratch_ + wanted <= scratch_bytes_; };
  mutex_.Await(absl::Condition(&room));
  scratch_ += wanted;
  return wanted;
}

void PipelineCore::ReleaseScratch(int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  scratch_ -= bytes;
}

BatchSlot* PipelineCore::Find(int virtual_replica) const {
  for (const auto& slot : slots_) {
    if (slot->virtual_replica == virtual_replica) return slot.get();
  }
  return nullptr;
}

absl::StatusOr<std::unique_ptr<BatchSlot>> PipelineCore::Take(int virtual_replica) {
  const absl::Time start = absl::Now();
  absl::MutexLock lock(&mutex_);
  const auto ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    const BatchSlot* slot = Find(virtual_replica);
    return stopped_ || (slot != nullptr ? slot->complete() : ended_);
  };
  mutex_.Await(absl::Condition(&ready));
  stats_.wait_seconds += absl::ToDoubleSeconds(absl::Now() - start);
  if (stopped_) return absl::CancelledError("the input pipeline was stopped");
  BatchSlot* found = Find(virtual_replica);
  if (found == nullptr) return absl::OutOfRangeError("the epoch has ended");
  const auto at = std::find_if(slots_.begin(), slots_.end(), [&](const auto& slot) { return slot.get() == found; });
  std::unique_ptr<BatchSlot> slot = std::move(*at);
  slots_.erase(at);
  if (slot->status.ok()) return slot;
  const absl::Status status = slot->status;
  free_.push_back(std::move(slot->images));
  --held_;
  return status;
}

void PipelineCore::Return(std::unique_ptr<BatchSlot> slot) {
  absl::MutexLock lock(&mutex_);
  free_.push_back(std::move(slot->images));
  --held_;
}

PipelineStats PipelineCore::stats() const {
  absl::MutexLock lock(&mutex_);
  PipelineStats stats = stats_;
  stats.bytes += scratch_;
  stats.depth =
      static_cast<int>(std::count_if(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->complete(); }));
  return stats;
}

Batch::Batch(std::shared_ptr<PipelineCore> core, std::unique_ptr<BatchSlot> slot)
    : core_(std::move(core)), slot_(std::move(slot)) {}
Batch::Batch(Batch&&) noexcept = default;
Batch& Batch::operator=(Batch&& other) noexcept {
  if (slot_ != nullptr) core_->Return(std::move(slot_));
  core_ = std::move(other.core_);
  slot_ = std::move(other.slot_);
  return *this;
}
Batch::~Batch() {
  if (slot_ != nullptr) core_->Return(std::move(slot_));
}
uint64_t Batch::epoch() const { return slot_->epoch; }
int64_t Batch::step() const { return slot_->step; }
size_t Batch::size() const { return slot_->ids.size(); }
int64_t Batch::height() const { return slot_->image.height; }
int64_t Batch::width() const { return slot_->image.width; }
int64_t Batch::channels() const { return slot_->image.channels; }
const float* Batch::images() const { return slot_->images.get(); }
const int64_t* Batch::labels() const { return slot_->labels.data(); }
absl::Span<const int64_t> Batch::sample_ids() const { return slot_->ids; }
uint64_t Batch::digest() const { return slot_->digest; }
const std::vector<BadPicture>& Batch::bad() const { return slot_->bad; }

absl::StatusOr<std::unique_ptr<Pipeline>> Pipeline::Create(const PipelineOptions& options, const Index& index,
                                                           std::string folder, const Sampler& sampler) {
  const int64_t least = MinimumBytes(options, sampler);
  if (options.memory_bytes < least) {
    return absl::ResourceExhaustedError(absl::StrCat("data.memory: ", options.memory_bytes,
                                                     " bytes are too few for the input pipeline; ", least,
                                                     " are needed for one batch of ", sampler.LargestBatch(), " pictures of ",
                                                     options.image.height, "x", options.image.width));
  }
  auto core = std::make_shared<PipelineCore>(options, index, std::move(folder), sampler);
  core->Start(core);
  return std::unique_ptr<Pipeline>(new Pipeline(std::move(core)));
}

Pipeline::~Pipeline() {
  core_->Stop();
  core_->Join();
}

absl::StatusOr<Batch> Pipeline::Next(int virtual_replica) {
  ASSIGN_OR_RETURN(std::unique_ptr<BatchSlot> slot, core_->Take(virtual_replica));
  return Batch(core_, std::move(slot));
}

PipelineStats Pipeline::stats() const { return core_->stats(); }
void Pipeline::Stop() { core_->Stop(); }

}  // namespace lockstep::dataset
