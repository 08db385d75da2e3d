#pragma once
// A replica: the whole training state of a model in one process. Parameters, statistics and the optimizer's slots lie in flat
// arrays whose layout is that of the reduced gradient, so that hashing, updating and copying are loops over plain memory.
//
//   trainable  [segment 0 … n-1]            in the order in which backward produces their gradients (reversed Keras order)
//   others     statistics and frozen variables, in Keras's order
//   slots      one array of trainable's layout each
//
// The gradient vector that is reduced holds the trainable segments first, then one segment for each call of a BatchNormalization
// that updates a moving statistic: batch statistics are averaged like gradients.
//
// Thread-safety: const methods from many threads while nobody commits.

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <istream>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "allreduce/layout.h"
#include "model/model.h"
#include "model/training/archive_writer.h"
#include "model/training/compile_config.h"
#include "model/training/optimizer.h"
#include "model/training/regularizer.h"

namespace lockstep {

// Which segment of the gradient vector each trainable variable has, and which each statistic's call site.
struct GradientLayout {
  allreduce::Layout layout;
  int64_t trainable_elements = 0;        // [0, this) of the vector is the trainable arena's layout
  std::vector<int> segment_of_variable;  // by model variable; -1 where nothing is trained
  int first_statistic_segment = 0;       // one a call site, in ForwardContext::statistics' order
};
GradientLayout MakeGradientLayout(const Model& model);

// One of the state's tensors: a variable, or a slot of the optimizer for one.
struct StateTensor {
  std::string name;   // "dense/kernel", "optimizer/momentum/dense/kernel"
  int variable = 0;   // of the model
  size_t offset = 0;  // of its values, in run layout, in what CopyState wrote; bytes
};
// As Replica::Hash, of what CopyState wrote.
std::string HashOfState(absl::Span<const std::byte> state);

template <typename T>
class Replica {
 public:
  // Values from the archive; the optimizer's too where it holds them.
  // `blank`: as large, and of no use but for planning; what the archive holds is read and not kept, and pages to which nobody writes are no
  // memory.
  static absl::StatusOr<std::unique_ptr<Replica>> Create(const Model& model, const KerasArchive& archive, const Recipe& recipe,
                                                         bool blank = false);

  const GradientLayout& gradient_layout() const { return gradients_; }
  // One for each model variable, over this replica's memory. With `with_gradients`, trainable ones are leaves of autograd of
  // their own: each compute thread has its own aliases.
  std::vector<at::Tensor> Aliases(bool with_gradients) const;

  // Applies one step: `reduced` is the gradient vector summed over all samples (of the loss, unscaled), and is used up.
  // Returns the penalties of the weight regularizers, as they were before. Allocates nothing.
  double Commit(absl::Span<T> reduced, int64_t samples, double loss_divisor);
  double SumOfPenalties() const;

  // For fault drills: as a broken memory would.
  void FlipBit() { *reinterpret_cast<char*>(trainable_.data_ptr()) ^= 1; }

  // XXH3-128 over the whole state, 32 hexadecimal digits.
  std::string Hash() const;

  double LearningRate() const;
  absl::Status SetLearningRate(double learning_rate);
  // After the last step: see Optimizer::FinishTraining.
  void FinishTraining();

  // Parameters and statistics as they are, into or from a file of this process's own (for the best epoch). Bytes as in memory. The
  // optimizer's state stays as it is: what Keras calls a model's weights.
  absl::Status SaveWeights(const std::string& path) const;
  absl::Status RestoreWeights(const std::string& path);

  // The whole state in one piece of memory of StateBytes; the scalars of the optimizer are the end of it.
  size_t StateBytes() const { return ScalarsOffset() + sizeof(scalars_); }
  size_t ScalarsOffset() const;
  std::vector<StateTensor> StateTensors() const;
  void CopyState(std::byte* to) const;
  void TakeState(absl::Span<const std::byte> from);
  // Called before anything changes the state, for those who copy it meanwhile.
  void SetBeforeChange(std::function<void()> before_change) { before_change_ = std::move(before_change); }

  // The whole state, for a replica of the same model and optimizer; bytes as in memory.
  void WriteState(std::ostream& out) const;
  // DataLoss, and a state that is of no use, if the stream ends early.
  absl::Status ReadState(std::istream& in);

  // The submitted archive with this state, at `target`. Keras continues training from it.
  absl::Status WriteArchive(const std::string& source, const std::string& target) const;

  Optimizer<T>& optimizer() { return *optimizer_; }
  const Optimizer<T>& optimizer() const { return *optimizer_; }

 private:
  Replica(const Model& model, GradientLayout gradients, bool blank);
  absl::Status LoadVariables(const KerasArchive& archive);
  absl::Status MakeOptimizer(const KerasArchive& archive, const Recipe& recipe);
  absl::Status LoadOptimizer(const KerasArchive& archive, const Recipe& recipe);
  absl::Status ReadSlot(const KerasArchive& archive, const std::string& path, int slot, int variable);
  std::vector<absl::Span<const T>> Regions() const;
  void BeforeChange() const {
    if (before_change_) before_change_();
  }
  int64_t OffsetOf(int variable) const { return offsets_[static_cast<size_t>(variable)]; }

  const Model& model_;
  const GradientLayout gradients_;
  const bool blank_;
  std::vector<int64_t> offsets_;          // by model variable: into trainable_ or others_
  std::vector<int> trainable_variables_;  // model variable of each optimizer variable, in Keras's order
  at::Tensor trainable_, others_;
  std::vector<at::Tensor> slots_;
  OptimizerScalars scalars_;
  OptimizerState<T> state_;
  std::unique_ptr<Optimizer<T>> optimizer_;
  std::vector<Penalty> penalties_;
  Json compile_config_;  // for the trained archive; null: as submitted
  std::function<void()> before_change_;
};

extern template class Replica<float>;
extern template class Replica<double>;

}  // namespace lockstep
