#include "allreduce/layout.h"

#include <algorithm>

namespace lockstep::allreduce {
namespace {

constexpr size_t kAlignment = 64;

size_t RoundUp(size_t value, size_t to) { return (value + to - 1) / to * to; }

}  // namespace

Layout MakeLayout(std::span<const size_t> counts, Element element, size_t bucket_bytes) {
  const size_t alignment = kAlignment / SizeOf(element);
  Layout layout;
  layout.element = element;
  layout.segments.reserve(counts.size());
  for (const size_t count : counts) {
    layout.segments.push_back({layout.elements, count});
    layout.elements += RoundUp(count, alignment);
  }
  const size_t most = RoundUp(std::max(bucket_bytes, kAlignment), kAlignment) / SizeOf(element);
  size_t offset = 0;
  do {
    layout.buckets.push_back({offset, std::min(most, layout.elements - offset)});
    offset += most;
  } while (offset < layout.elements);
  return layout;
}

Segment ChunkOf(const Layout& layout, const Segment& bucket, int ranks, int rank) {
  const size_t alignment = kAlignment / SizeOf(layout.element);
  const size_t units = RoundUp(bucket.count, alignment) / alignment;
  const auto boundary = [&](int at) {
    return std::min(bucket.count, units * static_cast<size_t>(at) / static_cast<size_t>(ranks) * alignment);
  };
  const size_t begin = boundary(rank);
  return {bucket.offset + begin, boundary(rank + 1) - begin};
}

size_t LargestChunk(const Layout& layout, int ranks) {
  size_t most = 0;
  for (int rank = 0; rank < ranks; ++rank) most = std::max(most, ChunkOf(layout, layout.buckets.front(), ranks, rank).count);
  return most;
}

}  // namespace lockstep::allreduce
