#include "worker/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep {
namespace {

using testing::HasSubstr;
using testing::Not;

WorkerFigures Figures() {
  WorkerFigures figures;
  figures.worker_id = "w";
  figures.connected = true;
  figures.counts.crashed = 2;
  figures.counts.silent = 1;
  v1::TrainerReport trainer;
  trainer.set_job_id("a");
  trainer.set_rank(3);
  trainer.mutable_status()->set_step(17);
  trainer.mutable_status()->set_out_of_memory_retries(4);
  trainer.mutable_status()->set_refused_allocations(5);
  trainer.mutable_status()->mutable_phase_seconds()->set_reduce(1.5);
  (*trainer.mutable_status()->mutable_memory()->mutable_bytes_by_category())["optimizer"] = 4096;
  v1::HighWater& high = *trainer.mutable_status()->mutable_memory()->add_high_water();
  high.set_phase("backward");
  high.set_layer("conv1");
  high.set_bytes(8192);
  figures.running.push_back(trainer);
  return figures;
}

TEST(Metrics, TellOfTrainersByJobAndRank) {
  const std::string text = MetricsText(Figures());
  EXPECT_THAT(text, HasSubstr("# TYPE lockstep_trainer_steps_total counter\nlockstep_trainer_steps_total{job=\"a\",rank=\"3\"} 17"));
  EXPECT_THAT(text, HasSubstr("lockstep_trainer_out_of_memory_retries_total{job=\"a\",rank=\"3\"} 4"));
  EXPECT_THAT(text, HasSubstr("lockstep_trainer_refused_allocations_total{job=\"a\",rank=\"3\"} 5"));
  EXPECT_THAT(text, HasSubstr("lockstep_trainer_phase_seconds_total{job=\"a\",rank=\"3\",phase=\"reduce\"} 1.5"));
  EXPECT_THAT(text, HasSubstr("lockstep_trainer_memory_bytes{job=\"a\",rank=\"3\",category=\"optimizer\"} 4096"));
  EXPECT_THAT(text, HasSubstr("lockstep_trainer_memory_high_water_bytes{job=\"a\",rank=\"3\",phase=\"backward\",layer=\"conv1\"} 8192"));
  EXPECT_THAT(text, HasSubstr("lockstep_worker_trainers_ended_total{reason=\"crashed\"} 2"));
  EXPECT_THAT(text, HasSubstr("lockstep_worker_trainers_ended_total{reason=\"silent\"} 1"));
  EXPECT_THAT(text, HasSubstr("lockstep_worker_connected 1"));
}

TEST(Metrics, ATrainersSeriesEndWithIt) {
  WorkerFigures figures = Figures();
  figures.running.clear();
  EXPECT_THAT(MetricsText(figures), Not(HasSubstr("job=\"a\"")));
}

}  // namespace
}  // namespace lockstep
