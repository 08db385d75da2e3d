// lockstep-simulate: plays seeded schedules of a coordinator's world, and ends with 1 at the first breach of what must hold.

#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/test_folder.h"
#include "tests/simulation/world.h"

namespace lockstep::simulation {
namespace {

bool Play(uint64_t seed, Tally& tally, bool verbose) {
  const TestFolder folder;
  World world(seed, folder.path(), tally);
  const std::string breach = world.Run();
  if (verbose || !breach.empty()) {
    for (const std::string& line : world.trace()) std::printf("%s\n", line.c_str());
  }
  if (breach.empty()) return true;
  std::printf("BREACH with seed %llu: %s\nagain: lockstep-simulate --start %llu --schedules 1\n", static_cast<unsigned long long>(seed),
              breach.c_str(), static_cast<unsigned long long>(seed));
  return false;
}

int Run(uint64_t start, uint64_t schedules, bool verbose) {
  Tally tally;
  const absl::Time begun = absl::Now();
  for (uint64_t seed = start; seed < start + schedules; ++seed) {
    if (!Play(seed, tally, verbose)) return 1;
  }
  const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf(
      "| schedules | events | coordinator crashes | full disks | worker crashes | trainer deaths | lines lost between workers | late calls "
      "| generations | steps | done "
      "| cancelled | "
      "failed | seconds |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n| %llu | %llu | %llu | %llu | %llu | %llu | %llu | "
      "%llu | %llu "
      "| %llu | %llu "
      "| %llu | %llu | %.0f |\n",
      number(tally.schedules), number(tally.events), number(tally.coordinator_crashes), number(tally.full_disks),
      number(tally.worker_crashes), number(tally.trainer_deaths), number(tally.parted), number(tally.late_calls), number(tally.generations),
      number(tally.steps), number(tally.jobs_by_end[v1::DONE]), number(tally.jobs_by_end[v1::CANCELLED]),
      number(tally.jobs_by_end[v1::FAILED]), absl::ToDoubleSeconds(absl::Now() - begun));
  return 0;
}

}  // namespace
}  // namespace lockstep::simulation

int main(int argc, char** argv) {
  CLI::App app("Plays seeded schedules of crashes, delays and lost messages around the coordinator.", "lockstep-simulate");
  uint64_t start = 1, schedules = 1000;
  bool verbose = false;
  app.add_option("--start", start, "Seed of the first schedule")->capture_default_str();
  app.add_option("--schedules", schedules, "How many; each has the next seed")->capture_default_str();
  app.add_flag("--verbose", verbose, "Print what happens in each");
  CLI11_PARSE(app, argc, argv);
  // Its store is written and flushed some hundred times a schedule.
  if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0);
  lockstep::InitLogging("simulate", lockstep::LogLevel::kNone);
  return lockstep::simulation::Run(start, schedules, verbose);
}
