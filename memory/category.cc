#include "memory/category.h"

#include <numeric>

namespace lockstep::memory {
namespace {

thread_local Category current = Category::kRuntime;

}  // namespace

std::string_view CategoryName(Category category) {
  switch (category) {
    case Category::kParameters: return "parameters";
    case Category::kGradients: return "gradients";
    case Category::kOptimizer: return "optimizer";
    case Category::kActivations: return "activations";
    case Category::kWorkspace: return "workspace";
    case Category::kAllocatorSlack: return "allocator_slack";
    case Category::kCommunication: return "communication";
    case Category::kInputPipeline: return "input_pipeline";
    case Category::kCheckpointCopies: return "checkpoint_copies";
    case Category::kRuntime: return "runtime";
    case Category::kUnaccounted: return "unaccounted";
  }
  return "unaccounted";
}

int64_t Bytes::Total() const { return std::accumulate(values_.begin(), values_.end(), int64_t{0}); }

Category CurrentCategory() { return current; }

ScopedCategory::ScopedCategory(Category category) : previous_(current) { current = category; }
ScopedCategory::~ScopedCategory() { current = previous_; }

}  // namespace lockstep::memory
