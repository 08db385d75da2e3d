#pragma once
// Where everything lies in the vector that is reduced: segments (one a variable or statistic, in the order in which backward
// produces them), and the buckets in which the vector travels while later segments are still being computed.
//
// Segments begin at multiples of 64 bytes; what is between them is padding, and zero. Buckets are equal slices of the vector,
// whatever the segments: a large segment spans several, and small ones share one. There is always at least one bucket, because
// the last carries the verdict.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lockstep::allreduce {

enum class Element : uint8_t { kFloat32 = 1, kFloat64 = 2 };

template <typename T>
constexpr Element ElementOf();
template <>
constexpr Element ElementOf<float>() {
  return Element::kFloat32;
}
template <>
constexpr Element ElementOf<double>() {
  return Element::kFloat64;
}

// Bytes.
constexpr size_t SizeOf(Element element) { return element == Element::kFloat32 ? 4 : 8; }

// In elements.
struct Segment {
  size_t offset = 0;
  size_t count = 0;
  friend bool operator==(const Segment&, const Segment&) = default;
};

struct Layout {
  Element element = Element::kFloat32;
  std::vector<Segment> segments;
  std::vector<Segment> buckets;
  size_t elements = 0;  // padding included
  size_t bytes() const { return elements * SizeOf(element); }
};

// `counts`: elements of each segment. Buckets are of `bucket_bytes`, rounded up to 64.
Layout MakeLayout(std::span<const size_t> counts, Element element, size_t bucket_bytes);

// The slice of a bucket that `rank` of `ranks` reduces, at multiples of 64 bytes; empty for some ranks if the bucket is small.
Segment ChunkOf(const Layout& layout, const Segment& bucket, int ranks, int rank);

// Of the largest chunk of any bucket and rank.
size_t LargestChunk(const Layout& layout, int ranks);

}  // namespace lockstep::allreduce
