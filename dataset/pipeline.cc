#include "dataset/pipeline.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "dataset/pipeline_core.h"

namespace lockstep::dataset {

Batch::Batch(std::shared_ptr<PipelineCore> core, std::unique_ptr<BatchSlot> slot) : core_(std::move(core)), slot_(std::move(slot)) {}
Batch::Batch(Batch&&) noexcept = default;
Batch& Batch::operator=(Batch&& other) noexcept {
  if (this == &other) return *this;
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

int64_t MinimumBytes(const PipelineOptions& options, const Sampler& sampler) {
  const PipelineShares shares = ShareOut(options, sampler);
  return shares.slot_bytes + shares.thread_bytes;
}

absl::StatusOr<std::unique_ptr<Pipeline>> Pipeline::Create(const PipelineOptions& options, const Index& index, std::string folder,
                                                           const Sampler& sampler) {
  const int64_t least = MinimumBytes(options, sampler);
  if (options.memory_bytes < least) {
    return absl::ResourceExhaustedError(absl::StrCat("data.memory: ", options.memory_bytes, " bytes are too few for the input pipeline; ",
                                                     least, " are needed for one batch of ", sampler.LargestBatch(), " pictures of ",
                                                     options.image.height, "x", options.image.width, " and for decoding"));
  }
  if (options.first_step < 0 || options.first_step > std::max<int64_t>(sampler.StepsPerEpoch() - 1, 0)) {
    return absl::InvalidArgumentError(absl::StrCat("an epoch of ", sampler.StepsPerEpoch(), " steps has no step ", options.first_step));
  }
  auto core = std::make_shared<PipelineCore>(options, index, std::move(folder), sampler);
  core->Start();
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
