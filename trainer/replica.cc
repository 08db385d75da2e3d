#include "trainer/replica.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "memory/category.h"
#include "model/training/keras_slots.h"

namespace lockstep {
namespace {

constexpr size_t kBucketBytes = 4 << 20;
constexpr int64_t kAlignElements = 16;  // 64 bytes of float, as the gradient's segments

int64_t Count(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

template <typename T>
at::ScalarType ScalarTypeOf() {
  return sizeof(T) == 4 ? at::kFloat : at::kDouble;
}

at::Tensor Arena(int64_t elements, at::ScalarType type, memory::Category category, bool blank) {
  const memory::ScopedCategory scope(category);
  return blank ? at::empty({elements}, type) : at::zeros({elements}, type);
}

std::string Digits(const XXH128_hash_t& digest) { return absl::StrFormat("%016x%016x", digest.high64, digest.low64); }

template <typename T>
absl::Span<T> SpanOf(const at::Tensor& flat) {
  return absl::MakeSpan(flat.data_ptr<T>(), static_cast<size_t>(flat.numel()));
}

}  // namespace

std::string HashOfState(absl::Span<const std::byte> state) { return Digits(XXH3_128bits(state.data(), state.size())); }

GradientLayout MakeGradientLayout(const Model& model) {
  const auto variables = model.variables();
  GradientLayout result;
  result.segment_of_variable.assign(variables.size(), -1);
  std::vector<size_t> counts;
  for (size_t i = variables.size(); i-- > 0;) {
    if (!variables[i].trainable) continue;
    result.segment_of_variable[i] = static_cast<int>(counts.size());
    counts.push_back(static_cast<size_t>(Count(variables[i].run_shape)));
  }
  result.first_statistic_segment = static_cast<int>(counts.size());
  for (const StatisticSite& site : model.statistic_sites()) {
    counts.push_back(static_cast<size_t>(Count(variables[static_cast<size_t>(site.variable)].run_shape)));
  }
  const auto element = model.dtype() == at::kDouble ? allreduce::Element::kFloat64 : allreduce::Element::kFloat32;
  result.layout = allreduce::MakeLayout(counts, element, kBucketBytes);
  const auto first = static_cast<size_t>(result.first_statistic_segment);
  result.trainable_elements = static_cast<int64_t>(first < counts.size() ? result.layout.segments[first].offset : result.layout.elements);
  return result;
}

template <typename T>
Replica<T>::Replica(const Model& model, GradientLayout gradients, bool blank)
    : model_(model), gradients_(std::move(gradients)), blank_(blank) {
  const auto variables = model.variables();
  int64_t others = 0;
  for (size_t i = 0; i < variables.size(); ++i) {
    const int segment = gradients_.segment_of_variable[i];
    if (segment >= 0) {
      trainable_variables_.push_back(static_cast<int>(i));
      offsets_.push_back(static_cast<int64_t>(gradients_.layout.segments[static_cast<size_t>(segment)].offset));
    } else {
      offsets_.push_back(others);
      others += (Count(variables[i].run_shape) + kAlignElements - 1) / kAlignElements * kAlignElements;
    }
  }
  trainable_ = Arena(gradients_.trainable_elements, ScalarTypeOf<T>(), memory::Category::kParameters, blank);
  others_ = Arena(others, ScalarTypeOf<T>(), memory::Category::kParameters, blank);
}

template <typename T>
absl::StatusOr<std::unique_ptr<Replica<T>>> Replica<T>::Create(const Model& model, const KerasArchive& archive, const Recipe& recipe,
                                                               bool blank) {
  std::unique_ptr<Replica> replica(new Replica(model, MakeGradientLayout(model), blank));
  RETURN_IF_ERROR(replica->LoadVariables(archive));
  RETURN_IF_ERROR(replica->MakeOptimizer(archive, recipe));
  return replica;
}

template <typename T>
absl::Status Replica<T>::LoadVariables(const KerasArchive& archive) {
  const std::vector<at::Tensor> views = Aliases(/*with_gradients=*/false);
  for (size_t i = 0; i < views.size(); ++i) {
    ASSIGN_OR_RETURN(const at::Tensor value, model_.InitialValue(archive, static_cast<int>(i)));
    if (!blank_) views[i].copy_(value);
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status Replica<T>::MakeOptimizer(const KerasArchive& archive, const Recipe& recipe) {
  std::vector<OptimizerVariable> variables;
  for (const int i : trainable_variables_) {
    const VariableInfo& info = model_.variables()[static_cast<size_t>(i)];
    variables.push_back({info.path, OffsetOf(i), Count(info.run_shape)});
    ASSIGN_OR_RETURN(const Penalty penalty, ReadRegularizer(info.regularizer, info.path, OffsetOf(i), Count(info.run_shape)));
    if (penalty.l1 != 0 || penalty.l2 != 0) penalties_.push_back(penalty);
  }
  ASSIGN_OR_RETURN(optimizer_, Optimizer<T>::Create(recipe.optimizer, std::move(variables), gradients_.trainable_elements));
  state_.scalars = &scalars_;
  for (size_t i = 0; i < optimizer_->slot_names().size(); ++i) {
    slots_.push_back(Arena(gradients_.trainable_elements, ScalarTypeOf<T>(), memory::Category::kOptimizer, blank_));
    state_.slots.push_back(slots_.back().template data_ptr<T>());
  }
  if (!blank_) optimizer_->Initialize(state_);
  compile_config_ = recipe.compile_config;
  if (recipe.continues_optimizer && archive.Has(absl::StrCat(kOptimizerGroup, "/0"))) return LoadOptimizer(archive, recipe);
  return absl::OkStatus();
}

template <typename T>
absl::Status Replica<T>::ReadSlot(const KerasArchive& archive, const std::string& path, int slot, int variable) {
  const int index = trainable_variables_[static_cast<size_t>(variable)];
  const VariableInfo& info = model_.variables()[static_cast<size_t>(index)];
  ASSIGN_OR_RETURN(std::vector<T> values, (archive.Read<T>(path, info.keras_shape)));
  const at::Tensor keras = at::from_blob(values.data(), info.keras_shape, at::TensorOptions().dtype(ScalarTypeOf<T>()));
  const at::Tensor run = model_.FromKeras(index, keras).contiguous();
  if (!blank_) std::memcpy(state_.slots[static_cast<size_t>(slot)] + OffsetOf(index), run.data_ptr(), sizeof(T) * values.size());
  return absl::OkStatus();
}

// An archive that was trained before continues where it stopped, if its optimizer is the one that trains now: the same number of
// variables, each of the right shape. An untrained one holds only the iteration and the learning rate.
template <typename T>
absl::Status Replica<T>::LoadOptimizer(const KerasArchive& archive, const Recipe& recipe) {
  const std::vector<KerasOptimizerVariable> saved = KerasSlots(optimizer_->config(), optimizer_->slot_names(), optimizer_->variables());
  if (!archive.Has(absl::StrCat(kOptimizerGroup, "/", saved.size() - 1)) || archive.Has(absl::StrCat(kOptimizerGroup, "/", saved.size()))) {
    return absl::OkStatus();
  }
  for (size_t i = 0; i < saved.size(); ++i) {
    const std::string path = absl::StrCat(kOptimizerGroup, "/", i);
    using Kind = KerasOptimizerVariable::Kind;
    if (saved[i].kind == Kind::kSlot) {
      RETURN_IF_ERROR(ReadSlot(archive, path, saved[i].slot, saved[i].variable));
    } else if (saved[i].kind == Kind::kIterations) {
      ASSIGN_OR_RETURN(const std::vector<int64_t> value, archive.Read<int64_t>(path, {}));
      scalars_.iterations = value[0];
    } else if (saved[i].kind == Kind::kUProduct) {
      ASSIGN_OR_RETURN(const std::vector<double> value, archive.Read<double>(path, {}));
      scalars_.u_product = value[0];
    } else if (saved[i].kind == Kind::kLearningRate && !recipe.overrides_learning_rate) {
      ASSIGN_OR_RETURN(const std::vector<T> value, archive.Read<T>(path, {}));
      scalars_.learning_rate = value[0];
    }
  }
  return absl::OkStatus();
}

template <typename T>
std::vector<at::Tensor> Replica<T>::Aliases(bool with_gradients) const {
  std::vector<at::Tensor> aliases;
  const auto variables = model_.variables();
  for (size_t i = 0; i < variables.size(); ++i) {
    const bool trainable = gradients_.segment_of_variable[i] >= 0;
    const at::Tensor& arena = trainable ? trainable_ : others_;
    at::Tensor alias = arena.narrow(0, offsets_[i], Count(variables[i].run_shape)).view(variables[i].run_shape).detach();
    if (with_gradients && trainable) alias.set_requires_grad(true);
    aliases.push_back(std::move(alias));
  }
  return aliases;
}

template <typename T>
double Replica<T>::Commit(absl::Span<T> reduced, int64_t samples, double loss_divisor) {
  BeforeChange();
  const auto elements = static_cast<size_t>(gradients_.trainable_elements);
  const absl::Span<T> gradients = reduced.subspan(0, elements);
  const absl::Span<T> parameters = SpanOf<T>(trainable_);
  const T divisor = static_cast<T>(loss_divisor);
  for (T& gradient : gradients) gradient /= divisor;
  const double penalty = AddPenalties<T>(penalties_, absl::MakeConstSpan(parameters), optimizer_->loss_scale(), gradients);
  optimizer_->Apply(parameters, gradients, state_);

  const auto sites = model_.statistic_sites();
  for (size_t i = 0; i < sites.size(); ++i) {
    const allreduce::Segment& segment = gradients_.layout.segments[static_cast<size_t>(gradients_.first_statistic_segment) + i];
    T* moving = others_.template data_ptr<T>() + OffsetOf(sites[i].variable);
    const T* sum = reduced.data() + segment.offset;
    const T momentum = static_cast<T>(sites[i].momentum);
    const T fresh = static_cast<T>(1 - sites[i].momentum);
    for (size_t k = 0; k < segment.count; ++k) {
      moving[k] = moving[k] * momentum + sum[k] / static_cast<T>(samples) * fresh;
    }
  }
  return penalty;
}

template <typename T>
double Replica<T>::SumOfPenalties() const {
  return SumPenalties<T>(penalties_, absl::MakeConstSpan(trainable_.data_ptr<T>(), static_cast<size_t>(trainable_.numel())));
}

template <typename T>
std::vector<absl::Span<const T>> Replica<T>::Regions() const {
  std::vector<absl::Span<const T>> regions = {SpanOf<T>(trainable_), SpanOf<T>(others_)};
  for (const at::Tensor& slot : slots_) regions.push_back(SpanOf<T>(slot));
  return regions;
}

template <typename T>
std::string Replica<T>::Hash() const {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash(XXH3_createState(), &XXH3_freeState);
  XXH3_128bits_reset(hash.get());
  for (const absl::Span<const T> region : Regions()) XXH3_128bits_update(hash.get(), region.data(), region.size() * sizeof(T));
  XXH3_128bits_update(hash.get(), &scalars_, sizeof(scalars_));
  return Digits(XXH3_128bits_digest(hash.get()));
}

template <typename T>
size_t Replica<T>::ScalarsOffset() const {
  size_t bytes = 0;
  for (const absl::Span<const T> region : Regions()) bytes += region.size() * sizeof(T);
  return bytes;
}

template <typename T>
std::vector<StateTensor> Replica<T>::StateTensors() const {
  std::vector<StateTensor> tensors;
  const auto variables = model_.variables();
  const auto trainable_bytes = static_cast<size_t>(trainable_.nbytes());
  for (size_t i = 0; i < variables.size(); ++i) {
    const size_t region = gradients_.segment_of_variable[i] >= 0 ? 0 : trainable_bytes;
    tensors.push_back({variables[i].path, static_cast<int>(i), region + static_cast<size_t>(offsets_[i]) * sizeof(T)});
  }
  size_t region = trainable_bytes + static_cast<size_t>(others_.nbytes());
  for (const std::string& slot : optimizer_->slot_names()) {
    for (const int i : trainable_variables_) {
      const std::string name = absl::StrCat("optimizer/", slot, "/", variables[static_cast<size_t>(i)].path);
      tensors.push_back({name, i, region + static_cast<size_t>(OffsetOf(i)) * sizeof(T)});
    }
    region += trainable_bytes;
  }
  return tensors;
}

template <typename T>
void Replica<T>::CopyState(std::byte* to) const {
  for (const absl::Span<const T> region : Regions()) {
    std::memcpy(to, region.data(), region.size() * sizeof(T));
    to += region.size() * sizeof(T);
  }
  std::memcpy(to, &scalars_, sizeof(scalars_));
}

template <typename T>
void Replica<T>::TakeState(absl::Span<const std::byte> from) {
  BeforeChange();
  const auto take = [&from](void* to, size_t bytes) {
    std::memcpy(to, from.data(), bytes);
    from.remove_prefix(bytes);
  };
  take(trainable_.data_ptr(), static_cast<size_t>(trainable_.nbytes()));
  take(others_.data_ptr(), static_cast<size_t>(others_.nbytes()));
  for (const at::Tensor& slot : slots_) take(slot.data_ptr(), static_cast<size_t>(slot.nbytes()));
  take(&scalars_, sizeof(scalars_));
}

template <typename T>
double Replica<T>::LearningRate() const {
  return static_cast<double>(optimizer_->LearningRate(scalars_));
}

template <typename T>
absl::Status Replica<T>::SetLearningRate(double learning_rate) {
  BeforeChange();
  return lockstep::SetLearningRate(*optimizer_, learning_rate, scalars_);
}

template <typename T>
void Replica<T>::FinishTraining() {
  BeforeChange();
  optimizer_->FinishTraining(SpanOf<T>(trainable_), state_);
}

template <typename T>
absl::Status Replica<T>::SaveWeights(const std::string& path) const {
  // Not over what is there: a checkpoint that is being written may read it.
  unlink(path.c_str());
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, "cannot create", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  const auto put = [&](const void* data, size_t bytes) { return WriteAll(fd, {static_cast<const char*>(data), bytes}, path); };
  RETURN_IF_ERROR(put(trainable_.data_ptr(), static_cast<size_t>(trainable_.nbytes())));
  return put(others_.data_ptr(), static_cast<size_t>(others_.nbytes()));
}

template <typename T>
absl::Status Replica<T>::RestoreWeights(const std::string& path) {
  BeforeChange();
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  const auto get = [&](void* data, size_t bytes) -> absl::Status {
    char* at = static_cast<char*>(data);
    while (bytes > 0) {
      const ssize_t count = read(fd, at, bytes);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return ErrnoStatus(errno, "cannot read", path);
      if (count == 0) return absl::DataLossError(absl::StrCat(path, " is shorter than the weights that were saved"));
      at += count;
      bytes -= static_cast<size_t>(count);
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(get(trainable_.data_ptr(), static_cast<size_t>(trainable_.nbytes())));
  return get(others_.data_ptr(), static_cast<size_t>(others_.nbytes()));
}

template <typename T>
void Replica<T>::WriteState(std::ostream& out) const {
  for (const absl::Span<const T> region : Regions()) {
    out.write(reinterpret_cast<const char*>(region.data()), static_cast<std::streamsize>(region.size() * sizeof(T)));
  }
  out.write(reinterpret_cast<const char*>(&scalars_), sizeof(scalars_));
}

template <typename T>
absl::Status Replica<T>::ReadState(std::istream& in) {
  BeforeChange();
  const auto read = [&in](const at::Tensor& tensor) {
    in.read(static_cast<char*>(tensor.data_ptr()), static_cast<std::streamsize>(tensor.nbytes()));
  };
  read(trainable_);
  read(others_);
  for (const at::Tensor& slot : slots_) read(slot);
  in.read(reinterpret_cast<char*>(&scalars_), sizeof(scalars_));
  return in.good() ? absl::OkStatus() : absl::DataLossError("a replica's state ends early");
}

template <typename T>
absl::Status Replica<T>::WriteArchive(const std::string& source, const std::string& target) const {
  const auto variables = model_.variables();
  const auto array = [&](int variable, const at::Tensor& flat, int64_t offset) -> ArchiveArray {
    const VariableInfo& info = variables[static_cast<size_t>(variable)];
    const at::Tensor run = flat.narrow(0, offset, Count(info.run_shape)).view(info.run_shape);
    return {info.keras_shape, absl::Span<const T>(run.template data_ptr<T>(), static_cast<size_t>(run.numel())), [this, variable, run] {
              const memory::ScopedCategory category(memory::Category::kCheckpointCopies);
              const auto keras = std::make_shared<at::Tensor>(model_.ToKeras(variable, run).contiguous());
              return std::shared_ptr<const void>(keras, keras->data_ptr());
            }};
  };
  TrainedWeights weights;
  weights.compile_config = compile_config_;
  for (size_t i = 0; i < variables.size(); ++i) {
    const bool trainable = gradients_.segment_of_variable[i] >= 0;
    weights.arrays[variables[i].hdf5_path] = array(static_cast<int>(i), trainable ? trainable_ : others_, offsets_[i]);
  }
  const T learning_rate = optimizer_->LearningRate(scalars_);
  const T u_product = static_cast<T>(scalars_.u_product);
  using Kind = KerasOptimizerVariable::Kind;
  for (const KerasOptimizerVariable& entry : KerasSlots(optimizer_->config(), optimizer_->slot_names(), optimizer_->variables())) {
    switch (entry.kind) {
      case Kind::kIterations: weights.optimizer.push_back({{}, absl::MakeConstSpan(&scalars_.iterations, 1)}); break;
      case Kind::kLearningRate: weights.optimizer.push_back({{}, absl::MakeConstSpan(&learning_rate, 1)}); break;
      case Kind::kUProduct: weights.optimizer.push_back({{}, absl::MakeConstSpan(&u_product, 1)}); break;
      case Kind::kSlot: {
        const int variable = trainable_variables_[static_cast<size_t>(entry.variable)];
        weights.optimizer.push_back(array(variable, slots_[static_cast<size_t>(entry.slot)], OffsetOf(variable)));
        break;
      }
    }
  }
  return WriteTrainedArchive(source, target, weights);
}

template class Replica<float>;
template class Replica<double>;

}  // namespace lockstep
