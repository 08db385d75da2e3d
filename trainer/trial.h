#pragma once
// What one training (or evaluating) pass over one virtual replica takes: steps of the very graph over a few made-up samples are recorded
// under the counting allocator, and what they ask for is extended to the micro-batch that is wanted, which is never computed
// (memory/trace.h). Nothing of it is kept. Includes libtorch through the model.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "allreduce/layout.h"
#include "memory/category.h"
#include "memory/segments.h"
#include "memory/trace.h"
#include "model/segment.h"
#include "trainer/loaded_model.h"
#include "trainer/run_spec.h"

namespace lockstep {

// A pass as recorded. Plain data, of one thread.
class RecordedPass {
 public:
  // Of any micro-batch of the regime that was recorded; of no other than that one where it had to be measured as it is.
  memory::Trace At(int64_t micro_batch) const { return steps_ ? steps_->At(micro_batch) : measured_; }
  memory::Peak PeakAt(int64_t micro_batch) const { return memory::PeakOf(At(micro_batch)); }
  // By call. REQUIRES: nothing was computed twice.
  memory::PassCosts CostsAt(int64_t micro_batch, const CallGraph& graph) const;
  // What a pass takes with these segments, about: by what they cost more or less than none.
  int64_t AboutWith(absl::Span<const Segment> segments, int64_t micro_batch, const CallGraph& graph) const;
  // The segments with the fewest bytes, by these costs. Looked for once a micro-batch.
  const memory::Choice& FewestBytesAt(int64_t micro_batch, const CallGraph& graph) const;
  bool extends() const { return steps_.has_value(); }
  // The micro-batches that are computed with the same kernels.
  struct Regime {
    int64_t first = 1, last = 1;  // last is 0: it has no end
  };
  static Regime RegimeOf(Device device, int64_t planned);
  const Regime& regime() const { return regime_; }
  // Of a pass without segments, on one thread: what each sample takes, about.
  double seconds_per_sample() const { return seconds_per_sample_; }
  // How it was found, and why not from few samples, for people.
  const std::string& method() const { return method_; }

 private:
  template <typename T>
  friend class TrialOf;

  Regime regime_;
  std::optional<memory::AffineTrace> steps_;
  memory::Trace measured_;
  memory::PassMarks marks_;
  double seconds_per_sample_ = 0;
  std::string method_;
  mutable std::map<int64_t, memory::Choice> fewest_;
};

class Trial {
 public:
  // ResourceExhausted: the state does not fit into the machine. REQUIRES: the image, micro-batch and precision are resolved. All must
  // outlive the object.
  static absl::StatusOr<std::unique_ptr<Trial>> Create(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe);
  virtual ~Trial() = default;

  // Parameters, statistics, the optimizer's slots.
  const memory::Bytes& state() const { return state_; }
  // The same, block by block: category, and bytes as asked for.
  const std::vector<std::pair<memory::Category, int64_t>>& state_blocks() const { return state_blocks_; }
  // One vector of gradients, with statistics; and what a checkpoint copies.
  virtual const allreduce::Layout& gradients() const = 0;
  virtual int64_t state_bytes() const = 0;
  // Of the largest variable, which is laid out anew where it is written to a file.
  virtual int64_t largest_variable_bytes() const = 0;

  // ResourceExhausted: even a few samples do not fit into the machine. InvalidArgument: the graph cannot run on such pictures.
  virtual absl::StatusOr<RecordedPass> Record(absl::Span<const Segment> recomputed) = 0;
  // The peak of a whole step as it really is, beside the state, and its seconds; for those who compare. Errors as Record.
  struct Measured {
    int64_t bytes = 0;
    double seconds = 0;
  };
  virtual absl::StatusOr<Measured> Measure(absl::Span<const Segment> recomputed) = 0;

 protected:
  memory::Bytes state_;
  std::vector<std::pair<memory::Category, int64_t>> state_blocks_;
};

}  // namespace lockstep
