#include "client/describe.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/render.h"
#include "client/size.h"

namespace lockstep {
namespace {

// From here on a replica is said to be slow.
constexpr double kSlow = 1.5;

std::string Age(int64_t unix_ms, absl::Time now) {
  if (unix_ms == 0) return "-";
  const absl::Duration age = now - absl::FromUnixMillis(unix_ms);
  if (age >= absl::Hours(48)) return absl::StrCat(age / absl::Hours(24), " days");
  return FormatTime(age < absl::ZeroDuration() ? absl::ZeroDuration() : age);
}

std::string Moment(int64_t unix_ms) {
  return unix_ms == 0 ? "-" : absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixMillis(unix_ms), absl::LocalTimeZone());
}

std::string Steps(const v1::JobStatus& status) {
  if (status.total_steps() == 0) return absl::StrCat(status.latest().step());
  return absl::StrCat(status.latest().step(), "/", status.total_steps());
}

std::string Length(const v1::Job& job) {
  if (job.has_epochs()) return absl::StrCat(job.epochs(), " epochs");
  if (job.has_steps()) return absl::StrCat(job.steps(), " steps");
  return "one pass";
}

void AddReplicas(const v1::JobStatus& status, std::string& text) {
  for (const v1::ReplicaStatus& replica : status.replicas()) {
    absl::StrAppend(&text, "\nreplica ", replica.rank(), "  ", replica.state(), " on ", replica.worker_id(), ", virtual replicas ",
                    replica.first_virtual_replica(), "-", replica.first_virtual_replica() + replica.virtual_replica_count() - 1,
                    ", process ", replica.pid(), ", memory ", FormatSize(replica.memory().peak_bytes()), " at most, ",
                    FormatSize(replica.memory().resident_bytes()), " resident");
    if (!replica.phase().empty()) {
      absl::StrAppend(&text, "\n           in ", replica.phase(), " of step ", replica.step(), " for ",
                      absl::StrFormat("%.1f s", replica.phase_seconds()));
      if (replica.slowness() >= kSlow)
        absl::StrAppend(&text, absl::StrFormat(", slow: its steps take %.1f times the median's", replica.slowness()));
    }
    // Only where somebody wonders: what each did last.
    if (!status.hang().empty()) {
      for (const std::string& recent : replica.recent()) absl::StrAppend(&text, "\n             ", recent);
    }
  }
  for (const v1::ReplicaStatus& joiner : status.joining()) {
    absl::StrAppend(&text, "\njoining    ", joiner.state(), " on ", joiner.worker_id(), ", process ", joiner.pid());
  }
}

// Measured beside predicted: of the whole run, of the first trainer as it runs, or only what is predicted so far.
void AddMemory(const v1::Job& job, const v1::JobStatus& status, std::string& text) {
  if (status.has_result() && status.result().samples() > 0) {
    absl::StrAppend(&text, "\n", RenderResult(job, status.result(), status.profile(), 0));
    return;
  }
  const bool runs = status.replicas_size() > 0 && !status.replicas(0).memory().bytes_by_category().empty();
  if (!runs && !status.has_profile()) return;
  const v1::MemoryProfile& profile = status.profile();
  if (profile.has_host()) {
    v1::MemoryProfile host;
    *host.mutable_bytes_by_category() = profile.host().bytes_by_category();
    host.set_resident_bytes(profile.host().resident_bytes());
    absl::StrAppend(&text, "\nMemory of the CUDA device of one trainer, by category\n", RenderMemory({}, profile),
                    "\nMemory of its process on the host, by category\n", RenderMemory({}, host));
    return;
  }
  absl::StrAppend(&text, "\nMemory of one trainer, by category\n",
                  RenderMemory(runs ? status.replicas(0).memory() : v1::MemoryReport(), profile));
}

}  // namespace

std::string RenderJobs(const v1::ListResponse& jobs, absl::Time now) {
  std::vector<std::vector<std::string>> rows = {{"JOB", "NAME", "STATE", "STEP", "LOSS", "AGE", "REASON"}};
  for (const v1::JobStatus& status : jobs.jobs()) {
    rows.push_back({status.job_id(), status.job().name(), StateName(status.state()), Steps(status),
                    status.has_latest() ? FormatValue(status.latest().loss()) : "-", Age(status.submitted_unix_ms(), now),
                    status.reason()});
  }
  return RenderTable(rows, {false, false, false, true, true, true, false});
}

std::string RenderJob(const v1::JobStatus& status) {
  const v1::Job& job = status.has_resolved() ? status.resolved() : status.job();
  std::string text = absl::StrCat("job        ", status.job_id(), "  ", job.name(), "\nstate      ",
                                  RenderState(status.state(), status.reason()), "\nsubmitted  ", Moment(status.submitted_unix_ms()),
                                  "\nstarted    ", Moment(status.started_unix_ms()), "\nended      ", Moment(status.ended_unix_ms()));
  absl::StrAppend(&text, "\nmodel      ", job.model().file_name(), ", ", FormatSize(job.model().size_bytes()), "\ndata       ",
                  job.data().train().folder(), job.data().has_validation() ? ", validation " : "", job.data().validation().folder());
  absl::StrAppend(&text, "\nlength     ", Length(job), ", batch ", job.batch(), ", ", job.virtual_replicas(), " virtual replicas, seed ",
                  job.seed());
  absl::StrAppend(&text, "\nstep       ", Steps(status), ", generation ", status.generation());
  if (!status.hang().empty()) absl::StrAppend(&text, "\nhang       ", status.hang());
  for (const std::string& note : status.plan_notes()) absl::StrAppend(&text, "\nplan       ", note);
  AddReplicas(status, text);
  if (status.artifacts_size() > 0) absl::StrAppend(&text, "\nartifacts  ", absl::StrJoin(status.artifacts(), ", "));
  AddMemory(job, status, text);
  return text;
}

std::string RenderWorkers(const v1::ListWorkersResponse& workers, absl::Time now) {
  std::vector<std::vector<std::string>> rows = {{"WORKER", "HOST", "STATE", "CORES", "MEMORY", "FREE", "SEEN", "VERSION", "TRAINERS OF"}};
  for (const v1::WorkerStatus& worker : workers.workers()) {
    rows.push_back({worker.worker_id(), worker.host(), worker.state(), absl::StrCat(worker.cores()), FormatSize(worker.memory_bytes()),
                    absl::StrCat(worker.free_slots()), Age(worker.last_seen_unix_ms(), now), worker.version(),
                    absl::StrJoin(worker.trainers(), " ")});
  }
  return RenderTable(rows, {false, false, false, true, true, true, true, false, false});
}

}  // namespace lockstep
