#pragma once
// The way from files to batches, ahead of training: threads read, decode, resize and scale pictures into the batches that this
// trainer's virtual replicas will ask for, in that order. Bounded by bytes, not by counts: batch buffers, encoded files and decoded
// pixels together stay within the budget, and a smaller budget means fewer threads and fewer batches ahead, down to one. Within it both
// follow what training makes of them (prefetch_tuner.h): more while it waits, fewer while it never does; large pictures go before batches
// ahead.
//
// What a batch holds is a function of the sampler and the files, never of the number of threads or of timing.
//
// A picture that cannot be decoded is listed in its batch (what becomes of it is for the trainer to decide, alike on all replicas). A
// file that cannot be read, or is not what the index says, is no bad sample: reading is tried again, then the batch is an error.
//
// Thread-safe. Batches may outlive the pipeline.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "dataset/file_reader.h"
#include "dataset/image.h"
#include "dataset/index.h"
#include "dataset/sampler.h"

namespace lockstep::dataset {

struct PipelineOptions {
  ImageOptions image;
  int first_virtual_replica = 0;
  int virtual_replica_count = 1;
  int64_t memory_bytes = 256 << 20;
  int steps_ahead = 8;    // at most, the one in training included
  int threads = 1;        // at most; fewer where the budget has no room for their buffers
  bool one_pass = false;  // end after the first epoch
  uint64_t first_epoch = 0;
  int64_t first_step = 0;              // of the first epoch
  const FileReader* reader = nullptr;  // none: local files. Must outlive the pipeline.
  absl::Duration retry_pause = absl::Milliseconds(50);
};

struct PipelineStats {
  int64_t bytes = 0;   // held now: buffers, files, pixels; never more than the budget
  int depth = 0;       // batches that are ready
  int most_depth = 0;  // as it is tuned now: batches open at once, and threads
  int threads = 0;
  int waiting = 0;  // calls of Next
  double decode_seconds = 0;
  double wait_seconds = 0;  // of Next
  uint64_t images = 0;
};

struct BadPicture {
  size_t position = 0;  // in the batch
  std::string reason;
};

class PipelineCore;
struct BatchSlot;

// The pictures of one virtual replica for one step. Its buffer goes back to the pipeline when it is destroyed.
class Batch {
 public:
  Batch(std::shared_ptr<PipelineCore> core, std::unique_ptr<BatchSlot> slot);
  Batch(Batch&&) noexcept;
  Batch& operator=(Batch&&) noexcept;
  ~Batch();

  uint64_t epoch() const;
  int64_t step() const;
  size_t size() const;
  int64_t height() const;
  int64_t width() const;
  int64_t channels() const;
  const float* images() const;    // (size, height, width, channels), 64-byte aligned; rows of bad pictures are zero
  const int64_t* labels() const;  // (size)
  absl::Span<const int64_t> sample_ids() const;
  // XXH3-64 over the sample ids and what was read for each.
  uint64_t digest() const;
  const std::vector<BadPicture>& bad() const;  // in order

 private:
  std::shared_ptr<PipelineCore> core_;
  std::unique_ptr<BatchSlot> slot_;
};

// The least budget with which a pipeline can run: one batch, and one thread's buffers.
int64_t MinimumBytes(const PipelineOptions& options, const Sampler& sampler);

class Pipeline {
 public:
  // `index` and `sampler` must outlive the pipeline. ResourceExhausted if the budget is below MinimumBytes.
  static absl::StatusOr<std::unique_ptr<Pipeline>> Create(const PipelineOptions& options, const Index& index, std::string folder,
                                                          const Sampler& sampler);
  // Stops, and joins the threads.
  ~Pipeline();

  // The next batch of this virtual replica, step after step, epoch after epoch; waits for it. OutOfRange after the last with
  // one_pass; Cancelled after Stop; else the first error of its pictures, in their order, as PictureLoader has them.
  // REQUIRES, so that any budget makes progress: each virtual replica is asked for by one thread at a time; a thread that asks for
  // several takes them in ascending order, step by step, and lets go of one batch before it asks for the next.
  absl::StatusOr<Batch> Next(int virtual_replica);

  PipelineStats stats() const;
  // Wakes everyone.
  void Stop();

 private:
  explicit Pipeline(std::shared_ptr<PipelineCore> core) : core_(std::move(core)) {}
  const std::shared_ptr<PipelineCore> core_;
};

}  // namespace lockstep::dataset
