// Times the ordered all-reduce between processes of this host, through shared memory or through sockets on loopback. Prints one line of
// JSON: median microseconds of a step (all buckets submitted, then Finish) by size in bytes, as rank 0 sees it.
//
// Gradients lie where LeafSums leaves them, in this rank's subtree sums, and stay there: the all-reduce is in place. Every rank
// holds one leaf of 1.0, so that each step's result can be checked: the sums double, triple … and are set anew.

#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "allreduce/ordered_allreduce.h"

namespace lockstep::allreduce {
namespace {

struct Settings {
  int ranks = 2;
  std::vector<size_t> sizes = {1 << 10, 64 << 10, 1 << 20, 100 << 20};
  size_t bucket_bytes = 4 << 20;
  double seconds = 1;
  bool sockets = false;
};

// Of one size, in microseconds; empty if something went wrong, which is printed.
std::vector<double> TimeSteps(OrderedAllReduce& all_reduce, const Settings& settings, size_t bytes, size_t buckets) {
  std::vector<double> times;
  const size_t elements = bytes / sizeof(float);
  // All ranks must make as many steps.
  const size_t steps = std::clamp<size_t>(static_cast<size_t>(settings.seconds * 5e9 / static_cast<double>(bytes + (64 << 10))), 20, 20000);
  for (size_t step = 0; step < steps; ++step) {
    std::fill_n(all_reduce.subtree_sums<float>().front().begin(), elements, 1.0f);
    // Both begin together, as at the end of a backward pass of equal lengths.
    if (!all_reduce.ExchangeVerdicts("").ok()) return {};
    const absl::Time start = absl::Now();
    for (size_t bucket = 0; bucket < buckets; ++bucket) all_reduce.Submit(static_cast<int>(bucket)).IgnoreError();
    const absl::Status finished = all_reduce.Finish("").status();
    times.push_back(absl::ToDoubleMicroseconds(absl::Now() - start));
    const std::span<float> result = all_reduce.result<float>();
    const auto expected = static_cast<float>(settings.ranks);
    if (!finished.ok() || result.front() != expected || result[elements - 1] != expected) {
      std::fprintf(stderr, "step %zu: %s, %f\n", step, finished.ToString().c_str(), static_cast<double>(result.front()));
      return {};
    }
  }
  return times;
}

int RunRank(const Settings& settings, int rank, std::vector<std::vector<std::unique_ptr<Listener>>>& listeners,
            const std::vector<std::vector<Endpoint>>& endpoints) {
  std::vector<std::string> entries;
  for (size_t i = 0; i < settings.sizes.size(); ++i) {
    const size_t counts[] = {settings.sizes[i] / sizeof(float)};
    Options options;
    options.membership.leaves = settings.ranks;
    options.membership.rank = rank;
    options.membership.runs = EvenRuns(settings.ranks, settings.ranks);
    options.layout = MakeLayout(counts, Element::kFloat32, settings.bucket_bytes);
    const size_t buckets = options.layout.buckets.size();
    auto all_reduce = OrderedAllReduce::Connect(options, std::move(listeners[i][static_cast<size_t>(rank)]), endpoints[i]);
    if (!all_reduce.ok()) {
      std::fprintf(stderr, "%s\n", all_reduce.status().ToString().c_str());
      return 1;
    }
    std::vector<double> times = TimeSteps(**all_reduce, settings, settings.sizes[i], buckets);
    if (times.empty()) return 1;
    // The first steps touch fresh pages.
    times.erase(times.begin(), times.begin() + static_cast<ptrdiff_t>(times.size() / 5));
    std::nth_element(times.begin(), times.begin() + static_cast<ptrdiff_t>(times.size() / 2), times.end());
    entries.push_back(absl::StrCat("\"", settings.sizes[i], "\": ", times[times.size() / 2]));
  }
  if (rank == 0) std::printf("{%s}\n", absl::StrJoin(entries, ", ").c_str());
  return 0;
}

int Run(const Settings& settings) {
  std::vector<std::vector<std::unique_ptr<Listener>>> listeners(settings.sizes.size());
  std::vector<std::vector<Endpoint>> endpoints(settings.sizes.size());
  for (size_t i = 0; i < settings.sizes.size(); ++i) {
    for (int rank = 0; rank < settings.ranks; ++rank) {
      const std::string host = settings.sockets ? absl::StrCat("host ", rank) : "host";
      auto listener = Listener::Create({.host_id = host, .bind_address = "127.0.0.1"});
      if (!listener.ok()) return std::fprintf(stderr, "%s\n", listener.status().ToString().c_str()), 1;
      endpoints[i].push_back((*listener)->endpoint());
      listeners[i].push_back(*std::move(listener));
    }
  }
  for (int rank = 1; rank < settings.ranks; ++rank) {
    if (fork() == 0) _exit(RunRank(settings, rank, listeners, endpoints));
  }
  int failed = RunRank(settings, 0, listeners, endpoints);
  int status = 0;
  while (wait(&status) > 0) failed |= status;
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace lockstep::allreduce

int main(int argc, char** argv) {
  CLI::App app("Times the ordered all-reduce between processes of this host.");
  lockstep::allreduce::Settings settings;
  app.add_option("--ranks", settings.ranks, "processes")->capture_default_str()->check(CLI::Range(1, 64));
  app.add_option("--sizes", settings.sizes, "bytes to reduce, multiples of 4")->delimiter(',')->capture_default_str();
  app.add_option("--bucket-bytes", settings.bucket_bytes, "bytes of a bucket")->capture_default_str();
  app.add_option("--seconds", settings.seconds, "roughly, for each size")->capture_default_str();
  app.add_flag("--sockets", settings.sockets, "as if every rank were on a host of its own");
  CLI11_PARSE(app, argc, argv);
  return lockstep::allreduce::Run(settings);
}
