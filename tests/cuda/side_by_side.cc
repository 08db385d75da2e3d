#include "tests/cuda/side_by_side.h"

#include "absl/strings/str_cat.h"

namespace lockstep {

SideBySide::SideBySide(int64_t limit_bytes, RealAllocator::LimitBy by, RealAllocator::Placement placement)
    : same_placement_(placement == RealAllocator::Placement::kLowest), real_(limit_bytes, by, placement), model_(limit_bytes) {}

SideBySide::~SideBySide() {
  for (size_t block = 0; block < blocks_.size(); ++block) {
    if (blocks_[block].held) real_.Release(blocks_[block].address);
  }
}

std::optional<size_t> SideBySide::Allocate(int64_t bytes) {
  ++events_;
  const std::optional<int32_t> handle = model_.Allocate(bytes);
  if (bytes == 0) {
    blocks_.emplace_back();
    return blocks_.size() - 1;
  }
  const std::optional<int64_t> address = real_.Allocate(bytes);
  const std::string event = absl::StrCat("event ", events_, ", a request of ", bytes, " bytes");
  if (handle.has_value() != address.has_value())
    Note(absl::StrCat(event, ": refused by ", handle.has_value() ? "the real one" : "the model"));
  if (!handle.has_value() || !address.has_value()) {
    if (address.has_value()) real_.Release(*address);
    if (handle.has_value()) model_.Release(*handle);
    Compare(event);
    return std::nullopt;
  }
  if (same_placement_ && model_.AddressOf(*handle) != *address) {
    Note(absl::StrCat(event, ": at ", *address, ", by the model at ", model_.AddressOf(*handle)));
  }
  blocks_.push_back({*address, *handle, true});
  Compare(event);
  return blocks_.size() - 1;
}

void SideBySide::Release(size_t block) {
  if (!blocks_[block].held) return;  // no bytes, or before
  ++events_;
  model_.Release(blocks_[block].handle);
  real_.Release(blocks_[block].address);
  blocks_[block].held = false;
  Compare(absl::StrCat("event ", events_, ", a release"));
}

bool SideBySide::Replay(const std::vector<std::pair<memory::Category, int64_t>>& state_blocks, const memory::Trace& step, int steps) {
  for (const auto& [category, bytes] : state_blocks) {
    if (!Allocate(bytes).has_value()) return false;
  }
  for (int i = 0; i < steps; ++i) {
    std::vector<size_t> numbers;
    for (const memory::Trace::Event& event : step.events) {
      if (event.release) {
        Release(numbers[static_cast<size_t>(event.block)]);
        continue;
      }
      const std::optional<size_t> number = Allocate(event.bytes);
      if (!number.has_value()) return false;
      numbers.push_back(*number);
    }
    for (const size_t number : numbers) Release(number);
  }
  return true;
}

void SideBySide::Compare(const std::string& event) {
  if (!same_placement_ || !difference_.empty()) return;
  const RealAllocator::Usage real = real_.usage();
  const memory::CudaAllocator::Usage& model = model_.usage();
  const auto differ = [&](const char* what, int64_t is, int64_t said) {
    if (is != said) Note(absl::StrCat(event, ": ", what, " ", is, ", by the model ", said));
  };
  differ("allocated", real.allocated, model.allocated);
  differ("reserved", real.reserved, model.reserved);
  differ("most allocated", real.peak_allocated, model.peak_allocated);
  differ("most reserved", real.peak_reserved, model.peak_reserved);
  differ("flushes", real.flushes, model.flushes);
}

void SideBySide::Note(const std::string& difference) {
  if (difference_.empty()) difference_ = difference;
}

}  // namespace lockstep
