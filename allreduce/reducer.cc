#include "allreduce/reducer.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lockstep::allreduce {
namespace {

std::vector<Subtree> AllSubtrees(const Membership& membership) {
  std::vector<Subtree> all;
  for (int rank = 0; rank < membership.ranks(); ++rank) {
    const std::vector<Subtree> subtrees = membership.SubtreesOf(rank);
    all.insert(all.end(), subtrees.begin(), subtrees.end());
  }
  return all;
}

}  // namespace

Reducer::Reducer(const Layout& layout, Group& group)
    : layout_(layout),
      group_(group),
      tree_(group.membership().leaves, AllSubtrees(group.membership())),
      scratch_(std::make_unique_for_overwrite<std::byte[]>(tree_.scratch_elements() * SizeOf(layout.element))) {
  const Membership& membership = group.membership();
  for (int rank = 0; rank < membership.ranks(); ++rank) {
    Input input;
    for (const LocalPeer& peer : group.local()) input.local = peer.rank() == rank ? &peer : input.local;
    for (const RemotePeer& peer : group.remote()) input.remote = peer.rank() == rank ? &peer : input.remote;
    const size_t subtrees = membership.SubtreesOf(rank).size();
    for (input.subtree = 0; input.subtree < subtrees; ++input.subtree) inputs_.push_back(input);
  }
}

// As many buckets ahead as peers have room for.
void Reducer::SendSums(uint64_t ready) {
  const Membership& membership = group_.membership();
  const size_t subtrees = membership.SubtreesOf(membership.rank).size();
  std::vector<std::byte*> vectors;
  for (size_t subtree = 0; subtree < subtrees; ++subtree) vectors.push_back(group_.memory().vector(subtree));
  for (; sums_sent_ < std::min(ready, reduced_ + RemotePeer::kWindow); ++sums_sent_) {
    for (RemotePeer& peer : group_.remote()) peer.SendSums(sums_sent_, vectors);
  }
}

absl::StatusOr<bool> Reducer::ReduceNext(uint64_t ready, const std::atomic<bool>* yield) {
  SendSums(ready);
  const auto complete = [&] {
    const auto local = [&](const LocalPeer& peer) { return peer.control().ready.load() > reduced_; };
    const auto remote = [&](const RemotePeer& peer) { return peer.sums_received() > reduced_; };
    return std::all_of(group_.local().begin(), group_.local().end(), local) &&
           std::all_of(group_.remote().begin(), group_.remote().end(), remote);
  };
  ASSIGN_OR_RETURN(const bool came, group_.Wait(complete, due_, yield));
  if (!came) return false;
  layout_.element == Element::kFloat32 ? ReduceChunk<float>(reduced_) : ReduceChunk<double>(reduced_);
  for (RemotePeer& peer : group_.remote()) peer.SendResult(reduced_);
  ++reduced_;
  for (RemotePeer& peer : group_.remote()) {
    peer.UseSums(reduced_);
    RETURN_IF_ERROR(peer.Pump());
  }
  return true;
}

absl::StatusOr<bool> Reducer::Flush(const std::atomic<bool>* yield) {
  const auto sent = [&] {
    return std::all_of(group_.remote().begin(), group_.remote().end(), [](const RemotePeer& peer) { return peer.all_sent(); });
  };
  return group_.Wait(sent, due_, yield);
}

// Each block of the result goes out while it is in the cache: over our own sums, and over those of the peers that share memory.
// Nobody else reads this chunk of them.
template <typename T>
void Reducer::ReduceChunk(uint64_t sequence) {
  const Membership& membership = group_.membership();
  const Segment& bucket = layout_.buckets[sequence % layout_.buckets.size()];
  const Segment chunk = ChunkOf(layout_, bucket, membership.ranks(), membership.rank);
  std::vector<const T*> sources, block(inputs_.size());
  for (const Input& input : inputs_) {
    if (input.remote != nullptr) {
      sources.push_back(reinterpret_cast<const T*>(input.remote->Sums(sequence, input.subtree)));
    } else {
      const RankMemory& memory = input.local != nullptr ? input.local->memory() : group_.memory();
      sources.push_back(reinterpret_cast<const T*>(memory.vector(input.subtree)) + chunk.offset);
      bytes_shared_ += input.local != nullptr ? chunk.count * sizeof(T) : 0;
    }
  }
  const std::span<T> scratch(reinterpret_cast<T*>(scratch_.get()), tree_.scratch_elements());
  T* const result = reinterpret_cast<T*>(group_.memory().vector(0)) + chunk.offset;
  for (size_t done = 0; done < chunk.count; done += TreeSum::kBlock) {
    const size_t count = std::min(TreeSum::kBlock, chunk.count - done);
    std::transform(sources.begin(), sources.end(), block.begin(), [&](const T* source) { return source + done; });
    tree_.Sum<T>(block, count, scratch, result + done);
    for (const LocalPeer& peer : group_.local()) {
      std::memcpy(reinterpret_cast<T*>(peer.memory().vector(0)) + chunk.offset + done, result + done, count * sizeof(T));
    }
  }
  bytes_shared_ += group_.local().size() * chunk.count * sizeof(T);
}

void Reducer::PostVerdict(std::string_view verdict, bool with_gradients, uint64_t ready) {
  verdict_ = std::string(verdict);
  with_gradients_ = with_gradients;
  for (RemotePeer& peer : group_.remote()) {
    peer.Send(with_gradients ? FrameType::kVerdict : FrameType::kVerdictOnly, due_.exchanges - 1,
              {std::as_bytes(std::span(verdict_.data(), verdict_.size()))});
  }
  group_.AnnounceVerdict(due_.exchanges, verdict_, with_gradients, ready);
}

absl::StatusOr<std::vector<std::string>> Reducer::CollectVerdicts() {
  const auto posted = [&] {
    const auto local = [&](const LocalPeer& peer) { return peer.control().posted.load() >= due_.exchanges; };
    const auto remote = [&](const RemotePeer& peer) { return peer.verdicts_received() >= due_.exchanges; };
    return std::all_of(group_.local().begin(), group_.local().end(), local) &&
           std::all_of(group_.remote().begin(), group_.remote().end(), remote);
  };
  RETURN_IF_ERROR(group_.Wait(posted, due_, nullptr).status());
  std::vector<std::string> verdicts(static_cast<size_t>(group_.membership().ranks()));
  verdicts[static_cast<size_t>(group_.membership().rank)] = verdict_;
  const auto take = [&](int rank, PostedVerdict verdict) {
    verdicts[static_cast<size_t>(rank)] = std::move(verdict.bytes);
    if (verdict.with_gradients == with_gradients_) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("rank ", rank, " exchanges ", with_gradients_ ? "verdicts alone" : "gradients", ", rank ",
                                            group_.membership().rank, " does not"));
  };
  for (const LocalPeer& peer : group_.local()) {
    const ControlBlock& control = peer.control();
    const size_t bytes = control.verdict_bytes;
    if (bytes > kMaxVerdictBytes) return absl::DataLossError(absl::StrCat("rank ", peer.rank(), " posted ", bytes, " bytes of verdict"));
    RETURN_IF_ERROR(take(peer.rank(), {std::string(reinterpret_cast<const char*>(control.verdict), bytes), control.with_gradients != 0}));
  }
  for (RemotePeer& peer : group_.remote()) RETURN_IF_ERROR(take(peer.rank(), peer.TakeVerdict()));
  return verdicts;
}

absl::StatusOr<std::vector<std::string>> Reducer::FinishExchange() {
  ASSIGN_OR_RETURN(std::vector<std::string> verdicts, CollectVerdicts());
  group_.AnnounceFinished(due_.exchanges);
  const auto finished = [&] {
    const auto local = [&](const LocalPeer& peer) { return peer.control().finished.load() >= due_.exchanges; };
    const auto remote = [&](const RemotePeer& peer) { return peer.results_received() >= due_.buckets && peer.all_sent(); };
    return std::all_of(group_.local().begin(), group_.local().end(), local) &&
           std::all_of(group_.remote().begin(), group_.remote().end(), remote);
  };
  RETURN_IF_ERROR(group_.Wait(finished, due_, nullptr).status());
  return verdicts;
}

}  // namespace lockstep::allreduce
