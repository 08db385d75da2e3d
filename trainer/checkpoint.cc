#include "trainer/checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "memory/category.h"
#include "trainer/checkpoint_file.h"
#include "trainer/state_transfer.h"

namespace lockstep {
namespace {

constexpr char kFormat[] = "lockstep-checkpoint-1";
constexpr size_t kChunkBytes = 1 << 20;

template <typename T>
constexpr const char* kDtype = sizeof(T) == 4 ? "F32" : "F64";

template <typename T>
at::TensorOptions OptionsOf() {
  return at::TensorOptions().dtype(sizeof(T) == 4 ? at::kFloat : at::kDouble);
}

// The best epoch's files in a checkpoint, by the names of their tensors.
std::array<std::pair<const char*, std::string>, 2> Named(const CheckpointFiles& files) {
  return {{{"file/best.keras", files.best_archive}, {"file/best.weights", files.best_weights}}};
}

uint64_t SizeOf(const std::string& path) {
  std::error_code error;
  const auto size = path.empty() ? 0 : std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<uint64_t>(size);
}

absl::Status AppendWholeFile(const std::string& path, uint64_t bytes, CheckpointFileWriter& out) {
  std::ifstream in(path, std::ios::binary);
  std::vector<char> chunk(kChunkBytes);
  while (bytes > 0) {
    const auto count = static_cast<std::streamsize>(std::min<uint64_t>(bytes, chunk.size()));
    if (!in.read(chunk.data(), count)) return absl::UnknownError(absl::StrCat("cannot read ", path));
    RETURN_IF_ERROR(out.Append(absl::MakeConstSpan(reinterpret_cast<const std::byte*>(chunk.data()), static_cast<size_t>(count))));
    bytes -= static_cast<uint64_t>(count);
  }
  return absl::OkStatus();
}

template <typename T>
std::vector<CheckpointTensor> TensorsOf(const Model& model, const Replica<T>& replica) {
  std::vector<CheckpointTensor> tensors;
  for (const StateTensor& one : replica.StateTensors()) {
    CheckpointTensor& tensor = tensors.emplace_back();
    tensor.name = one.name;
    tensor.dtype = kDtype<T>;
    tensor.shape = model.variables()[static_cast<size_t>(one.variable)].keras_shape;
    tensor.bytes = sizeof(T);
    for (const int64_t extent : tensor.shape) tensor.bytes *= static_cast<uint64_t>(extent);
  }
  return tensors;
}

std::string Text(FitState& progress) {
  std::ostringstream out;
  StateWriter write(out);
  progress.Fields(write);
  return absl::BytesToHexString(out.str());
}

}  // namespace

std::string CheckpointName(uint64_t step) { return absl::StrFormat("checkpoint-%09d.safetensors", step); }

template <typename T>
absl::Status WriteCheckpoint(const std::string& path, const RunSpec& spec, const Model& model, const Replica<T>& replica,
                             absl::Span<const std::byte> state, FitState& progress, const CheckpointFiles& files) {
  const memory::ScopedCategory category(memory::Category::kCheckpointCopies);
  std::vector<CheckpointTensor> tensors = TensorsOf(model, replica);
  for (const auto& [name, file] : Named(files)) {
    if (const uint64_t bytes = SizeOf(file); bytes > 0) tensors.push_back({name, "U8", {static_cast<int64_t>(bytes)}, bytes});
  }
  const size_t scalars = replica.StateBytes() - replica.ScalarsOffset();
  const std::map<std::string, std::string> metadata = {
      {"format", kFormat},
      {"job", spec.job_id},
      {"step", absl::StrCat(progress.step)},
      {"epoch", absl::StrCat(progress.epoch)},
      {"state_hash", HashOfState(state)},
      {"optimizer",
       absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(state.data()) + replica.ScalarsOffset(), scalars))},
      {"progress", Text(progress)}};
  ASSIGN_OR_RETURN(const auto out, CheckpointFileWriter::Create(path, metadata, tensors));
  for (const StateTensor& one : replica.StateTensors()) {
    const VariableInfo& info = model.variables()[static_cast<size_t>(one.variable)];
    // Only read from.
    auto* data = const_cast<std::byte*>(state.data() + one.offset);
    const at::Tensor keras = model.ToKeras(one.variable, at::from_blob(data, info.run_shape, OptionsOf<T>())).contiguous();
    RETURN_IF_ERROR(out->Append(absl::MakeConstSpan(static_cast<const std::byte*>(keras.data_ptr()), static_cast<size_t>(keras.nbytes()))));
  }
  for (const auto& [name, file] : Named(files)) RETURN_IF_ERROR(AppendWholeFile(file, SizeOf(file), *out));
  return out->Finish();
}

template <typename T>
absl::Status ReadCheckpoint(const std::string& path, const RunSpec& spec, const Model& model, Replica<T>& replica, FitState& progress,
                            const CheckpointFiles& files) {
  const memory::ScopedCategory category(memory::Category::kCheckpointCopies);
  ASSIGN_OR_RETURN(const auto in, CheckpointFileReader::Open(path));
  const auto said = [&](const char* key) {
    const auto found = in->metadata().find(key);
    return found == in->metadata().end() ? std::string() : found->second;
  };
  const std::string name = path.substr(path.rfind('/') + 1);
  if (said("format") != kFormat || said("job") != spec.job_id) {
    return absl::DataLossError(absl::StrCat(name, ": it is of format \"", said("format"), "\" and job \"", said("job"), "\""));
  }
  const at::Tensor buffer = at::zeros({static_cast<int64_t>(replica.StateBytes())}, at::kByte);
  auto* state = static_cast<std::byte*>(buffer.data_ptr());
  for (const StateTensor& one : replica.StateTensors()) {
    const VariableInfo& info = model.variables()[static_cast<size_t>(one.variable)];
    const at::Tensor keras = at::empty(info.keras_shape, OptionsOf<T>());
    RETURN_IF_ERROR(in->Read(one.name, absl::MakeSpan(static_cast<std::byte*>(keras.data_ptr()), static_cast<size_t>(keras.nbytes()))));
    const at::Tensor run = model.FromKeras(one.variable, keras).contiguous();
    std::memcpy(state + one.offset, run.data_ptr(), static_cast<size_t>(run.nbytes()));
  }
  const std::string scalars = absl::HexStringToBytes(said("optimizer"));
  if (scalars.size() != replica.StateBytes() - replica.ScalarsOffset())
    return absl::DataLossError(absl::StrCat(name, ": its optimizer is another"));
  std::memcpy(state + replica.ScalarsOffset(), scalars.data(), scalars.size());
  const absl::Span<const std::byte> whole(state, replica.StateBytes());
  if (const std::string hash = HashOfState(whole); hash != said("state_hash")) {
    return absl::DataLossError(absl::StrCat(name, ": its state has the hash ", hash, ", and was written with ", said("state_hash")));
  }
  std::istringstream text(absl::HexStringToBytes(said("progress")));
  StateReader read(text);
  FitState found;
  found.Fields(read);
  if (!text.good()) return absl::DataLossError(absl::StrCat(name, ": it does not say how far the run had come"));
  for (const auto& [tensor, file] : Named(files)) {
    const CheckpointTensor* entry = in->Find(tensor);
    if (entry == nullptr) continue;
    std::string contents(entry->bytes, '\0');
    RETURN_IF_ERROR(in->Read(tensor, absl::MakeSpan(reinterpret_cast<std::byte*>(contents.data()), contents.size())));
    RETURN_IF_ERROR(WriteFileAtomically(file, contents));
  }
  replica.TakeState(whole);
  progress = std::move(found);
  return absl::OkStatus();
}

template absl::Status WriteCheckpoint(const std::string&, const RunSpec&, const Model&, const Replica<float>&, absl::Span<const std::byte>,
                                      FitState&, const CheckpointFiles&);
template absl::Status WriteCheckpoint(const std::string&, const RunSpec&, const Model&, const Replica<double>&, absl::Span<const std::byte>,
                                      FitState&, const CheckpointFiles&);
template absl::Status ReadCheckpoint(const std::string&, const RunSpec&, const Model&, Replica<float>&, FitState&, const CheckpointFiles&);
template absl::Status ReadCheckpoint(const std::string&, const RunSpec&, const Model&, Replica<double>&, FitState&, const CheckpointFiles&);

}  // namespace lockstep
