#include "coordinator/admission.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lockstep {
namespace {

constexpr char kRuntimeCategory[] = "runtime";
// With less, an input pipeline is slow at best.
constexpr uint64_t kLeastPipelineBytes = 64 << 20;
// A process with libtorch in it and steps of a few samples; and the weights of the file, with all that planning has once for each weight:
// its parameters, gradients and slots.
constexpr uint64_t kPlanningBytes = 512 << 20;
constexpr uint64_t kPlanningPerModelByte = 6;
// That are named in a reason.
constexpr size_t kMostNamed = 3;

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

// " (j0000001: 700 MiB)"
std::string HeldBy(const Offer& offer) {
  std::vector<std::string> jobs;
  for (const auto& [job, bytes] : offer.booked) {
    if (bytes > 0 && jobs.size() < kMostNamed) jobs.push_back(absl::StrCat(job, ": ", BytesText(bytes)));
  }
  if (jobs.empty()) return "";
  if (offer.booked.size() > jobs.size()) jobs.emplace_back("…");
  return absl::StrCat(" (", absl::StrJoin(jobs, ", "), ")");
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
  if (profile.device() == v1::Job::CUDA) {
    // Workers offer the memory of their hosts: what is planned of a device is none of it.
    ask.base_bytes = profile.host().resident_bytes();
    return ask;
  }
  ask.pipeline_bytes = job.data().memory_bytes();
  ask.bytes_per_thread = profile.bytes_per_further_thread();
  if (profile.resident_bytes() > 0) {
    const uint64_t further = (std::max(profile.threads(), 1u) - 1) * ask.bytes_per_thread;
    ask.base_bytes = profile.resident_bytes() - (further < profile.resident_bytes() ? further : 0);
  } else {
    // A record of before whole processes were predicted.
    const auto runtime = profile.bytes_by_category().find(kRuntimeCategory);
    ask.base_bytes = profile.peak_bytes() + ask.pipeline_bytes + (runtime == profile.bytes_by_category().end() ? 0 : runtime->second);
  }
  ask.batch = job.batch();
  ask.largest_batch = profile.largest_batch();
  ask.largest_batch_bytes = profile.limit_bytes();
  for (const v1::Remedy& remedy : profile.remedies()) {
    if (!remedy.applied() && remedy.resident_bytes() < ask.base_bytes) ask.remedies.push_back({remedy.text(), remedy.resident_bytes()});
  }
  return ask;
}

uint64_t PlanningBytes(const v1::Job& submitted) { return kPlanningBytes + kPlanningPerModelByte * submitted.model().size_bytes(); }

uint64_t Offer::BookedBytes() const {
  uint64_t bytes = 0;
  for (const auto& [job, of_job] : booked) bytes += of_job;
  return bytes;
}

std::string BytesText(uint64_t bytes) {
  constexpr uint64_t kTenths = (uint64_t{1} << 30) / 10;
  if (bytes <= uint64_t{2048} << 20) return absl::StrCat((bytes + (1 << 20) - 1) >> 20, " MiB");
  const uint64_t tenths = (bytes + kTenths - 1) / kTenths;
  return absl::StrCat(tenths / 10, ".", tenths % 10, " GiB");
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
  return Shortage{absl::StrCat(ask.min, ask.min == 1 ? " replica of " : " replicas of ", BytesText(ask.BytesWith(1)),
                               ask.min == 1 ? " is" : " are", " wanted at least, and the memory of the workers known (the largest has ",
                               BytesText(room.most_memory), ") is enough for ", room.replicas),
                  true};
}

std::string WhatWouldFit(const Ask& ask, const std::vector<Offer>& workers) {
  const Room room = RoomOf(ask, workers);
  const std::string needed = BytesText(ask.BytesWith(1));
  if (room.replicas > 0) return absl::StrCat("replicas.min: ", room.replicas, " would fit; or further workers with ", needed);
  std::vector<std::string> ways;
  const uint64_t others = ask.BytesWith(1) - ask.pipeline_bytes;
  if (others + kLeastPipelineBytes <= room.most_memory) {
    ways.push_back(absl::StrCat("data.memory: ", (room.most_memory - others) >> 20, "MiB would fit"));
  }
  const auto remedy =
      std::find_if(ask.remedies.begin(), ask.remedies.end(), [&](const Ask::Remedy& one) { return one.bytes <= room.most_memory; });
  if (remedy != ask.remedies.end()) ways.push_back(absl::StrCat(remedy->text, " would fit (", BytesText(remedy->bytes), ")"));
  if (ask.largest_batch > 0 && ask.largest_batch < ask.batch && ask.largest_batch_bytes <= room.most_memory) {
    ways.push_back(absl::StrCat("a batch of ", ask.largest_batch, " would fit"));
  }
  if (ways.empty()) return absl::StrCat("it takes a worker with ", needed, ", or a smaller micro_batch, batch or data.image.size");
  return absl::StrCat(absl::StrJoin(ways, "; "), "; or a worker with ", needed);
}

std::string WhatIsHeld(const Ask& ask, const std::vector<Offer>& workers) {
  std::vector<std::string> held;
  size_t more = 0;
  for (const Offer& offer : workers) {
    if (offer.slots == 0 || ThreadsFor(ask, offer, 1, offer.memory_bytes) == 0) continue;
    if (held.size() == kMostNamed) {
      ++more;
      continue;
    }
    std::string text = absl::StrCat("worker ", offer.worker_id, " has ", offer.free_slots, " of ", offer.slots, " slots");
    if (offer.memory_bytes > 0) absl::StrAppend(&text, " and ", BytesText(offer.FreeBytes()), " of ", BytesText(offer.memory_bytes));
    held.push_back(absl::StrCat(text, " free", HeldBy(offer)));
  }
  if (more > 0) held.push_back(absl::StrCat(more, " more workers"));
  return absl::StrCat(ask.min, ask.min == 1 ? " replica of " : " replicas of ", BytesText(ask.BytesWith(1)), ask.min == 1 ? " is" : " are",
                      " wanted at least; waiting for slots and memory that other jobs hold: ", absl::StrJoin(held, ", "));
}

}  // namespace lockstep
