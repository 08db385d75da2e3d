#pragma once
// How far ahead the pipeline reads, and with how many threads, by what training makes of it. It starts small. Where training waits it gets
// more of what was short: batches ahead where threads had nothing to do, threads where all were busy. Where training has not waited for a
// while, and others were always ready, it gives one back; where that was wrong, it is tried the more rarely.
//
// What a batch holds does not depend on any of it. Pure: no clock, no threads. Not thread-safe.

#include <algorithm>

namespace lockstep::dataset {

class PrefetchTuner {
 public:
  struct Bounds {
    int least_depth = 1, most_depth = 1;  // batches opened and not returned
    int most_threads = 1;
  };
  // What a batch that was asked for had to wait for.
  enum class Waited { kNot, kForDepth, kForThreads, kForBytes };

  explicit PrefetchTuner(Bounds bounds) : bounds_(bounds), depth_(std::min(2 * bounds.least_depth, bounds.most_depth)) {}

  int depth() const { return depth_; }
  int threads() const { return threads_; }

  // A batch was taken; `ready` others were complete.
  void Took(Waited waited, int ready) {
    if (waited == Waited::kNot) {
      least_ready_ = std::min(least_ready_, ready);
      if (++calm_ < patience_) return;
      // With the least depth the next batch has only just been opened.
      if (least_ready_ > 0 || depth_ == bounds_.least_depth) GiveBack();
    } else {
      if (gave_back_) patience_ = std::min(2 * patience_, kMostPatience);
      gave_back_ = false;
      Grow(waited);
    }
    calm_ = 0;
    least_ready_ = bounds_.most_depth;
  }

 private:
  static constexpr int kLeastPatience = 64;  // batches
  static constexpr int kMostPatience = 8192;

  void Grow(Waited waited) {
    if (waited == Waited::kForBytes) return;
    if (waited == Waited::kForThreads && threads_ < bounds_.most_threads) {
      ++threads_;
    } else {
      depth_ = std::min(depth_ + 1, bounds_.most_depth);
    }
  }

  void GiveBack() {
    gave_back_ = true;
    if (depth_ > bounds_.least_depth) {
      --depth_;
    } else {
      threads_ = std::max(threads_ - 1, 1);
    }
  }

  const Bounds bounds_;
  int depth_;
  int threads_ = 1;
  int calm_ = 0;  // batches since the last change
  int least_ready_ = bounds_.most_depth;
  int patience_ = kLeastPatience;
  bool gave_back_ = false;  // by the last change
};

}  // namespace lockstep::dataset
