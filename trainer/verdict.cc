#include "trainer/verdict.h"

#include <xxhash.h>

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "allreduce/ordered_allreduce.h"
#include "allreduce/tree.h"
#include "base/status_macros.h"
#include "proto/verdict.pb.h"

namespace lockstep {
namespace {

constexpr size_t kMostReasonBytes = 200;
// Of a verdict beside the samples' numbers: hash and flags; sums of a virtual replica and its metrics; what stands around a bad one.
constexpr int64_t kOtherBytes = 512;
constexpr int64_t kOtherBytesOfLeaf = 256;
constexpr int64_t kOtherBytesOfBad = 4;

v1::Verdict ToProto(const Verdict& verdict, size_t most_reason_bytes) {
  v1::Verdict proto;
  proto.set_cancel(verdict.cancel);
  proto.set_pause(verdict.pause);
  proto.set_state_hash(verdict.state_hash);
  proto.set_durable_step(verdict.durable_step);
  proto.set_newest_generation(verdict.newest_generation);
  proto.set_out_of_memory(verdict.out_of_memory);
  proto.set_error(verdict.error.substr(0, most_reason_bytes));
  for (const LeafResult& leaf : verdict.leaves) {
    proto.set_out_of_memory(proto.out_of_memory() || leaf.out_of_memory);
    if (proto.error().empty()) proto.set_error(leaf.error.substr(0, most_reason_bytes));
    v1::LeafVerdict* out = proto.add_leaves();
    out->set_leaf(static_cast<uint32_t>(leaf.leaf));
    out->set_samples(static_cast<uint64_t>(leaf.samples));
    out->set_loss_sum(leaf.loss_sum);
    out->set_sample_digest(leaf.sample_digest);
    for (const SumAndCount& metric : leaf.metrics) {
      out->add_metric_sums(metric.sum);
      out->add_metric_counts(metric.count);
    }
    for (const int64_t id : leaf.sample_ids) out->add_sample_ids(static_cast<uint64_t>(id));
    for (const BadSample& bad : leaf.bad) {
      v1::BadSampleVerdict* entry = out->add_bad();
      entry->set_sample(static_cast<uint64_t>(bad.sample));
      entry->set_reason(bad.reason.substr(0, most_reason_bytes));
    }
  }
  return proto;
}

LeafResult FromProto(const v1::LeafVerdict& proto) {
  LeafResult leaf;
  leaf.leaf = static_cast<int>(proto.leaf());
  leaf.samples = static_cast<int64_t>(proto.samples());
  leaf.loss_sum = proto.loss_sum();
  leaf.sample_digest = proto.sample_digest();
  for (int i = 0; i < std::min(proto.metric_sums_size(), proto.metric_counts_size()); ++i) {
    leaf.metrics.push_back({proto.metric_sums(i), proto.metric_counts(i)});
  }
  for (const uint64_t id : proto.sample_ids()) leaf.sample_ids.push_back(static_cast<int64_t>(id));
  for (const v1::BadSampleVerdict& bad : proto.bad()) leaf.bad.push_back({static_cast<int64_t>(bad.sample()), bad.reason()});
  return leaf;
}

// Sums along the tree; everything else stays as the left operand has it.
LeafResult Fold(const std::vector<LeafResult>& leaves, allreduce::Subtree node) {
  if (node.size() == 1) return leaves[static_cast<size_t>(node.begin)];
  const int split = allreduce::SplitOf(node);
  LeafResult left = Fold(leaves, {node.begin, split});
  const LeafResult right = Fold(leaves, {split, node.end});
  left.samples += right.samples;
  left.loss_sum += right.loss_sum;
  left.metrics.resize(std::max(left.metrics.size(), right.metrics.size()));
  for (size_t i = 0; i < right.metrics.size(); ++i) {
    left.metrics[i].sum += right.metrics[i].sum;
    left.metrics[i].count += right.metrics[i].count;
  }
  return left;
}

// "replica state differs: rank 0, 1 has aa…; rank 2 has bb…".
void CompareHashes(const std::vector<v1::Verdict>& verdicts, JointVerdict& joint) {
  std::map<std::string, std::vector<int>> ranks_by_hash;
  for (size_t rank = 0; rank < verdicts.size(); ++rank) {
    if (!verdicts[rank].state_hash().empty()) ranks_by_hash[verdicts[rank].state_hash()].push_back(static_cast<int>(rank));
  }
  if (ranks_by_hash.size() < 2) return;
  size_t most = 0, groups_of_most = 0;
  for (const auto& [hash, ranks] : ranks_by_hash) {
    if (ranks.size() > most) most = ranks.size(), groups_of_most = 0;
    if (ranks.size() == most) ++groups_of_most;
  }
  std::vector<std::string> groups;
  for (const auto& [hash, ranks] : ranks_by_hash) {
    groups.push_back(absl::StrCat("rank ", absl::StrJoin(ranks, ", "), " has ", hash));
    if (ranks.size() < most || groups_of_most > 1) joint.divergent.insert(joint.divergent.end(), ranks.begin(), ranks.end());
  }
  std::sort(joint.divergent.begin(), joint.divergent.end());
  joint.divergence = absl::StrCat("replica state differs: ", absl::StrJoin(groups, "; "));
}

}  // namespace

std::string EncodeVerdict(const Verdict& verdict) {
  std::string encoded = ToProto(verdict, kMostReasonBytes).SerializeAsString();
  if (encoded.size() > allreduce::kMaxVerdictBytes) encoded = ToProto(verdict, 0).SerializeAsString();
  return encoded;
}

int64_t MostSamplesInVerdict(int64_t samples, int virtual_replicas) {
  int64_t bytes_each = 1;  // of a varint
  for (int64_t rest = samples; rest >= 128; rest /= 128) ++bytes_each;
  const int64_t left = static_cast<int64_t>(allreduce::kMaxVerdictBytes) - kOtherBytes - kOtherBytesOfLeaf * virtual_replicas;
  // All of them may be bad, and be named twice.
  return std::max<int64_t>(left / (2 * bytes_each + kOtherBytesOfBad), 0);
}

std::vector<int64_t> LeafUse::Good() const {
  if (bad.empty()) return samples;
  std::vector<int64_t> good;
  for (const int64_t sample : samples) {
    if (std::find(bad.begin(), bad.end(), sample) == bad.end()) good.push_back(sample);
  }
  return good;
}

absl::StatusOr<JointVerdict> JoinVerdicts(const std::vector<std::string>& encoded, int leaves) {
  JointVerdict joint;
  std::vector<v1::Verdict> verdicts(encoded.size());
  std::vector<LeafResult> results(static_cast<size_t>(leaves));
  std::vector<bool> seen(static_cast<size_t>(leaves), false);
  for (size_t rank = 0; rank < encoded.size(); ++rank) {
    if (!verdicts[rank].ParseFromString(encoded[rank])) {
      return absl::DataLossError(absl::StrCat("the verdict of rank ", rank, " cannot be read"));
    }
    const v1::Verdict& verdict = verdicts[rank];
    joint.cancel |= verdict.cancel();
    joint.pause |= verdict.pause();
    joint.durable_step = std::max<uint64_t>(joint.durable_step, verdict.durable_step());
    joint.newest_generation = std::max<uint64_t>(joint.newest_generation, verdict.newest_generation());
    // The cut to nothing leaves a shortage without words.
    const bool first_short = verdict.out_of_memory() && !joint.out_of_memory;
    if (first_short || (joint.error.empty() && !verdict.error().empty())) {
      joint.error = absl::StrCat("rank ", rank, ": ", verdict.error().empty() ? "out of memory" : verdict.error());
    }
    if (verdict.out_of_memory()) joint.ranks_out_of_memory.push_back(static_cast<int>(rank));
    joint.out_of_memory |= verdict.out_of_memory();
    for (const v1::LeafVerdict& proto : verdict.leaves()) {
      if (proto.leaf() >= seen.size() || seen[proto.leaf()]) {
        return absl::DataLossError(absl::StrCat("rank ", rank, " speaks for virtual replica ", proto.leaf(), ", which is not its own"));
      }
      seen[proto.leaf()] = true;
      results[proto.leaf()] = FromProto(proto);
    }
  }
  const auto missing = std::find(seen.begin(), seen.end(), false);
  if (missing != seen.end()) {
    return absl::DataLossError(absl::StrCat("nobody speaks for virtual replica ", missing - seen.begin()));
  }
  const LeafResult total = Fold(results, {0, leaves});
  joint.samples = total.samples;
  joint.loss_sum = total.loss_sum;
  joint.metrics = total.metrics;
  std::vector<uint64_t> digests;
  for (const LeafResult& leaf : results) {
    digests.push_back(leaf.sample_digest);
    LeafUse& use = joint.leaves.emplace_back(LeafUse{leaf.sample_ids, {}, leaf.sample_digest});
    for (const BadSample& one : leaf.bad) use.bad.push_back(one.sample);
    joint.bad.insert(joint.bad.end(), leaf.bad.begin(), leaf.bad.end());
  }
  joint.sample_digest = XXH3_64bits(digests.data(), digests.size() * sizeof(uint64_t));
  CompareHashes(verdicts, joint);
  return joint;
}

}  // namespace lockstep
