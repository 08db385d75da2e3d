#include "client/job_fields.h"

#include <map>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "client/data_fields.h"
#include "client/field_values.h"

namespace lockstep {
namespace {

using Node = YAML::Node;
constexpr uint64_t kMost32 = UINT32_MAX;

absl::Status SetName(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_name(), Text(node));
  return absl::OkStatus();
}

absl::Status SetKind(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::string kind, OneOf(node, {"fit", "evaluate", "predict"}));
  draft.job.set_kind(kind == "fit" ? v1::Job::FIT : kind == "evaluate" ? v1::Job::EVALUATE : v1::Job::PREDICT);
  return absl::OkStatus();
}

absl::Status SetModel(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::string path, Text(node));
  draft.model_path = AbsolutePath(path, draft);
  return absl::OkStatus();
}

absl::Status SetBatch(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t batch, WholeNumber(node, 1, kMost32));
  draft.job.set_batch(static_cast<uint32_t>(batch));
  return absl::OkStatus();
}

absl::Status SetEpochs(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t epochs, WholeNumber(node, 1, kMost32));
  draft.job.set_epochs(static_cast<uint32_t>(epochs));
  return absl::OkStatus();
}

absl::Status SetSteps(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t steps, WholeNumber(node, 1, INT64_MAX));
  draft.job.set_steps(steps);
  return absl::OkStatus();
}

absl::Status SetSeed(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t seed, WholeNumber(node, 0, UINT64_MAX));
  draft.job.set_seed(seed);
  return absl::OkStatus();
}

absl::Status SetVirtualReplicas(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t count, WholeNumber(node, 1, 65536));
  draft.job.set_virtual_replicas(static_cast<uint32_t>(count));
  return absl::OkStatus();
}

absl::Status SetMicroBatch(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t samples, WholeNumber(node, 1, kMost32));
  draft.job.set_micro_batch(static_cast<uint32_t>(samples));
  return absl::OkStatus();
}

absl::Status SetReplicas(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t count, WholeNumber(node, 1, 65536));
  draft.job.mutable_replicas()->set_min(static_cast<uint32_t>(count));
  draft.job.mutable_replicas()->set_max(static_cast<uint32_t>(count));
  return absl::OkStatus();
}

absl::Status SetMinReplicas(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t count, WholeNumber(node, 1, 65536));
  draft.job.mutable_replicas()->set_min(static_cast<uint32_t>(count));
  return absl::OkStatus();
}

absl::Status SetMaxReplicas(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t count, WholeNumber(node, 1, 65536));
  draft.job.mutable_replicas()->set_max(static_cast<uint32_t>(count));
  return absl::OkStatus();
}

absl::Status SetThreads(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t threads, WholeNumber(node, 1, 1024));
  draft.job.mutable_replicas()->set_threads(static_cast<uint32_t>(threads));
  return absl::OkStatus();
}

absl::Status SetMemoryLimit(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t bytes, Size(node));
  draft.job.mutable_memory()->set_limit_bytes(bytes);
  return absl::OkStatus();
}

absl::Status SetRemedies(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_memory()->mutable_remedies(), OneOf(node, {"auto", "none"}));
  return absl::OkStatus();
}

absl::Status SetAllow(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::vector<std::string> remedies, NamesOrObjects(node));
  draft.job.mutable_memory()->clear_allow();
  for (const std::string& remedy : remedies) {
    ASSIGN_OR_RETURN(*draft.job.mutable_memory()->add_allow(), OneOf(Node(remedy), {"micro_batch", "bfloat16"}));
  }
  return absl::OkStatus();
}

absl::Status SetBest(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_checkpoint()->mutable_best(), Text(node));
  return absl::OkStatus();
}

absl::Status SetBestMode(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_checkpoint()->mutable_mode(), OneOf(node, {"min", "max"}));
  return absl::OkStatus();
}

// "500 steps", "10 minutes", "never".
absl::Status SetCheckpointEvery(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::string text, Text(node));
  v1::CheckpointPolicy& policy = *draft.job.mutable_checkpoint();
  policy.clear_every_steps();
  policy.clear_every_seconds();
  policy.set_never(text == "never");
  if (policy.never()) return absl::OkStatus();
  const std::vector<std::string> words = absl::StrSplit(text, ' ', absl::SkipEmpty());
  static const std::map<std::string, uint64_t> seconds = {{"second", 1},   {"seconds", 1}, {"minute", 60},
                                                          {"minutes", 60}, {"hour", 3600}, {"hours", 3600}};
  uint64_t count = 0;
  if (words.size() == 2 && absl::SimpleAtoi(words[0], &count) && count > 0 && count <= kMost32) {
    if (words[1] == "step" || words[1] == "steps") policy.set_every_steps(count);
    if (const auto unit = seconds.find(words[1]); unit != seconds.end()) policy.set_every_seconds(count * unit->second);
    if (policy.every_steps() + policy.every_seconds() > 0) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("expected something like 500 steps, 10 minutes, or never, got '", text, "'"));
}

absl::Status SetCheckpointsKept(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t count, WholeNumber(node, 1, 1'000));
  draft.job.mutable_checkpoint()->set_keep(static_cast<uint32_t>(count));
  return absl::OkStatus();
}

absl::Status SetCheckpointFolder(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::string path, Text(node));
  draft.job.mutable_checkpoint()->set_folder(AbsolutePath(path, draft));
  return absl::OkStatus();
}

absl::Status SetStopMetric(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_stop_early()->mutable_metric(), Text(node));
  return absl::OkStatus();
}

absl::Status SetStopPatience(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t patience, WholeNumber(node, 0, kMost32));
  draft.job.mutable_stop_early()->set_patience(static_cast<uint32_t>(patience));
  return absl::OkStatus();
}

absl::Status SetStopMinDelta(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const double delta, Number(node));
  draft.job.mutable_stop_early()->set_min_delta(delta);
  return absl::OkStatus();
}

absl::Status SetStopMode(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_stop_early()->mutable_mode(), OneOf(node, {"min", "max"}));
  return absl::OkStatus();
}

absl::Status SetRestoreBest(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const bool restore, TrueOrFalse(node));
  draft.job.mutable_stop_early()->set_restore_best(restore);
  return absl::OkStatus();
}

absl::Status SetStopStart(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t epoch, WholeNumber(node, 0, kMost32));
  draft.job.mutable_stop_early()->set_start_from_epoch(static_cast<uint32_t>(epoch));
  return absl::OkStatus();
}

absl::Status SetBaseline(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const double baseline, Number(node));
  draft.job.mutable_stop_early()->set_baseline(baseline);
  return absl::OkStatus();
}

absl::Status SetPlateauMetric(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_reduce_on_plateau()->mutable_metric(), Text(node));
  return absl::OkStatus();
}

absl::Status SetPlateauFactor(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const double factor, Number(node));
  if (factor <= 0 || factor >= 1) return absl::InvalidArgumentError(absl::StrCat("expected a number between 0 and 1, got ", factor));
  draft.job.mutable_reduce_on_plateau()->set_factor(factor);
  return absl::OkStatus();
}

absl::Status SetPlateauPatience(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t patience, WholeNumber(node, 1, kMost32));
  draft.job.mutable_reduce_on_plateau()->set_patience(static_cast<uint32_t>(patience));
  return absl::OkStatus();
}

absl::Status SetPlateauMinDelta(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const double delta, Number(node));
  draft.job.mutable_reduce_on_plateau()->set_min_delta(delta);
  return absl::OkStatus();
}

absl::Status SetPlateauMode(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_reduce_on_plateau()->mutable_mode(), OneOf(node, {"min", "max"}));
  return absl::OkStatus();
}

absl::Status SetCooldown(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t cooldown, WholeNumber(node, 0, kMost32));
  draft.job.mutable_reduce_on_plateau()->set_cooldown(static_cast<uint32_t>(cooldown));
  return absl::OkStatus();
}

absl::Status SetMinLearningRate(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const double rate, Number(node));
  draft.job.mutable_reduce_on_plateau()->set_min_learning_rate(rate);
  return absl::OkStatus();
}

absl::Status SetOptimizer(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_optimizer(), NameOrObject(node));
  return absl::OkStatus();
}

absl::Status SetLoss(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_loss(), NameOrObject(node));
  return absl::OkStatus();
}

absl::Status SetMetrics(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::vector<std::string> metrics, NamesOrObjects(node));
  draft.job.mutable_metrics()->Assign(metrics.begin(), metrics.end());
  return absl::OkStatus();
}

absl::Status SetLearningRate(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const double rate, Number(node));
  if (rate < 0) return absl::InvalidArgumentError(absl::StrCat("expected a number from 0 on, got ", rate));
  draft.job.set_learning_rate(rate);
  return absl::OkStatus();
}

absl::Status SetPrecision(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_precision(), OneOf(node, {"float32", "float64"}));
  return absl::OkStatus();
}

absl::Status SetLogSamples(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const bool log, TrueOrFalse(node));
  draft.job.set_log_samples(log);
  return absl::OkStatus();
}

absl::Status SetHashEvery(const Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t steps, WholeNumber(node, 1, kMost32));
  draft.job.set_state_hash_every(static_cast<uint32_t>(steps));
  return absl::OkStatus();
}

absl::Status SetDevice(const Node& node, JobDraft& draft) {
  const absl::StatusOr<std::string> device = OneOf(node, {"cpu", "cuda"});
  if (device.ok()) draft.job.set_device(*device == "cuda" ? v1::Job::CUDA : v1::Job::CPU);
  return device.status();
}

std::vector<JobField> MakeFields() {
  constexpr bool kFit = true;
  constexpr bool kAll = false;
  return {
      {"name", "--name", "", "TEXT", "A name for people; default: the model file's stem", kAll, SetName},
      {"kind", "", "", "", "fit, evaluate or predict", kAll, SetKind},
      {"model", "", "", "", "The .keras file", kAll, SetModel},
      {"data.train", "--train", "", "DIR", "Folder of class folders to train on", kAll, SetTrain},
      {"data.train.folder", "", "", "", "The same", kAll, SetTrain},
      {"data.validation", "--validation", "", "DIR", "Folder of class folders to evaluate after every epoch", kFit, SetValidation},
      {"data.validation.folder", "", "", "", "The same", kFit, SetValidation},
      {"data.image.size", "--image-size", "", "HxW", "Pixels; default: the model's input", kAll, SetImageSize},
      {"data.image.method", "--method", "", "NAME", "nearest, bilinear (default), bicubic or area", kAll, SetMethod},
      {"data.image.antialias", "--no-antialias", "false", "", "Do not widen the resize filter for what is shrunk", kAll, SetAntialias},
      {"data.image.scale", "--scale", "", "X", "What pixels 0-255 are multiplied by; default auto", kAll, SetScale},
      {"data.image.mean", "--mean", "", "M[,M,M]", "Subtracted after scaling, per channel", kAll, SetMean},
      {"data.image.std", "--std", "", "S[,S,S]", "Divided by after that, per channel", kAll, SetStd},
      {"data.image.full_decode", "--full-decode", "true", "", "Decode JPEGs at full size before the resize", kAll, SetFullDecode},
      {"data.last_batch", "--last-batch", "", "use|drop", "The last batch of an epoch if it is not full; default use", kFit, SetLastBatch},
      {"data.bad_samples.skip", "--skip-bad", "", "N", "Pictures that may be left out because they cannot be decoded; default 0", kAll,
       SetSkipBad},
      {"data.memory", "--data-memory", "", "SIZE", "The input pipeline's budget per trainer; default 256MiB", kAll, SetDataMemory},
      {"data.shuffle", "--no-shuffle", "false", "", "Keep the order of the files", kFit, SetShuffle},
      {"data.decode_threads", "--decode-threads", "", "N", "Per trainer; default: its cores", kAll, SetDecodeThreads},
      {"batch", "--batch", "", "N", "Samples in one step, over all replicas", kAll, SetBatch},
      {"epochs", "--epochs", "", "N", "Passes over the data", kFit, SetEpochs},
      {"steps", "--steps", "", "N", "Steps, in place of epochs", kFit, SetSteps},
      {"seed", "--seed", "", "S", "Root of every random stream; default 0", kAll, SetSeed},
      {"virtual_replicas", "--virtual-replicas", "", "V", "Slices of every batch; default 8, halved until it fits the batch", kAll,
       SetVirtualReplicas},
      {"micro_batch", "--micro-batch", "", "N", "Samples of a virtual replica that go through the graph at once", kAll, SetMicroBatch},
      {"replicas", "--replicas", "", "N", "Trainers; default 1", kAll, SetReplicas},
      {"replicas.min", "", "", "", "Fewest trainers to run with", kAll, SetMinReplicas},
      {"replicas.max", "", "", "", "Most trainers to use", kAll, SetMaxReplicas},
      {"replicas.threads", "--threads", "", "N", "Compute threads of a trainer; default: an even share of the cores", kAll, SetThreads},
      {"device", "--device", "", "cpu|cuda", "What trainers compute on: cpu (default), or cuda, which so far can be planned and not run",
       kAll, SetDevice},
      {"memory", "", "", "", "auto or none: short for memory.remedies", kAll, SetRemedies},
      {"memory.limit", "--memory-limit", "", "SIZE",
       "What the whole process of one trainer may take, with cuda of its device; default: what its worker has, with cuda no limit", kAll,
       SetMemoryLimit},
      {"memory.remedies", "--memory-remedies", "", "auto|none",
       "What does not fit is fitted by what keeps the bits, or refused as it is; default auto", kAll, SetRemedies},
      {"memory.allow", "--allow", "", "NAME[,...]",
       "Remedies that change bits, tried last: micro_batch (smaller ones); bfloat16 is not there yet, and refused", kAll, SetAllow},
      {"checkpoint.every", "--checkpoint-every", "", "N UNIT",
       "Steps, seconds, minutes or hours between checkpoints, or never; default 10 minutes", kFit, SetCheckpointEvery},
      {"checkpoint.keep", "--keep-checkpoints", "", "N", "How many checkpoints are kept; default 2", kFit, SetCheckpointsKept},
      {"checkpoint.folder", "--checkpoint-folder", "", "FOLDER",
       "Keep them there, on storage that all workers see, not with the coordinator", kFit, SetCheckpointFolder},
      {"checkpoint.best", "--best", "", "METRIC", "Keep the model of the epoch where this was best", kFit, SetBest},
      {"checkpoint.mode", "--best-mode", "", "min|max", "Default: min for losses, else max", kFit, SetBestMode},
      {"stop_early.metric", "--stop-early", "", "METRIC", "End when this no longer improves", kFit, SetStopMetric},
      {"stop_early.patience", "--patience", "", "N", "Epochs without improvement before that; default 0", kFit, SetStopPatience},
      {"stop_early.min_delta", "--min-delta", "", "X", "Least change that counts as improvement", kFit, SetStopMinDelta},
      {"stop_early.mode", "", "", "", "min or max", kFit, SetStopMode},
      {"stop_early.restore_best", "--restore-best", "true", "", "Return the weights of the best epoch", kFit, SetRestoreBest},
      {"stop_early.start_from_epoch", "", "", "", "Epochs to wait before watching", kFit, SetStopStart},
      {"stop_early.baseline", "", "", "", "What the metric must be better than", kFit, SetBaseline},
      {"reduce_on_plateau.metric", "--reduce-on-plateau", "", "METRIC", "Reduce the learning rate when this no longer improves", kFit,
       SetPlateauMetric},
      {"reduce_on_plateau.factor", "", "", "", "What the rate is multiplied by; default 0.1", kFit, SetPlateauFactor},
      {"reduce_on_plateau.patience", "", "", "", "Epochs; default 10", kFit, SetPlateauPatience},
      {"reduce_on_plateau.min_delta", "", "", "", "Default 0.0001", kFit, SetPlateauMinDelta},
      {"reduce_on_plateau.mode", "", "", "", "min or max", kFit, SetPlateauMode},
      {"reduce_on_plateau.cooldown", "", "", "", "Epochs after a reduction; default 0", kFit, SetCooldown},
      {"reduce_on_plateau.min_learning_rate", "", "", "", "Default 0", kFit, SetMinLearningRate},
      {"optimizer", "--optimizer", "", "NAME|JSON", "Default: the model's own", kFit, SetOptimizer},
      {"loss", "--loss", "", "NAME|JSON", "Default: the model's own", kAll, SetLoss},
      {"metrics", "--metrics", "", "NAME[,...]", "Default: the model's own", kAll, SetMetrics},
      {"learning_rate", "--learning-rate", "", "X", "Default: the optimizer's own", kFit, SetLearningRate},
      {"precision", "--precision", "", "NAME", "float32 or float64; default: the model's own", kAll, SetPrecision},
      {"log_samples", "--log-samples", "true", "", "Add the paths of every step's samples to the step log", kFit, SetLogSamples},
      {"state_hash_every", "--state-hash-every", "", "K", "Steps between state hashes; default 1", kFit, SetHashEvery},
  };
}

}  // namespace

const std::vector<JobField>& JobFields() {
  static const auto& fields = *new std::vector<JobField>(MakeFields());
  return fields;
}

}  // namespace lockstep
