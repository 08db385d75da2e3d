#include "allreduce/leaf_sums.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allreduce/sum.h"
#include "base/status_macros.h"

namespace lockstep::allreduce {
namespace {

LeafRange Union(std::span<const LeafRange> runs) { return {runs.front().begin, runs.back().end}; }

// Buckets that a segment reaches into: [first, last]; none if it has no elements.
struct BucketRange {
  size_t first = 1;
  size_t last = 0;
};
BucketRange BucketsOf(const Layout& layout, const Segment& segment) {
  if (segment.count == 0) return {};
  const size_t each = layout.buckets.front().count;
  return {segment.offset / each, (segment.offset + segment.count - 1) / each};
}

// The node that together with `node` makes up their parent, or an empty range for the root.
LeafRange SiblingOf(int leaves, LeafRange node) {
  LeafRange at{0, leaves};
  while (at != node) {
    const int split = SplitOf(at);
    const LeafRange left{at.begin, split}, right{split, at.end};
    if (left == node) return right;
    if (right == node) return left;
    at = node.end <= split ? left : right;
  }
  return {};
}

// Null stands for zeros.
template <typename T>
void Store(const T* values, size_t count, T* place) {
  if (values == nullptr) {
    std::fill_n(place, count, T{0});
  } else {
    std::copy_n(values, count, place);
  }
}

}  // namespace

// At any time a thread's complete leaves are a prefix of its run, and the sums of the prefix's maximal subtrees wait in lanes,
// but for those that begin where their subtree's vector begins. A leaf needs a lane of its own unless its sibling is in the
// same prefix.
template <typename T>
int LeafSums<T>::CountLanes(int leaves, std::span<const LeafRange> thread_runs) {
  std::vector<bool> begins(static_cast<size_t>(leaves) + 1, false);
  for (const Subtree& subtree : MaximalSubtrees(leaves, Union(thread_runs))) begins[static_cast<size_t>(subtree.begin)] = true;
  int lanes = 0;
  for (const LeafRange& run : thread_runs) {
    int most = 0;
    for (int next = run.begin; next <= run.end; ++next) {
      int waiting = 0;
      for (const Subtree& sum : MaximalSubtrees(leaves, {run.begin, next})) waiting += begins[static_cast<size_t>(sum.begin)] ? 0 : 1;
      if (next < run.end && !begins[static_cast<size_t>(next)]) {
        const LeafRange sibling = SiblingOf(leaves, {next, next + 1});
        if (sibling.end != next || sibling.begin < run.begin) ++waiting;
      }
      most = std::max(most, waiting);
    }
    lanes += most;
  }
  return lanes;
}

template <typename T>
LeafSums<T>::LeafSums(int leaves, std::vector<LeafRange> thread_runs, Layout layout, std::vector<std::span<T>> subtree_sums,
                      std::function<void(int bucket)> bucket_complete)
    : run_(Union(thread_runs)),
      layout_(std::move(layout)),
      subtree_sums_(std::move(subtree_sums)),
      bucket_complete_(std::move(bucket_complete)),
      leaf_nodes_(static_cast<size_t>(run_.size())) {
  int subtree = 0;
  for (const Subtree& range : MaximalSubtrees(leaves, run_)) AddNodes(range, -1, subtree++);
  const int lanes = CountLanes(leaves, thread_runs);
  for (int i = 0; i < lanes; ++i) lanes_.push_back(std::make_unique_for_overwrite<T[]>(layout_.elements));
  const size_t segments = layout_.segments.size();
  lane_of_.resize(segments * nodes_.size());
  free_lanes_.resize(segments);
  for (auto& free : free_lanes_) free.reserve(lanes_.size());
  added_.resize(segments * leaf_nodes_.size());
  subtrees_left_.resize(segments);
  segments_left_.resize(layout_.buckets.size());
}

template <typename T>
int LeafSums<T>::AddNodes(Subtree range, int parent, int subtree) {
  const int index = static_cast<int>(nodes_.size());
  Node node;
  node.range = range;
  node.parent = parent;
  node.subtree = subtree;
  node.in_place =
      parent < 0 || (nodes_[static_cast<size_t>(parent)].in_place && range.begin == nodes_[static_cast<size_t>(parent)].range.begin);
  nodes_.push_back(node);
  if (range.size() == 1) {
    leaf_nodes_[static_cast<size_t>(range.begin - run_.begin)] = index;
    return index;
  }
  const int split = SplitOf(range);
  const int left = AddNodes({range.begin, split}, index, subtree);
  const int right = AddNodes({split, range.end}, index, subtree);
  nodes_[static_cast<size_t>(left)].sibling = right;
  nodes_[static_cast<size_t>(left)].is_left = true;
  nodes_[static_cast<size_t>(right)].sibling = left;
  return index;
}

template <typename T>
absl::Status LeafSums<T>::BeginStep() {
  std::vector<int> empty;
  {
    absl::MutexLock lock(&mutex_);
    if (adds_left_ > 0) return absl::FailedPreconditionError("a step is under way, and some of its leaves are not complete");
    std::fill(lane_of_.begin(), lane_of_.end(), static_cast<int16_t>(kAbsent));
    std::fill(added_.begin(), added_.end(), false);
    std::fill(subtrees_left_.begin(), subtrees_left_.end(), static_cast<int>(subtree_sums_.size()));
    std::fill(segments_left_.begin(), segments_left_.end(), 0);
    for (size_t segment = 0; segment < layout_.segments.size(); ++segment) {
      free_lanes_[segment].clear();
      for (size_t lane = 0; lane < lanes_.size(); ++lane) free_lanes_[segment].push_back(static_cast<int16_t>(lane));
      const BucketRange buckets = BucketsOf(layout_, layout_.segments[segment]);
      for (size_t bucket = buckets.first; bucket <= buckets.last; ++bucket) ++segments_left_[bucket];
    }
    adds_left_ = added_.size();
    for (size_t bucket = 0; bucket < segments_left_.size(); ++bucket) {
      if (segments_left_[bucket] == 0) empty.push_back(static_cast<int>(bucket));
    }
  }
  for (const int bucket : empty) bucket_complete_(bucket);
  return absl::OkStatus();
}

template <typename T>
absl::Status LeafSums<T>::MarkAdded(int leaf, int segment) {
  if (leaf < run_.begin || leaf >= run_.end || segment < 0 || segment >= static_cast<int>(layout_.segments.size())) {
    return absl::InvalidArgumentError(absl::StrCat("leaf ", leaf, ", segment ", segment, ": this rank sums leaves ", run_.begin, " to ",
                                                   run_.end - 1, " of ", layout_.segments.size(), " segments"));
  }
  const size_t index = static_cast<size_t>(leaf - run_.begin) * layout_.segments.size() + static_cast<size_t>(segment);
  absl::MutexLock lock(&mutex_);
  if (adds_left_ == 0 || added_[index]) {
    return absl::FailedPreconditionError(absl::StrCat("leaf ", leaf, ", segment ", segment, " was added already, or no step is under way"));
  }
  added_[index] = true;
  return absl::OkStatus();
}

template <typename T>
absl::Status LeafSums<T>::Add(int leaf, int segment, const T* values) {
  RETURN_IF_ERROR(MarkAdded(leaf, segment));
  return Merge(leaf, segment, values);
}

template <typename T>
absl::Status LeafSums<T>::CompleteWithZeros(int leaf) {
  for (int segment = 0; segment < static_cast<int>(layout_.segments.size()); ++segment) {
    const absl::Status marked = MarkAdded(leaf, segment);
    if (absl::IsFailedPrecondition(marked)) continue;
    RETURN_IF_ERROR(marked);
    RETURN_IF_ERROR(Merge(leaf, segment, nullptr));
  }
  return absl::OkStatus();
}

template <typename T>
int16_t& LeafSums<T>::LaneOf(int node, int segment) {
  return lane_of_[static_cast<size_t>(segment) * nodes_.size() + static_cast<size_t>(node)];
}

template <typename T>
int LeafSums<T>::TakeNode(int node, int segment) {
  absl::MutexLock lock(&mutex_);
  return std::exchange(LaneOf(node, segment), static_cast<int16_t>(kAbsent));
}

template <typename T>
bool LeafSums<T>::KeepUnlessSiblingCame(int node, int segment, int lane) {
  absl::MutexLock lock(&mutex_);
  if (LaneOf(nodes_[static_cast<size_t>(node)].sibling, segment) != kAbsent) return true;
  LaneOf(node, segment) = static_cast<int16_t>(lane);
  return false;
}

template <typename T>
absl::StatusOr<int> LeafSums<T>::TakeLane(int node, int segment) {
  if (nodes_[static_cast<size_t>(node)].in_place) return kInPlace;
  absl::MutexLock lock(&mutex_);
  std::vector<int16_t>& free = free_lanes_[static_cast<size_t>(segment)];
  if (free.empty()) return absl::FailedPreconditionError("leaves were not added in the order of the threads' runs");
  const int lane = free.back();
  free.pop_back();
  return lane;
}

template <typename T>
void LeafSums<T>::ReturnLane(int lane, int segment) {
  if (lane < 0) return;
  absl::MutexLock lock(&mutex_);
  free_lanes_[static_cast<size_t>(segment)].push_back(static_cast<int16_t>(lane));
}

template <typename T>
T* LeafSums<T>::Place(int node, int segment, int lane) {
  const size_t offset = layout_.segments[static_cast<size_t>(segment)].offset;
  if (lane >= 0) return lanes_[static_cast<size_t>(lane)].get() + offset;
  return subtree_sums_[static_cast<size_t>(nodes_[static_cast<size_t>(node)].subtree)].data() + offset;
}

// Climbs from the leaf: whoever completes a node's second child adds the two, outside of the lock, and goes on with the parent.
template <typename T>
absl::Status LeafSums<T>::Merge(int leaf, int segment, const T* values) {
  const size_t count = layout_.segments[static_cast<size_t>(segment)].count;
  int node = leaf_nodes_[static_cast<size_t>(leaf - run_.begin)];
  bool kept = false;  // the node's sum lies in `lane`; until then it is `values`
  int lane = kAbsent;
  while (nodes_[static_cast<size_t>(node)].parent >= 0) {
    const Node& here = nodes_[static_cast<size_t>(node)];
    const int other = TakeNode(here.sibling, segment);
    if (other == kAbsent) {
      if (!kept) {
        ASSIGN_OR_RETURN(lane, TakeLane(node, segment));
        Store(values, count, Place(node, segment, lane));
        kept = true;
      }
      if (KeepUnlessSiblingCame(node, segment, lane)) continue;
      absl::MutexLock lock(&mutex_);
      --adds_left_;
      return absl::OkStatus();
    }
    const T* const mine = kept ? Place(node, segment, lane) : values;
    const T* const theirs = Place(here.sibling, segment, other);
    const bool in_place = nodes_[static_cast<size_t>(here.parent)].in_place;
    const int target = in_place ? kInPlace : here.is_left && kept ? lane : other;
    AddElements(Place(here.parent, segment, target), here.is_left ? mine : theirs, here.is_left ? theirs : mine, count);
    if (kept && lane != target) ReturnLane(lane, segment);
    if (other != target) ReturnLane(other, segment);
    node = here.parent;
    lane = target;
    kept = true;
  }
  if (!kept) Store(values, count, Place(node, segment, kInPlace));
  CompleteSubtree(segment);
  return absl::OkStatus();
}

template <typename T>
void LeafSums<T>::CompleteSubtree(int segment) {
  BucketRange complete;  // those of the segment, if it is complete
  std::vector<int> buckets;
  {
    absl::MutexLock lock(&mutex_);
    --adds_left_;
    if (--subtrees_left_[static_cast<size_t>(segment)] == 0) complete = BucketsOf(layout_, layout_.segments[static_cast<size_t>(segment)]);
    for (size_t bucket = complete.first; bucket <= complete.last; ++bucket) {
      if (--segments_left_[bucket] == 0) buckets.push_back(static_cast<int>(bucket));
    }
  }
  for (const int bucket : buckets) bucket_complete_(bucket);
}

template class LeafSums<float>;
template class LeafSums<double>;

}  // namespace lockstep::allreduce
