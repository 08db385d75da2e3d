#pragma once
// The fixed binary tree over the virtual replicas 0 … V-1, along which everything is summed. Same bits: the tree is a function
// of V alone, so that sums do not depend on who holds which leaf. V need not be a power of two.
//
// A node is a range of leaves; its left child holds the largest power of two of them that is smaller than its size:
//
//   V = 6:      [0,6)
//            [0,4)    [4,6)
//        [0,2) [2,4)  4   5
//        0  1  2  3
//
// Pure functions.

#include <vector>

namespace lockstep::allreduce {

// Leaves begin … end-1.
struct LeafRange {
  int begin = 0;
  int end = 0;
  int size() const { return end - begin; }
  friend bool operator==(const LeafRange&, const LeafRange&) = default;
};

// A LeafRange that is a node of the tree.
using Subtree = LeafRange;

// Where the right child begins. REQUIRES: node.size() > 1.
int SplitOf(Subtree node);

// The largest nodes of the tree over 0 … leaves-1 that make up `run`, in order. Aligned runs give one.
std::vector<Subtree> MaximalSubtrees(int leaves, LeafRange run);

// 0 … leaves-1 in `parts` runs whose sizes differ by at most one, and among those in as few maximal subtrees as possible,
// because each costs memory and bytes on the wire. REQUIRES: 1 <= parts <= leaves.
std::vector<LeafRange> EvenRuns(int leaves, int parts);

}  // namespace lockstep::allreduce
