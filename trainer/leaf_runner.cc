#include "trainer/leaf_runner.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <time.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "memory/category.h"
#include "memory/cpu_allocator.h"
#include "memory/place.h"
#include "memory/trace.h"

namespace lockstep {
namespace {

using memory::Category;
using memory::ScopedCategory;

// Hands each gradient over as soon as autograd has it, and keeps none.
class TakeGradient final : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit TakeGradient(std::function<void(const at::Tensor&)> take) : take_(std::move(take)) {}
  void operator()(const torch::autograd::Variable& variable) override { take_(variable); }

 private:
  const std::function<void(const at::Tensor&)> take_;
};

template <typename T>
at::TensorOptions OptionsOf() {
  return at::TensorOptions().dtype(sizeof(T) == 4 ? at::kFloat : at::kDouble);
}

double SecondsSince(absl::Time start) { return absl::ToDoubleSeconds(absl::Now() - start); }

// What the calling thread had of a processor: on a busy machine that is no more than on an idle one.
double ThreadSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

template <typename T>
LeafRunner<T>::LeafRunner(LeafContext context, const Replica<T>& replica, allreduce::LeafSums<T>* sums, bool trains)
    : context_(context), aliases_(replica.Aliases(/*with_gradients=*/trains)), pass_(context.model, context.recomputed), sums_(sums) {
  if (trains) HookGradients();
}

template <typename T>
void LeafRunner<T>::HookGradients() {
  for (size_t i = 0; i < aliases_.size(); ++i) {
    if (context_.gradients.segment_of_variable[i] < 0) continue;
    torch::autograd::impl::set_post_acc_grad_hooks(aliases_[i], std::make_unique<TakeGradient>([this, i](const at::Tensor& alias) {
                                                     // Gradients of earlier micro-batches stay with autograd, which adds the next ones to
                                                     // them.
                                                     if (!last_micro_batch_) return;
                                                     HandOver(static_cast<int>(i), alias.grad());
                                                     alias.mutable_grad().reset();
                                                   }));
  }
}

template <typename T>
void LeafRunner<T>::HandOver(int variable, const at::Tensor& gradient) {
  const at::Tensor dense = gradient.contiguous();
  const int segment = context_.gradients.segment_of_variable[static_cast<size_t>(variable)];
  memory::SetLayer(context_.model.variables()[static_cast<size_t>(variable)].layer);
  memory::CpuTensorPool().EndOf(memory::CurrentPlace().layer);
  if (memory::Recording* recording = memory::Recording::Current(); recording != nullptr) {
    recording->EndOf(absl::StrCat("backward ", context_.model.variables()[static_cast<size_t>(variable)].layer));
  }
  // A refusal (the collective broke) shows in Finish; the leaf goes on, so that nobody waits for it.
  if (sums_ != nullptr) sums_->Add(leaf_, segment, dense.data_ptr<T>()).IgnoreError();
}

template <typename T>
typename LeafRunner<T>::Samples LeafRunner<T>::GoodSamples(const dataset::Batch& batch, LeafResult& result) const {
  const auto n = static_cast<int64_t>(batch.size());
  Samples samples;
  samples.images = at::from_blob(const_cast<float*>(batch.images()), {n, batch.height(), batch.width(), batch.channels()},
                                 at::TensorOptions().dtype(at::kFloat));
  samples.labels = at::from_blob(const_cast<int64_t*>(batch.labels()), {n}, at::TensorOptions().dtype(at::kLong));
  samples.ids.assign(batch.sample_ids().begin(), batch.sample_ids().end());
  result.sample_ids = samples.ids;
  result.sample_digest = batch.digest();
  if (!batch.bad().empty()) {
    std::vector<bool> good(static_cast<size_t>(n), true);
    for (const dataset::BadPicture& bad : batch.bad()) {
      good[bad.position] = false;
      result.bad.push_back({samples.ids[bad.position], bad.reason});
    }
    std::vector<int64_t> rows, ids;
    for (int64_t i = 0; i < n; ++i) {
      if (good[static_cast<size_t>(i)]) rows.push_back(i), ids.push_back(samples.ids[static_cast<size_t>(i)]);
    }
    const at::Tensor index = at::tensor(rows, at::TensorOptions().dtype(at::kLong));
    samples.images = samples.images.index_select(0, index);
    samples.labels = samples.labels.index_select(0, index);
    samples.ids = std::move(ids);
  }
  samples.images = samples.images.to(OptionsOf<T>());
  result.samples = samples.images.size(0);
  return samples;
}

template <typename T>
template <typename Work>
void LeafRunner<T>::Guard(LeafResult& result, Work&& work) {
  try {
    work();
  } catch (const c10::OutOfMemoryError& error) {
    result.out_of_memory = true;
    result.error = error.what_without_backtrace();
  } catch (const c10::Error& error) {
    result.error = error.what_without_backtrace();
  } catch (const std::bad_alloc&) {
    result.out_of_memory = true;
    const memory::Place& place = memory::CurrentPlace();
    result.error = absl::StrCat("out of memory outside of tensors: ", memory::Text(place));
  } catch (const std::exception& error) {
    result.error = error.what();
  }
}

template <typename T>
void LeafRunner<T>::Measure(const at::Tensor& output, const at::Tensor& logits, const at::Tensor& labels, LeafResult& result) const {
  for (size_t i = 0; i < context_.metrics.size(); ++i) {
    const MetricSum sum = context_.metrics[i].Evaluate(output, logits, labels);
    result.metrics[i].sum += sum.sum;
    result.metrics[i].count += sum.count;
  }
}

template <typename T>
void LeafRunner<T>::AddStatistics(const std::vector<StatisticUpdate>& updates, int64_t samples) {
  for (size_t i = 0; i < updates.size(); ++i) {
    const at::Tensor weighted = updates[i].batch_value * static_cast<double>(samples);
    if (statistics_.size() <= i) {
      statistics_.push_back(weighted);
    } else {
      statistics_[i].add_(weighted);
    }
  }
}

template <typename T>
void LeafRunner<T>::TrainMicroBatches(const Samples& samples, int64_t micro_batch, ForwardContext& forward, LeafResult& result) {
  const int64_t size = micro_batch > 0 ? micro_batch : result.samples;
  for (int64_t first = 0; first < result.samples; first += size) {
    const int64_t count = std::min(size, result.samples - first);
    last_micro_batch_ = first + count == result.samples;
    const absl::Time start = absl::Now();
    forward.first_sample = first;
    forward.statistics.clear();
    forward.logits.reset();
    memory::SetPhase(memory::Phase::kForward);
    at::Tensor output = pass_.Forward(samples.images.narrow(0, first, count), aliases_, forward);
    memory::SetLayer("loss");
    if (marks_ != nullptr && first == 0) marks_->loss = memory::Recording::Current()->size();
    const at::Tensor labels = samples.labels.narrow(0, first, count);
    at::Tensor per_sample = context_.loss.PerSample(output, forward.logits, labels);
    at::Tensor loss = per_sample.sum();
    {
      const at::NoGradGuard no_grad;
      result.loss_sum += per_sample.detach().to(at::kDouble).sum().item<double>();
      Measure(output.detach(), forward.logits.defined() ? forward.logits.detach() : forward.logits, labels, result);
      AddStatistics(forward.statistics, count);
    }
    // Backward is to free activations as it goes: nothing here may hold on to them.
    forward.logits.reset();
    output.reset();
    per_sample.reset();
    if (context_.loss_scale != 1) loss = loss * context_.loss_scale;
    result.forward_seconds += SecondsSince(start);
    const absl::Time backward = absl::Now();
    const double thread_backward = ThreadSeconds();
    memory::SetPhase(memory::Phase::kBackward);
    if (marks_ != nullptr && first == 0) marks_->backward = memory::Recording::Current()->size();
    if (marks_ != nullptr) memory::Recording::Current()->At("backward");
    pass_.Backward(std::move(loss), aliases_, forward);
    result.backward_seconds += SecondsSince(backward);
    if (marks_ == nullptr || first > 0) continue;
    marks_->backward_seconds = ThreadSeconds() - thread_backward;
    marks_->end = memory::Recording::Current()->size();
  }
}

template <typename T>
void LeafRunner<T>::HandOverStatistics(int leaf) {
  for (size_t i = 0; i < statistics_.size(); ++i) {
    const int segment = context_.gradients.first_statistic_segment + static_cast<int>(i);
    const at::Tensor dense = statistics_[i].contiguous();
    if (sums_ != nullptr) sums_->Add(leaf, segment, dense.template data_ptr<T>()).IgnoreError();
  }
}

// Says where in a recording each call begins, forward and backward, what it made, and how long it took.
class MarkCalls {
 public:
  MarkCalls(memory::Recording& recording, const CallGraph& graph, memory::PassMarks& marks)
      : recording_(recording), graph_(graph), marks_(marks) {}
  void operator()(const ForwardContext& context, int call, const at::Tensor* output) {
    const std::string& name = graph_.calls[static_cast<size_t>(call)].name;
    if (output == nullptr) {
      recording_.At(absl::StrCat(context.again ? "again " : "forward ", name));
      since_ = ThreadSeconds();
    }
    if (!context.again && marks_.seconds.size() < graph_.calls.size()) {
      if (output == nullptr) {
        marks_.calls.push_back(recording_.size());
      } else {
        marks_.seconds.push_back(ThreadSeconds() - since_);
        marks_.outputs.push_back(recording_.BlockAt(output->storage().data()));
        MarkBackward(call, *output);
      }
    }
    if (output == nullptr) return;
    const bool last = call + 1 == static_cast<int>(graph_.calls.size());
    recording_.At(context.again ? "backward" : last ? "loss" : "between layers");
  }

 private:
  // Backward comes to a call when the gradient of what it made is there.
  void MarkBackward(int call, const at::Tensor& output) const {
    if (!output.requires_grad()) return;
    output.register_hook([&recording = recording_, &marks = marks_, call](const at::Tensor&) {
      if (marks.end == 0) marks.backward_calls.emplace_back(call, recording.size());
    });
  }

  memory::Recording& recording_;
  const CallGraph& graph_;
  memory::PassMarks& marks_;
  double since_ = 0;
};

template <typename T>
void LeafRunner<T>::TrainOn(const at::Tensor& images, const at::Tensor& labels, int64_t micro_batch, memory::PassMarks* marks) {
  const ScopedCategory category(Category::kActivations);
  const memory::ScopedPhase phase(memory::Phase::kForward);
  LeafResult result;
  result.metrics.resize(context_.metrics.size());
  result.samples = images.size(0);
  statistics_.clear();
  ForwardContext forward;
  forward.training = true;
  forward.seed = context_.seed;
  marks_ = marks;
  if (marks != nullptr) forward.observer = MarkCalls(*memory::Recording::Current(), context_.model.call_graph(), *marks);
  TrainMicroBatches({images.to(OptionsOf<T>()), labels, {}}, micro_batch, forward, result);
  marks_ = nullptr;
  HandOverStatistics(0);
  statistics_.clear();
}

template <typename T>
LeafResult LeafRunner<T>::Train(uint64_t step, int leaf, const dataset::Batch& batch) {
  const ScopedCategory category(Category::kActivations);
  const memory::ScopedPhase phase(memory::Phase::kForward);
  LeafResult result;
  result.leaf = leaf;
  result.metrics.resize(context_.metrics.size());
  leaf_ = leaf;
  statistics_.clear();
  Guard(result, [&] {
    const Samples samples = GoodSamples(batch, result);
    ForwardContext forward;
    forward.training = true;
    forward.seed = context_.seed;
    forward.step = step;
    forward.virtual_replica = leaf;
    TrainMicroBatches(samples, context_.micro_batch, forward, result);
    HandOverStatistics(leaf);
  });
  statistics_.clear();
  if (!result.error.empty()) {
    pass_.Clear();
    for (const at::Tensor& alias : aliases_) {
      if (alias.requires_grad()) alias.mutable_grad().reset();
    }
  }
  sums_->CompleteWithZeros(leaf).IgnoreError();
  return result;
}

template <typename T>
void LeafRunner<T>::EvaluateOn(const at::Tensor& images, const at::Tensor& labels, bool measures) {
  const ScopedCategory category(Category::kActivations);
  const c10::InferenceMode inference;
  LeafResult result;
  result.metrics.resize(context_.metrics.size());
  ForwardContext forward;
  const at::Tensor output = context_.model.Forward(images.to(OptionsOf<T>()), aliases_, forward);
  if (!measures) {
    output.to(at::kDouble).contiguous();
    return;
  }
  context_.loss.PerSample(output, forward.logits, labels).to(at::kDouble).sum();
  Measure(output, forward.logits, labels, result);
}

template <typename T>
LeafResult LeafRunner<T>::Evaluate(int leaf, const dataset::Batch& batch, const OutputSink& sink) {
  const ScopedCategory category(Category::kActivations);
  const memory::ScopedPhase phase(memory::Phase::kValidate);
  const c10::InferenceMode inference;
  LeafResult result;
  result.leaf = leaf;
  result.metrics.resize(context_.metrics.size());
  Guard(result, [&] {
    const Samples samples = GoodSamples(batch, result);
    const int64_t size = context_.micro_batch > 0 ? context_.micro_batch : result.samples;
    for (int64_t first = 0; first < result.samples; first += size) {
      const int64_t count = std::min(size, result.samples - first);
      ForwardContext forward;
      const at::Tensor output = context_.model.Forward(samples.images.narrow(0, first, count), aliases_, forward);
      if (sink) {
        const at::Tensor rows = output.to(at::kDouble).contiguous();
        const std::vector<int64_t> ids(samples.ids.begin() + first, samples.ids.begin() + first + count);
        sink(ids, std::vector<double>(rows.data_ptr<double>(), rows.data_ptr<double>() + rows.numel()));
        continue;
      }
      const at::Tensor labels = samples.labels.narrow(0, first, count);
      const at::Tensor per_sample = context_.loss.PerSample(output, forward.logits, labels);
      result.loss_sum += per_sample.to(at::kDouble).sum().template item<double>();
      Measure(output, forward.logits, labels, result);
    }
  });
  return result;
}

template class LeafRunner<float>;
template class LeafRunner<double>;

}  // namespace lockstep
