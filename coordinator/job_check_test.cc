#include "coordinator/job_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "coordinator/job_id.h"
#include "coordinator/testing_cluster.h"

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

TEST(JobCheck, AGoodJobHasNoErrors) { EXPECT_THAT(CheckJob(SmallJob()), IsEmpty()); }

TEST(JobCheck, EachErrorBeginsWithItsField) {
  const std::pair<const char*, std::function<void(v1::Job&)>> cases[] = {
      {"name: ", [](v1::Job& job) { job.set_name(std::string(201, 'a')); }},
      {"model: is missing", [](v1::Job& job) { job.clear_model(); }},
      {"model: \"../x.keras\"", [](v1::Job& job) { job.mutable_model()->set_file_name("../x.keras"); }},
      {"model: \"x.h5\"", [](v1::Job& job) { job.mutable_model()->set_file_name("x.h5"); }},
      {"model: tiny.keras is empty", [](v1::Job& job) { job.mutable_model()->set_size_bytes(0); }},
      {"model.xxh3_128: ", [](v1::Job& job) { job.mutable_model()->set_xxh3_128("../../etc"); }},
      {"data.train: is missing", [](v1::Job& job) { job.mutable_data()->clear_train(); }},
      {"data.train: \"pictures\" is relative", [](v1::Job& job) { job.mutable_data()->mutable_train()->set_folder("pictures"); }},
      {"data.validation: is missing", [](v1::Job& job) { job.mutable_data()->mutable_validation(); }},
      {"batch: is missing", [](v1::Job& job) { job.set_batch(0); }},
      {"epochs: is missing", [](v1::Job& job) { job.clear_length(); }},
      {"virtual_replicas: 5 does not divide", [](v1::Job& job) { job.set_virtual_replicas(5); }},
      {"virtual_replicas: is 5000", [](v1::Job& job) { job.set_virtual_replicas(5000), job.set_batch(5000); }},
      {"micro_batch: is 5", [](v1::Job& job) { job.set_micro_batch(5); }},
      {"replicas: min 3 is above max 2", [](v1::Job& job) { job.mutable_replicas()->set_min(3); }},
      {"replicas.min: is 5", [](v1::Job& job) { job.mutable_replicas()->set_min(5), job.mutable_replicas()->set_max(5); }},
      {"data.image.method: \"cubic\" is none of nearest, bilinear",
       [](v1::Job& job) { job.mutable_data()->mutable_image()->set_method("cubic"); }},
      {"data.image.scale: ", [](v1::Job& job) { job.mutable_data()->mutable_image()->set_scale(NAN); }},
      {"data.image.mean: has 2 values",
       [](v1::Job& job) { job.mutable_data()->mutable_image()->add_mean(1), job.mutable_data()->mutable_image()->add_mean(1); }},
      {"data.image.std: has a value that is not above 0", [](v1::Job& job) { job.mutable_data()->mutable_image()->add_std(0); }},
      {"memory.allow: \"bfloat16\" is none of micro_batch", [](v1::Job& job) { job.mutable_memory()->add_allow("bfloat16"); }},
      {"memory.remedies: \"all\" is none of auto, none", [](v1::Job& job) { job.mutable_memory()->set_remedies("all"); }},
      {"memory: tensor_bytes", [](v1::Job& job) { job.mutable_memory()->set_tensor_bytes(1); }},
      {"memory: tensor_bytes", [](v1::Job& job) { job.mutable_memory()->add_next(); }},
      {"memory: tensor_bytes", [](v1::Job& job) { job.mutable_memory()->set_step_bytes_per_sample(1); }},
      {"memory: tensor_bytes", [](v1::Job& job) { job.mutable_memory()->mutable_recompute(); }},
      {"device: nothing can be run on cuda yet, only planned", [](v1::Job& job) { job.set_device(v1::Job::CUDA); }},
      {"device: 7 is none that is known", [](v1::Job& job) { job.set_device(static_cast<v1::Job::Device>(7)); }},
      {"precision: \"fp8\"", [](v1::Job& job) { job.set_precision("fp8"); }},
      {"learning_rate: is -1", [](v1::Job& job) { job.set_learning_rate(-1); }},
      {"metrics: ", [](v1::Job& job) { job.add_metrics(""); }},
      {"checkpoint.mode: ", [](v1::Job& job) { job.mutable_checkpoint()->set_mode("up"); }},
      {"checkpoint.folder: \"here\" is relative", [](v1::Job& job) { job.mutable_checkpoint()->set_folder("here"); }},
      {"checkpoint.folder: has no meaning",
       [](v1::Job& job) { job.mutable_checkpoint()->set_folder("/x"), job.mutable_checkpoint()->set_never(true); }},
      {"stop_early.metric: ", [](v1::Job& job) { job.mutable_stop_early(); }},
      {"reduce_on_plateau.factor: is 1", [](v1::Job& job) {
         job.mutable_reduce_on_plateau()->set_metric("loss");
         job.mutable_reduce_on_plateau()->set_factor(1);
       }}};
  for (const auto& [error, spoil] : cases) {
    v1::Job job = SmallJob();
    spoil(job);
    EXPECT_THAT(CheckJob(job), ElementsAre(StartsWith(error)));
  }
}

TEST(JobCheck, AllErrorsAtOnce) {
  v1::Job job = SmallJob();
  job.set_batch(0);
  job.clear_model();
  job.mutable_data()->mutable_train()->set_folder("here");
  job.mutable_data()->mutable_image()->set_method("cubic");
  job.set_precision("fp8");
  EXPECT_THAT(CheckJob(job), ElementsAre(StartsWith("model: "), StartsWith("data.train: "), StartsWith("batch: "),
                                         StartsWith("data.image.method: "), StartsWith("precision: ")));
}

TEST(JobCheck, TrainingsFieldsDoNotBelongToAnEvaluation) {
  v1::Job job = SmallJob();
  job.set_kind(v1::Job::EVALUATE);
  EXPECT_THAT(CheckJob(job), ElementsAre(HasSubstr("belongs to training")));
  job.clear_length();
  EXPECT_THAT(CheckJob(job), IsEmpty());
}

TEST(JobCheck, WhatIsOnlyPlannedMayBeForCuda) {
  v1::Job job = SmallJob();
  job.set_device(v1::Job::CUDA);
  job.set_plan_only(true);
  EXPECT_THAT(CheckJob(job), IsEmpty());
}

TEST(JobCheck, MoreReplicasThanVirtualOnesAreCappedAndSaid) {
  v1::Job job = SmallJob();
  job.mutable_replicas()->set_max(9);
  EXPECT_THAT(CheckJob(job), IsEmpty());
  EXPECT_THAT(JobNotes(job), ElementsAre(HasSubstr("capped to the 4 virtual replicas")));
  EXPECT_THAT(JobNotes(SmallJob()), IsEmpty());
}

TEST(JobCheck, PlainFileNamesStayInTheirFolder) {
  for (const char* plain : {"trained.keras", "train.index", "a b+c-d_e.f", "x"}) EXPECT_TRUE(IsPlainFileName(plain)) << plain;
  for (const std::string& other : {std::string(), std::string("."), std::string(".."), std::string("../x"), std::string("/etc/passwd"),
                                   std::string("a/b"), std::string(".hidden"), std::string("a\\b"), std::string("a\0b", 3),
                                   std::string("a\nb"), std::string("é"), std::string(201, 'a')}) {
    EXPECT_FALSE(IsPlainFileName(other)) << other;
  }
}

TEST(JobId, SortsAsTheNumbersDoAndComesBack) {
  std::string before;
  for (int64_t number : {int64_t{0}, int64_t{1}, int64_t{31}, int64_t{32}, int64_t{200'000'000}, (int64_t{1} << 35) - 1}) {
    const std::string id = JobIdOf(number);
    EXPECT_EQ(NumberOfJobId(id), number);
    EXPECT_LT(before, id);
    EXPECT_TRUE(IsPlainFileName(id));
    before = id;
  }
  for (const char* none : {"", "j", "k0000000", "j00000000", "j000000u", "J0000000"}) EXPECT_EQ(NumberOfJobId(none), -1) << none;
}

}  // namespace
}  // namespace lockstep
