#pragma once
// What a trainer tells of its memory, as plain data (proto/progress.proto says what each field means).

#include <cstdint>
#include <string>
#include <vector>

#include "memory/category.h"

namespace lockstep {

struct HighWaterFigures {
  std::string phase, layer;
  int64_t bytes = 0;
};

struct MemoryFigures {
  memory::Bytes bytes;  // by category: tensors as they were at their peak, all else now
  int64_t peak_bytes = 0;
  int64_t limit_bytes = 0;
  int64_t resident_bytes = 0;
  std::vector<HighWaterFigures> high_water;  // of the phases that there were
};

}  // namespace lockstep
