#pragma once
// Which epoch's model to keep as the best (Keras's ModelCheckpoint with save_best_only). A pure function over its state. No libtorch.

#include <cstdint>
#include <utility>

#include "model/training/monitor.h"

namespace lockstep {

// Without padding.
struct BestState {
  double best = 0;
  int64_t has_best = 0;
  int64_t epoch = 0;  // counted from 0
};

class Best {
 public:
  explicit Best(Monitor monitor) : monitor_(std::move(monitor)) {}
  const Monitor& monitor() const { return monitor_; }

  // True if this epoch is the best so far. `epoch` counts from 0.
  bool OnEpochEnd(int64_t epoch, const EpochLogs& logs, BestState& state) const;

 private:
  Monitor monitor_;
};

}  // namespace lockstep
