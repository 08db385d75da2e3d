#include "client/job_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "base/file.h"

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const JobField& Flag(std::string_view flag) {
  for (const JobField& field : JobFields()) {
    if (field.flag == flag) return field;
  }
  throw std::out_of_range(std::string(flag));
}

struct Read {
  v1::Job job;
  std::string model_path;
  std::vector<std::string> errors;
};

Read Yaml(std::string_view text) {
  JobReader reader("/work");
  reader.ReadYaml(text, "job.yaml", "/jobs");
  return {reader.draft().job, reader.draft().model_path, reader.errors()};
}

TEST(JobReader, TheWholeExample) {
  const Read read = Yaml(R"(
name: flowers
model: flowers.keras
data:
  train: {folder: /data/flowers/train}
  validation: {folder: ../validation}
  image: {size: [224, 192], method: bilinear, antialias: true, scale: auto, mean: [0.5], std: [0.1, 0.2, 0.3]}
  last_batch: drop
  bad_samples: {skip: 10}
  memory: 512MiB
  shuffle: false
batch: 256
epochs: 10
seed: 7
virtual_replicas: 8
replicas: {min: 1, max: 8}
memory: {limit: 8GiB, allow: [micro_batch, bfloat16]}
checkpoint: {best: val_accuracy}
stop_early: {metric: val_loss, patience: 3, baseline: 0.5}
optimizer: {class_name: Adam, config: {learning_rate: 0.001, nesterov: false, name: "7"}}
metrics: [accuracy, {class_name: TopK, config: {k: 5}}]
)");
  EXPECT_THAT(read.errors, IsEmpty());
  const v1::Job& job = read.job;
  EXPECT_EQ(read.model_path, "/jobs/flowers.keras");
  EXPECT_EQ(job.data().train().folder(), "/data/flowers/train");
  EXPECT_EQ(job.data().validation().folder(), "/validation");
  EXPECT_EQ(job.data().image().height(), 224u);
  EXPECT_EQ(job.data().image().width(), 192u);
  EXPECT_TRUE(job.data().image().antialias());
  EXPECT_FALSE(job.data().image().has_scale());
  EXPECT_THAT(job.data().image().std(), ElementsAre(0.1, 0.2, 0.3));
  EXPECT_EQ(job.data().last_batch(), v1::Data::DROP);
  EXPECT_EQ(job.data().bad_samples().skip(), 10u);
  EXPECT_EQ(job.data().memory_bytes(), 512ull << 20);
  EXPECT_TRUE(job.data().no_shuffle());
  EXPECT_EQ(job.batch(), 256u);
  EXPECT_EQ(job.epochs(), 10u);
  EXPECT_EQ(job.replicas().max(), 8u);
  EXPECT_EQ(job.memory().limit_bytes(), 8ull << 30);
  EXPECT_THAT(job.memory().allow(), ElementsAre("micro_batch", "bfloat16"));
  EXPECT_EQ(job.stop_early().baseline(), 0.5);
  EXPECT_EQ(job.optimizer(), R"({"class_name":"Adam","config":{"learning_rate":0.001,"nesterov":false,"name":"7"}})");
  EXPECT_THAT(job.metrics(), ElementsAre("accuracy", R"({"class_name":"TopK","config":{"k":5}})"));
}

TEST(JobReader, EveryErrorAtOnceWithLineFieldAndWhatWouldBeRight) {
  const Read read = Yaml(R"(batch: many
epochs: 3
steps: 9
data:
  trian: {folder: /x}
  image: {size: [1, 2, 3], method: bilinaer}
  memory: lots
replicas: {maxx: 2}
checkpoint: {every: 500 stops}
seed: 1
seed: 2
stop_early: 3
quxx: 1
)");
  EXPECT_THAT(read.errors,
              ElementsAre("job.yaml:1: batch: expected a whole number from 1 on, got 'many'",
                          "job.yaml:5: data.trian: unknown key; did you mean 'train'?",
                          "job.yaml:6: data.image.size: expected two numbers, height and width, got a list",
                          "job.yaml:6: data.image.method: expected one of nearest, bilinear, bicubic, area, got 'bilinaer'; did you "
                          "mean 'bilinear'?",
                          "job.yaml:7: data.memory: expected a size like 512MiB, 8GiB or 65536, got 'lots'",
                          "job.yaml:8: replicas.maxx: unknown key; did you mean 'max'?",
                          "job.yaml:9: checkpoint.every: expected something like 500 steps, 10 minutes, or never, got '500 stops'",
                          "job.yaml:11: seed: given twice", HasSubstr("job.yaml:12: stop_early: expected a mapping with metric, patience"),
                          HasSubstr("job.yaml:13: quxx: unknown key; known are: name, kind, model, data"),
                          "job.yaml:3: steps: epochs and steps cannot both be given; drop one of them"));
}

TEST(JobReader, WhatIsNoYamlOrNoMapping) {
  EXPECT_THAT(Yaml("batch: [1").errors, ElementsAre(HasSubstr("job.yaml:1: not YAML")));
  EXPECT_THAT(Yaml("- 1\n- 2\n").errors, ElementsAre(HasSubstr("job.yaml:1: expected a mapping")));
  EXPECT_THAT(Yaml("batch: 1\n---\nbatch: 2\n").errors, ElementsAre(HasSubstr("a second document")));
  EXPECT_THAT(Yaml("batch:\n").errors, ElementsAre("job.yaml:1: batch: expected a whole number from 1 on, got nothing"));
  EXPECT_THAT(Yaml("data:\n").errors, ElementsAre(HasSubstr("job.yaml:1: data: expected a mapping with train, validation")));
  EXPECT_THAT(Yaml("").errors, IsEmpty());
  JobReader reader("/work");
  reader.ReadYamlFile("/no/such/job.yaml");
  EXPECT_THAT(reader.errors(), ElementsAre(HasSubstr("/no/such/job.yaml")));
}

TEST(JobReader, FlagsOverrideTheFile) {
  JobReader reader("/here");
  reader.ReadYaml("batch: 8\nepochs: 2\nreplicas: {min: 1, max: 4}\ndata: {train: a, shuffle: true}\n", "job.yaml", "/jobs");
  reader.ReadFlag(Flag("--batch"), "16", "--batch");
  reader.ReadFlag(Flag("--steps"), "5", "--steps");
  reader.ReadFlag(Flag("--replicas"), "3", "--replicas");
  reader.ReadFlag(Flag("--train"), "b", "--train");
  reader.ReadFlag(Flag("--no-shuffle"), "false", "--no-shuffle");
  reader.ReadFlag(Flag("--image-size"), "32x48", "--image-size");
  reader.ReadFlag(Flag("--metrics"), "accuracy,top_k_categorical_accuracy", "--metrics");
  reader.ReadModelArgument("m.keras");
  EXPECT_THAT(reader.errors(), IsEmpty());
  const v1::Job& job = reader.draft().job;
  EXPECT_EQ(job.batch(), 16u);
  EXPECT_EQ(job.length_case(), v1::Job::kSteps);
  EXPECT_EQ(job.replicas().min(), 3u);
  EXPECT_EQ(job.replicas().max(), 3u);
  EXPECT_EQ(job.data().train().folder(), "/here/b");
  EXPECT_TRUE(job.data().no_shuffle());
  EXPECT_EQ(job.data().image().height(), 32u);
  EXPECT_EQ(job.data().image().width(), 48u);
  EXPECT_THAT(job.metrics(), ElementsAre("accuracy", "top_k_categorical_accuracy"));
  EXPECT_EQ(reader.draft().model_path, "/here/m.keras");
}

TEST(JobReader, MemoryIsAWordOrAMapping) {
  for (const char* text : {"memory: none", "memory: {remedies: none}", "memory: {limit: 8GiB, remedies: none}"}) {
    const Read read = Yaml(text);
    EXPECT_THAT(read.errors, IsEmpty()) << text;
    EXPECT_EQ(read.job.memory().remedies(), "none") << text;
  }
  EXPECT_EQ(Yaml("memory: auto").job.memory().remedies(), "auto");
  EXPECT_EQ(Yaml("memory: {limit: 8GiB, remedies: none}").job.memory().limit_bytes(), 8ull << 30);
  EXPECT_THAT(Yaml("memory: 8GiB").errors, ElementsAre("job.yaml:1: memory: expected one of auto, none, got '8GiB'"));
  EXPECT_THAT(Yaml("memory: {remedies: all}").errors, ElementsAre(HasSubstr("memory.remedies: expected one of auto, none, got 'all'")));
  JobReader reader("/here");
  reader.ReadYaml("memory: auto", "job.yaml", "/jobs");
  reader.ReadFlag(Flag("--memory-remedies"), "none", "--memory-remedies");
  EXPECT_EQ(reader.draft().job.memory().remedies(), "none");
}

TEST(JobReader, ADeviceIsOneOfThoseThatThereAre) {
  const auto read = [](const char* text) {
    JobReader reader("/here");
    reader.ReadYaml(text, "job.yaml", "/here");
    EXPECT_THAT(reader.errors(), IsEmpty());
    return reader.draft().job.device();
  };
  EXPECT_EQ(read("device: cuda"), v1::Job::CUDA);
  EXPECT_EQ(read("device: cpu"), v1::Job::CPU);
  EXPECT_EQ(read("batch: 4"), v1::Job::DEVICE_UNSPECIFIED);
  JobReader reader("/here");
  reader.ReadYaml("device: tpu", "job.yaml", "/here");
  EXPECT_THAT(reader.errors(), ElementsAre("job.yaml:1: device: expected one of cpu, cuda, got 'tpu'; did you mean 'cpu'?"));
}

TEST(JobReader, CheckpointsAreEverySoOften) {
  const auto policy = [](const std::string& every) {
    JobReader reader("/here");
    reader.ReadFlag(Flag("--checkpoint-every"), every, "--checkpoint-every");
    EXPECT_THAT(reader.errors(), IsEmpty()) << every;
    return reader.draft().job.checkpoint();
  };
  EXPECT_EQ(policy("500 steps").every_steps(), 500u);
  EXPECT_EQ(policy("1 step").every_steps(), 1u);
  EXPECT_EQ(policy("90 seconds").every_seconds(), 90u);
  EXPECT_EQ(policy("10 minutes").every_seconds(), 600u);
  EXPECT_EQ(policy("2 hours").every_seconds(), 7200u);
  EXPECT_TRUE(policy("never").never());
  for (const char* wrong : {"0 steps", "steps", "5", "-1 steps", "5 days", "1.5 hours", "5 steps 6", ""}) {
    JobReader reader("/here");
    reader.ReadFlag(Flag("--checkpoint-every"), wrong, "--checkpoint-every");
    EXPECT_EQ(reader.errors().size(), 1u) << wrong;
  }
}

TEST(JobReader, BadFlagsNameTheFlag) {
  JobReader reader("/here");
  reader.ReadFlag(Flag("--batch"), "-4", "--batch");
  reader.ReadFlag(Flag("--epochs"), "1", "--epochs");
  reader.ReadFlag(Flag("--steps"), "1", "--steps");
  reader.ReadFlag(Flag("--scale"), "big", "--scale");
  reader.ReadFlag(Flag("--optimizer"), "{\"class_name\":", "--optimizer");
  EXPECT_THAT(reader.errors(), ElementsAre("--batch: expected a whole number from 1 on, got '-4'", HasSubstr("--epochs and --steps"),
                                           "--scale: expected a number, got 'big' (or auto)", HasSubstr("--optimizer: expected JSON")));
}

// A field of the proto that cannot be reached from YAML would be one that the command line forgot.
void FieldPaths(const google::protobuf::Descriptor* message, const std::string& prefix, std::set<std::string>& paths) {
  for (int i = 0; i < message->field_count(); ++i) {
    const auto* field = message->field(i);
    // A message within one of its kind has no further fields.
    if (field->message_type() != nullptr && field->message_type() != message) {
      FieldPaths(field->message_type(), prefix + field->name() + ".", paths);
    } else {
      paths.insert(prefix + field->name());
    }
  }
}

TEST(JobFields, ReachEveryFieldOfTheProto) {
  std::set<std::string> wanted;
  FieldPaths(v1::Job::descriptor(), "", wanted);
  // Known under other names, set by the client itself, or found by planning.
  for (const char* path : {"model.file_name",
                           "model.size_bytes",
                           "model.xxh3_128",
                           "data.memory_bytes",
                           "data.no_shuffle",
                           "data.image.height",
                           "data.image.width",
                           "memory.limit_bytes",
                           "checkpoint.every_steps",
                           "checkpoint.every_seconds",
                           "checkpoint.never",
                           "plan_only",
                           "memory.tensor_bytes",
                           "memory.step_bytes_per_sample",
                           "memory.recompute.segments.first_call",
                           "memory.recompute.segments.calls",
                           "memory.recompute.segments.stored_calls",
                           "memory.recompute.segments.inner",
                           "memory.recompute.bytes_per_thread",
                           "memory.recompute.time_ratio",
                           "memory.next.segments.first_call",
                           "memory.next.segments.calls",
                           "memory.next.segments.stored_calls",
                           "memory.next.segments.inner",
                           "memory.next.bytes_per_thread",
                           "memory.next.time_ratio"}) {
    EXPECT_EQ(wanted.erase(path), 1u) << path;
  }
  for (const JobField& field : JobFields()) wanted.erase(std::string(field.path));
  EXPECT_THAT(wanted, IsEmpty());
}

TEST(JobFields, AreAllDocumented) {
  const std::string text = ReadFile(LOCKSTEP_CLI_DOCUMENT).value();
  for (const JobField& field : JobFields()) {
    EXPECT_THAT(text, HasSubstr("`" + std::string(field.path) + "`"));
    EXPECT_THAT(text, HasSubstr(std::string(field.flag)));
  }
}

}  // namespace
}  // namespace lockstep
