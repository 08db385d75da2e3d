#pragma once
// The categories of law 5 ("accounted"), and which one the calling thread is allocating for. No libtorch.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lockstep::memory {

// What bytes are for. Everything but kUnaccounted is measured by its own means, never by subtraction.
enum class Category : uint8_t {
  kParameters,
  kGradients,
  kOptimizer,
  kActivations,
  kWorkspace,
  kAllocatorSlack,
  kCommunication,
  kInputPipeline,
  kCheckpointCopies,
  kRuntime,
  kUnaccounted,
};
inline constexpr size_t kCategories = static_cast<size_t>(Category::kUnaccounted) + 1;

// The design's name, as in metrics, protos and the summary: "input_pipeline".
std::string_view CategoryName(Category category);

// Bytes by category; index with [static_cast<size_t>(category)] or at().
class Bytes {
 public:
  int64_t& operator[](Category category) { return values_[static_cast<size_t>(category)]; }
  int64_t operator[](Category category) const { return values_[static_cast<size_t>(category)]; }
  int64_t Total() const;

 private:
  std::array<int64_t, kCategories> values_{};
};

// What the calling thread's allocations are booked as. Initially kRuntime.
Category CurrentCategory();

// Sets the calling thread's category for a scope.
class ScopedCategory {
 public:
  explicit ScopedCategory(Category category);
  ~ScopedCategory();
  ScopedCategory(const ScopedCategory&) = delete;
  ScopedCategory& operator=(const ScopedCategory&) = delete;

 private:
  const Category previous_;
};

}  // namespace lockstep::memory
