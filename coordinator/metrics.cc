#include "coordinator/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <cstdio>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// Series of ended jobs: of so many at most.
constexpr size_t kMostEnded = 20;

using Labels = std::vector<ClientMetric::Label>;
using BytesByCategory = google::protobuf::Map<std::string, uint64_t>;

class Families {
 public:
  // Later series of the same family are added to it.
  void Add(const char* name, const char* help, MetricType type, Labels labels, double value) {
    if (families_.empty() || families_.back().name != name) families_.push_back({name, help, type, {}});
    ClientMetric& metric = families_.back().metric.emplace_back();
    metric.label = std::move(labels);
    if (type == MetricType::Counter) metric.counter.value = value;
    if (type == MetricType::Gauge) metric.gauge.value = value;
  }
  std::vector<MetricFamily> Take() { return std::move(families_); }

 private:
  std::vector<MetricFamily> families_;
};

double ResidentBytes() {
  long pages = 0, resident = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "r"); file != nullptr) {
    if (std::fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
    std::fclose(file);
  }
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

void AddCluster(const Snapshot& snapshot, Families& families) {
  for (int state = v1::SUBMITTED; state <= v1::CANCELLED; ++state) {
    const auto found = snapshot.jobs_by_state.find(static_cast<v1::JobState>(state));
    families.Add("lockstep_jobs", "Jobs by state.", MetricType::Gauge, {{"state", v1::JobState_Name(static_cast<v1::JobState>(state))}},
                 found == snapshot.jobs_by_state.end() ? 0 : static_cast<double>(found->second));
  }
  for (const char* state : {"connected", "lost"}) {
    double count = 0;
    for (const v1::WorkerStatus& worker : snapshot.workers) count += worker.state() == state ? 1 : 0;
    families.Add("lockstep_workers", "Workers by state.", MetricType::Gauge, {{"state", state}}, count);
  }
  double free_slots = 0;
  for (const v1::WorkerStatus& worker : snapshot.workers) free_slots += worker.free_slots();
  families.Add("lockstep_free_slots", "Trainers that the connected workers can still take.", MetricType::Gauge, {}, free_slots);
  for (const v1::WorkerStatus& worker : snapshot.workers) {
    families.Add("lockstep_worker_memory_offered_bytes", "Memory that a worker offers to trainers.", MetricType::Gauge,
                 {{"worker", worker.worker_id()}}, static_cast<double>(worker.memory_bytes()));
  }
  for (const auto& [worker, bytes] : snapshot.booked_bytes) {
    families.Add("lockstep_worker_memory_booked_bytes", "Predicted memory of the trainers that were given to a worker.", MetricType::Gauge,
                 {{"worker", worker}}, static_cast<double>(bytes));
  }
  families.Add("lockstep_store_healthy", "1 while decisions can be made durable, 0 after a failed write.", MetricType::Gauge, {},
               snapshot.durable ? 1 : 0);
  families.Add("lockstep_process_resident_bytes", "Resident memory of the coordinator, from the kernel.", MetricType::Gauge, {},
               ResidentBytes());
}

template <typename AddOne>
void ForEachJob(const std::vector<const Snapshot::JobFigures*>& jobs, AddOne add) {
  for (const Snapshot::JobFigures* job : jobs) add(*job, Labels{{"job", job->status.job_id()}});
}

void AddMemory(const std::vector<const Snapshot::JobFigures*>& jobs, Families& families) {
  const auto predicted = [&](const char* name, const char* help, const Labels& labels, const BytesByCategory& bytes_by_category) {
    for (const auto& [category, bytes] : bytes_by_category) {
      Labels with = labels;
      with.push_back({"category", category});
      families.Add(name, help, MetricType::Gauge, std::move(with), static_cast<double>(bytes));
    }
  };
  ForEachJob(jobs, [&](const Snapshot::JobFigures& job, const Labels& labels) {
    const v1::MemoryProfile& profile = job.status.profile();
    predicted("lockstep_job_memory_predicted_bytes", "Memory of one trainer of the job by category, as planning predicted it.", labels,
              profile.has_host() ? profile.host().bytes_by_category() : profile.bytes_by_category());
  });
  ForEachJob(jobs, [&](const Snapshot::JobFigures& job, const Labels& labels) {
    const v1::MemoryProfile& profile = job.status.profile();
    if (!profile.has_host()) return;
    predicted("lockstep_job_device_memory_predicted_bytes", "Memory of one trainer's device by category, as planning predicted it.", labels,
              profile.bytes_by_category());
  });
  ForEachJob(jobs, [&](const Snapshot::JobFigures& job, const Labels& labels) {
    for (const v1::ReplicaStatus& replica : job.status.replicas()) {
      for (const auto& [category, bytes] : replica.memory().bytes_by_category()) {
        Labels with = labels;
        with.push_back({"rank", absl::StrCat(replica.rank())});
        with.push_back({"category", category});
        families.Add("lockstep_trainer_memory_bytes", "Memory of a trainer by category.", MetricType::Gauge, std::move(with),
                     static_cast<double>(bytes));
      }
    }
  });
  ForEachJob(jobs, [&](const Snapshot::JobFigures& job, const Labels& labels) {
    for (const v1::ReplicaStatus& replica : job.status.replicas()) {
      Labels with = labels;
      with.push_back({"rank", absl::StrCat(replica.rank())});
      families.Add("lockstep_trainer_resident_bytes", "Resident memory of a trainer's process.", MetricType::Gauge, std::move(with),
                   static_cast<double>(replica.memory().resident_bytes()));
    }
  });
}

void AddJobs(const std::vector<const Snapshot::JobFigures*>& jobs, Families& families) {
  ForEachJob(jobs, [&](const Snapshot::JobFigures& job, const Labels& labels) {
    families.Add("lockstep_job_steps_total", "Committed steps.", MetricType::Counter, labels,
                 static_cast<double>(job.status.latest().step()));
  });
  ForEachJob(jobs, [&](const Snapshot::JobFigures& job, const Labels& labels) {
    families.Add("lockstep_job_epochs_total", "Ended passes over the training data.", MetricType::Counter, labels,
                 job.status.epochs_size() > 0 ? job.status.epochs().rbegin()->epoch() : 0);
  });
  ForEachJob(jobs, [&](const Snapshot::JobFigures& job, const Labels& labels) {
    families.Add("lockstep_job_samples_total", "Samples of committed steps, since the coordinator started.", MetricType::Counter, labels,
                 static_cast<double>(job.samples));
  });
  ForEachJob(jobs, [&](const Snapshot::JobFigures& job, const Labels& labels) {
    families.Add("lockstep_job_generation", "The job's newest generation.", MetricType::Gauge, labels,
                 static_cast<double>(job.status.generation()));
  });
  ForEachJob(jobs, [&](const Snapshot::JobFigures& job, const Labels& labels) {
    if (!job.status.has_latest()) return;
    families.Add("lockstep_job_loss", "Loss of the newest committed step.", MetricType::Gauge, labels, job.status.latest().loss());
  });
  ForEachJob(jobs, [&](const Snapshot::JobFigures& job, const Labels& labels) {
    if (!job.status.has_latest()) return;
    families.Add("lockstep_job_images_per_second", "Of the newest committed step, over all replicas.", MetricType::Gauge, labels,
                 job.status.latest().images_per_second());
  });
  ForEachJob(jobs, [&](const Snapshot::JobFigures& job, const Labels& labels) {
    const v1::PhaseSeconds& sums = job.phases;
    const std::pair<const char*, double> phases[] = {{"wait_for_data", sums.wait_for_data()},
                                                     {"forward", sums.forward()},
                                                     {"backward", sums.backward()},
                                                     {"reduce", sums.reduce()},
                                                     {"update", sums.update()},
                                                     {"total", sums.total()}};
    for (const auto& [phase, seconds] : phases) {
      Labels with = labels;
      with.push_back({"phase", phase});
      families.Add("lockstep_job_step_seconds_total", "Seconds of committed steps by phase, since the coordinator started.",
                   MetricType::Counter, std::move(with), seconds);
    }
  });
  AddMemory(jobs, families);
}

}  // namespace

RpcCounters::RpcCounters()
    : calls_(prometheus::BuildCounter()
                 .Name("lockstep_rpc_total")
                 .Help("Calls that were answered, by method and status code.")
                 .Register(registry_)) {}

void RpcCounters::Count(const char* method, absl::StatusCode code) {
  calls_.Add({{"method", method}, {"code", absl::StatusCodeToString(code)}}).Increment();
}

std::string MetricsText(const Snapshot& snapshot, RpcCounters& counters) {
  std::vector<const Snapshot::JobFigures*> jobs;
  size_t ended = 0;
  for (const Snapshot::JobFigures& job : snapshot.jobs) {
    if (!HasEnded(job.status.state()) || ended++ < kMostEnded) jobs.push_back(&job);
  }
  Families families;
  AddCluster(snapshot, families);
  AddJobs(jobs, families);
  std::vector<MetricFamily> all = families.Take();
  std::vector<MetricFamily> calls = counters.registry().Collect();
  std::move(calls.begin(), calls.end(), std::back_inserter(all));
  return prometheus::TextSerializer().Serialize(all);
}

}  // namespace lockstep
