#include "coordinator/scheduler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

bool FitsOneMore(const Ask& ask, const Offer& offer, uint32_t taken) {
  return taken < offer.free_slots && ThreadsFor(ask, offer, taken + 1, offer.FreeBytes()) > 0;
}

// How many replicas each worker gets: one at a time, where there are the most cores for it; of equals, the first.
std::vector<uint32_t> Spread(const Ask& ask, const std::vector<Offer>& workers) {
  std::vector<uint32_t> taken(workers.size(), 0);
  for (uint32_t replica = 0; replica < ask.max; ++replica) {
    size_t best = workers.size();
    for (size_t i = 0; i < workers.size(); ++i) {
      if (!FitsOneMore(ask, workers[i], taken[i])) continue;
      const auto cores = [&](size_t at) { return static_cast<double>(workers[at].cores) / (workers[at].own + taken[at] + 1); };
      if (best == workers.size() || cores(i) > cores(best)) best = i;
    }
    if (best == workers.size()) break;
    ++taken[best];
  }
  return taken;
}

std::string Replicas(uint32_t count) { return absl::StrCat(count, count == 1 ? " replica" : " replicas"); }

}  // namespace

Decision Place(const Ask& ask, const std::vector<Offer>& workers) {
  const std::vector<uint32_t> taken = Spread(ask, workers);
  uint32_t replicas = 0;
  for (const uint32_t count : taken) replicas += count;
  if (replicas < ask.min) {
    if (const auto never = WhyNever(ask, workers)) {
      return {{}, absl::StrCat(never->reason, never->of_memory ? "; waiting for a larger worker" : "; waiting for more workers")};
    }
    return {{}, WhatIsHeld(ask, workers)};
  }
  Decision decision;
  decision.reason = absl::StrCat("running on ", Replicas(replicas));
  for (size_t i = 0; i < workers.size(); ++i) {
    for (uint32_t k = 0; k < taken[i]; ++k) {
      MemberRecord& record = decision.members.emplace_back();
      record.member.set_worker_id(workers[i].worker_id);
      record.member.set_address(workers[i].address);
      record.threads = ThreadsFor(ask, workers[i], taken[i], workers[i].FreeBytes());
    }
  }
  if (replicas > 0) Number(decision.members, ask.virtual_replicas);
  return decision;
}

PlanningPlace PlacePlanning(uint64_t bytes, const std::vector<Offer>& workers) {
  if (workers.empty()) return {nullptr, "waiting to plan: no worker is connected"};
  PlanningPlace place;
  const Offer* roomiest = nullptr;  // of those with a slot
  for (const Offer& offer : workers) {
    if (offer.free_slots == 0) continue;
    if (roomiest == nullptr || offer.FreeBytes() > roomiest->FreeBytes()) roomiest = &offer;
    // On a worker that is smaller than that it has all of it.
    const bool fits = offer.memory_bytes == 0 || offer.FreeBytes() >= std::min(bytes, offer.memory_bytes);
    if (fits && (place.worker == nullptr || offer.free_slots > place.worker->free_slots)) place.worker = &offer;
  }
  if (roomiest == nullptr) return {nullptr, "waiting to plan: all workers' slots are in use"};
  if (place.worker == nullptr) {
    place.reason = absl::StrCat("waiting to plan: it takes up to ", BytesText(bytes), ", and worker ", roomiest->worker_id, " has ",
                                BytesText(roomiest->FreeBytes()), " of ", BytesText(roomiest->memory_bytes), " free");
  }
  return place;
}

std::vector<MemberRecord> PlaceMore(const Ask& ask, const std::vector<Offer>& workers, uint32_t count) {
  Ask more = ask;
  more.max = count;
  const std::vector<uint32_t> taken = Spread(more, workers);
  std::vector<MemberRecord> members;
  for (size_t i = 0; i < workers.size(); ++i) {
    for (uint32_t k = 0; k < taken[i]; ++k) {
      MemberRecord& record = members.emplace_back();
      record.member.set_worker_id(workers[i].worker_id);
      record.member.set_address(workers[i].address);
      const uint32_t share = ask.threads > 0 ? ask.threads : std::max(workers[i].cores / (workers[i].own + taken[i]), 1u);
      record.threads = std::min(share, ThreadsFor(more, workers[i], taken[i], workers[i].FreeBytes()));
    }
  }
  return members;
}

// The runs are contiguous, and differ by at most one in length.
void Number(std::vector<MemberRecord>& members, uint32_t virtual_replicas) {
  const auto replicas = static_cast<uint32_t>(members.size());
  const uint32_t each = virtual_replicas / replicas;
  const uint32_t longer = virtual_replicas % replicas;
  uint32_t first = 0;
  for (uint32_t rank = 0; rank < replicas; ++rank) {
    v1::Member& member = members[rank].member;
    member.set_rank(rank);
    member.set_first_virtual_replica(first);
    member.set_virtual_replica_count(each + (rank < longer ? 1 : 0));
    first += member.virtual_replica_count();
  }
}

}  // namespace lockstep
