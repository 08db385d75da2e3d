#include "coordinator/admission.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

constexpr char kRuntimeCategory[] = "runtime";
// With less, an input pipeline is slow at best.
constexpr uint64_t kLeastPipelineBytes = 64 << 20;

std::string Mebibytes(uint64_t bytes) { return absl::StrCat((bytes + (1 << 20) - 1) >> 20, " MiB"); }

// What the workers could take, idle.
struct Room {
  uint64_t replicas = 0, slots = 0, most_memory = 0;
};

Room RoomOf(const Ask& ask, const std::vector<Offer>& workers) {
  Room room;
  for (const Offer& offer : workers) {
    uint32_t fit = offer.slots;
    while (fit > 0 && ThreadsFor(ask, offer, fit, offer.memory_bytes) == 0) --fit;
    room.replicas += fit;
    room.slots += offer.slots;
    room.most_memory = std::max(room.most_memory, offer.memory_bytes);
  }
  return room;
}

}  // namespace

absl::StatusOr<Ask> AskOf(const v1::Job& submitted, const v1::PlanReport& plan) {
  const v1::Job& job = plan.resolved();
  Ask ask;
  ask.virtual_replicas = std::max(job.virtual_replicas(), 1u);
  ask.min = std::max(job.replicas().min(), 1u);
  ask.max = std::min(std::max(job.replicas().max(), ask.min), ask.virtual_replicas);
  if (ask.min > ask.virtual_replicas) {
    return absl::FailedPreconditionError(absl::StrCat("replicas.min: is ", ask.min, ", above the ", ask.virtual_replicas,
                                                      " virtual replicas that the batch of ", job.batch(),
                                                      " was given; fewer replicas, or virtual_replicas: ", ask.min));
  }
  ask.threads = submitted.replicas().threads();
  ask.most_threads = std::max(job.replicas().threads(), 1u);
  const v1::MemoryProfile& profile = plan.profile();
  const auto runtime = profile.bytes_by_category().find(kRuntimeCategory);
  ask.base_bytes = profile.peak_bytes() + job.data().memory_bytes() + (runtime == profile.bytes_by_category().end() ? 0 : runtime->second);
  ask.pipeline_bytes = job.data().memory_bytes();
  ask.bytes_per_thread = profile.bytes_per_further_thread();
  return ask;
}

uint32_t ThreadsFor(const Ask& ask, const Offer& offer, uint32_t replicas, uint64_t free_bytes) {
  const uint32_t share = ask.threads > 0 ? ask.threads : std::max(offer.cores / replicas, 1u);
  const uint32_t threads = std::min(share, ask.most_threads);
  if (offer.memory_bytes == 0) return threads;
  const uint64_t each = free_bytes / replicas;
  if (ask.BytesWith(1) > each) return 0;
  if (ask.bytes_per_thread == 0) return threads;
  const uint64_t further = (each - ask.BytesWith(1)) / ask.bytes_per_thread;
  return static_cast<uint32_t>(std::min<uint64_t>(threads, 1 + further));
}

std::optional<Shortage> WhyNever(const Ask& ask, const std::vector<Offer>& workers) {
  if (workers.empty()) return Shortage{"no worker is connected"};
  const Room room = RoomOf(ask, workers);
  if (room.replicas >= ask.min) return std::nullopt;
  if (room.slots < ask.min) {
    return Shortage{absl::StrCat(ask.min, " replicas are wanted at least, and the workers known have slots for ", room.slots)};
  }
  return Shortage{absl::StrCat(ask.min, ask.min == 1 ? " replica of " : " replicas of ", Mebibytes(ask.BytesWith(1)),
                               ask.min == 1 ? " is" : " are", " wanted at least, and the memory of the workers known (the largest has ",
                               Mebibytes(room.most_memory), ") is enough for ", room.replicas),
                  true};
}

std::string WhatWouldFit(const Ask& ask, const std::vector<Offer>& workers) {
  const Room room = RoomOf(ask, workers);
  if (room.replicas > 0) return absl::StrCat("replicas.min: ", room.replicas, " would fit");
  const uint64_t others = ask.BytesWith(1) - ask.pipeline_bytes;
  if (others + kLeastPipelineBytes <= room.most_memory) {
    return absl::StrCat("data.memory: ", (room.most_memory - others) >> 20, "MiB would fit");
  }
  return absl::StrCat("it takes a worker with ", Mebibytes(ask.BytesWith(1)), ", or a smaller micro_batch, batch or data.image.size");
}

}  // namespace lockstep
