#include "memory/slabs.h"

#include <algorithm>
#include <bit>
#include <iterator>

namespace lockstep::memory {

int64_t Slabs::BlockSize(int64_t bytes) {
  // A quarter of the largest power of two below: 1025 to 2048 go in steps of 256.
  const int64_t power = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1)));
  const int64_t step = std::max<int64_t>(power / 4, 64);
  return (bytes + step - 1) / step * step;
}

std::optional<int64_t> Slabs::Take(int64_t size) {
  const auto room = with_room_.find(size);
  if (room == with_room_.end() || room->second.empty()) return std::nullopt;
  const int64_t begin = *room->second.begin();
  Slab& slab = slabs_.find(begin)->second;
  int64_t block = 0;
  if (slab.freed.empty()) {
    block = begin + slab.cut++ * size;
  } else {
    block = slab.freed.back();
    slab.freed.pop_back();
  }
  ++slab.live;
  free_bytes_ -= size;
  if (!slab.HasRoom()) room->second.erase(begin);
  return block;
}

void Slabs::AddSlab(Range pages, int64_t size) {
  slabs_[pages.begin].block_size = size;
  with_room_[size].insert(pages.begin);
  free_bytes_ += kSlabBytes;
}

std::optional<Range> Slabs::Put(int64_t block) {
  const auto found = std::prev(slabs_.upper_bound(block));
  const int64_t begin = found->first;
  Slab& slab = found->second;
  free_bytes_ += slab.block_size;
  absl::btree_set<int64_t>& with_room = with_room_[slab.block_size];
  if (--slab.live == 0) {
    with_room.erase(begin);
    slabs_.erase(found);
    free_bytes_ -= kSlabBytes;
    return Range{begin, kSlabBytes};
  }
  slab.freed.push_back(block);
  with_room.insert(begin);
  return std::nullopt;
}

}  // namespace lockstep::memory
