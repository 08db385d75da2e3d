#pragma once
// Sums the gradients of this rank's virtual replicas (leaves) along the fixed tree while backward still runs: between the
// compute threads and the all-reduce. Bits: each inner node is one addition of its two children, whatever the order in which
// they come.
//
// Memory: never a gradient a leaf. A node's sum takes its children's place; what has no place yet (a right child whose left
// sibling is not complete) lies in one of a few lanes, each as large as the gradient vector, whose number follows from the
// threads' runs and is logarithmic in their length. All are allocated at construction; steps allocate nothing.
//
// Thread-safety: Add and CompleteWithZeros from all compute threads at once, a leaf at a time each; BeginStep while nobody
// adds. Sums are computed, and the callback is called, outside of the lock, by the thread that completed the bucket.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "allreduce/layout.h"
#include "allreduce/tree.h"

namespace lockstep::allreduce {

template <typename T>
class LeafSums {
 public:
  // `thread_runs`: which leaves each compute thread computes, in order, together this rank's run of 0 … leaves-1.
  // `subtree_sums`: where the sums go, one vector for each of the run's maximal subtrees. `bucket_complete` is called once a
  // step for each bucket all of whose segments are summed. The vectors must outlive this object.
  LeafSums(int leaves, std::vector<LeafRange> thread_runs, Layout layout, std::vector<std::span<T>> subtree_sums,
           std::function<void(int bucket)> bucket_complete);

  // FailedPrecondition: a step is under way, with leaves that are not complete.
  absl::Status BeginStep();

  // Takes the gradient of one segment: `values` holds its count of elements, and is not needed afterwards. InvalidArgument: no
  // such leaf or segment here. FailedPrecondition: added already, or out of the threads' order.
  absl::Status Add(int leaf, int segment, const T* values);
  // Adds zeros for every segment of the leaf that was not added.
  absl::Status CompleteWithZeros(int leaf);

  // Of the lanes.
  size_t temporary_bytes() const { return lanes_.size() * layout_.bytes(); }

  // Lanes for these runs.
  static int CountLanes(int leaves, std::span<const LeafRange> thread_runs);

 private:
  static constexpr int kAbsent = -2;   // no sum of the node yet, or already part of its parent's
  static constexpr int kInPlace = -1;  // in its subtree's vector
  // Otherwise: the number of the lane.

  struct Node {
    LeafRange range;
    int parent = -1;  // -1: a maximal subtree
    int sibling = -1;
    bool is_left = false;
    bool in_place = false;
    int subtree = 0;
  };

  int AddNodes(Subtree range, int parent, int subtree);
  absl::Status MarkAdded(int leaf, int segment);
  absl::Status Merge(int leaf, int segment, const T* values);
  int TakeNode(int node, int segment);
  // True if the sibling came meanwhile: then the node was not kept.
  bool KeepUnlessSiblingCame(int node, int segment, int lane);
  absl::StatusOr<int> TakeLane(int node, int segment);
  void ReturnLane(int lane, int segment);
  T* Place(int node, int segment, int lane);
  void CompleteSubtree(int segment);
  int16_t& LaneOf(int node, int segment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const LeafRange run_;
  const Layout layout_;
  const std::vector<std::span<T>> subtree_sums_;
  const std::function<void(int)> bucket_complete_;
  std::vector<Node> nodes_;      // const after construction, as the next two
  std::vector<int> leaf_nodes_;  // by leaf, from the run's first
  std::vector<std::unique_ptr<T[]>> lanes_;

  absl::Mutex mutex_;
  std::vector<int16_t> lane_of_ ABSL_GUARDED_BY(mutex_);                  // by segment and node
  std::vector<std::vector<int16_t>> free_lanes_ ABSL_GUARDED_BY(mutex_);  // by segment
  std::vector<bool> added_ ABSL_GUARDED_BY(mutex_);                       // by leaf of the run and segment
  std::vector<int> subtrees_left_ ABSL_GUARDED_BY(mutex_);                // by segment
  std::vector<int> segments_left_ ABSL_GUARDED_BY(mutex_);                // by bucket
  size_t adds_left_ ABSL_GUARDED_BY(mutex_) = 0;
};

extern template class LeafSums<float>;
extern template class LeafSums<double>;

}  // namespace lockstep::allreduce
