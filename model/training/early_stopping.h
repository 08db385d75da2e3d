#pragma once
// When to stop (Keras's EarlyStopping). A pure function over its state. No libtorch.

#include <cstdint>
#include <optional>
#include <utility>

#include "model/training/monitor.h"

namespace lockstep {

// Without padding.
struct EarlyStoppingState {
  double best = 0;
  int64_t has_best = 0;
  int64_t best_epoch = 0;  // counted from 0; the one whose weights are kept
  int64_t wait = 0;        // epochs since the last improvement
  int64_t keeps = 0;       // weights were kept
};

class EarlyStopping {
 public:
  struct Options {
    int patience = 0;
    std::optional<double> baseline;
    bool restore_best = false;
    int start_from_epoch = 0;
  };
  struct Decision {
    bool keep_weights = false;  // those of this epoch are what to restore at the end, whether it comes early or not
    bool stop = false;
  };

  EarlyStopping(Monitor monitor, Options options) : monitor_(std::move(monitor)), options_(options) {}
  const Monitor& monitor() const { return monitor_; }
  const Options& options() const { return options_; }

  // `epoch` counts from 0.
  Decision OnEpochEnd(int64_t epoch, const EpochLogs& logs, EarlyStoppingState& state) const;

 private:
  Monitor monitor_;
  Options options_;
};

}  // namespace lockstep
