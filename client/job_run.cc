#include "client/job_run.h"

#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/embedded_cluster.h"
#include "client/exit_code.h"
#include "client/follow.h"
#include "client/interrupts.h"
#include "client/job_check.h"
#include "client/plan_picture.h"
#include "client/plan_report.h"
#include "client/size.h"
#include "client/summary.h"
#include "rpc/status.h"

namespace lockstep {
namespace {

constexpr size_t kTrainerLines = 15;
// Of the model, in the embedded cluster's folder, beside one for each trainer: the submitted one, the planner's, and the trained one
// and the best, with up to two slots of the optimizer, where they are made and where they are stored.
constexpr uint64_t kModelCopies = 10;
constexpr uint64_t kModelCopiesToPlan = 2;

std::string ProgramFolder() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path().string();
}

// Where results go that were not told a place.
std::string DefaultOutput(const JobDraft& draft, const char* suffix) {
  return absl::StrCat(std::filesystem::path(draft.model_path).stem().string(), suffix);
}

Style StyleOf(const CommandLine& line) {
  Style style = Style::OfStandardOutput();
  // An embedded worker is on its way; that there is none yet is no news.
  style.waiting_is_news = !line.connection.coordinator.empty();
  // A plan ends with its notes, and JSON stays alone on standard output.
  style.notes_are_news = line.command != Command::kPlan;
  if (line.json) style.terminal = false;
  return style;
}

// One run of one job, from the cluster's start to its end. Ctrl-C once: the job is cancelled; twice: everything is ended.
class Run {
 public:
  Run(const CommandLine& line, JobDraft draft)
      : line_(line), draft_(std::move(draft)), progress_(line.json ? std::cerr : std::cout, StyleOf(line), clock_), view_(draft_.job) {}

  int Execute();

 private:
  absl::Status Connect();
  absl::Status SubmitAndFollow();
  void OnInterrupt(int count);
  void Say(const std::string& line) { progress_.Say(line); }

  // What is to be done once the job has ended; the exit status.
  int Report();
  int ReportPlan();
  absl::Status FetchResults();
  // The artifact at `path`, or kept where it will not be lost.
  absl::Status Fetch(const std::string& artifact, const std::string& path);
  std::string KeepInFolder(const std::string& artifact, const std::string& path);
  void SayTrainersLastLines();
  int Failed(const absl::Status& status);

  const CommandLine& line_;
  const JobDraft draft_;
  RealClock clock_;
  Progress progress_;
  RunView view_;
  Interrupts interrupts_;
  std::unique_ptr<EmbeddedCluster> cluster_;
  std::unique_ptr<CoordinatorClient> client_;
  std::unique_ptr<StepLog> step_log_;
  std::string job_id_;
  v1::JobStatus final_;
  std::thread canceller_;
};

int Run::Execute() {
  absl::Status status;
  if (!line_.step_log.empty()) {
    auto log = StepLog::Create(line_.step_log, draft_.job.log_samples());
    status = log.status();
    if (log.ok()) step_log_ = *std::move(log);
  }
  if (status.ok()) status = Connect();
  if (status.ok()) status = SubmitAndFollow();
  progress_.End();
  int exit_code = !status.ok() ? Failed(status) : line_.command == Command::kPlan ? ReportPlan() : Report();
  interrupts_.Handle(nullptr);
  if (canceller_.joinable()) canceller_.join();
  if (step_log_ != nullptr) {
    if (const absl::Status closed = step_log_->Close(); !closed.ok()) {
      PrintErrors({absl::StrCat("the step log is not whole: ", closed.message())});
      if (exit_code == kExitDone) exit_code = kExitFailed;
    }
  }
  // A connection that nobody looks after does not see the coordinator's goodbye, and the coordinator would wait for it.
  if (cluster_ != nullptr) cluster_->StopWatching();
  client_.reset();
  cluster_.reset();
  return exit_code;
}

absl::Status Run::Connect() {
  if (line_.connection.coordinator.empty()) {
    EmbeddedOptions options;
    options.program_folder = ProgramFolder();
    const uint32_t replicas = std::max(draft_.job.replicas().min(), draft_.job.replicas().max());
    options.slots = std::max({replicas, std::thread::hardware_concurrency(), 1u});
    const uint64_t copies = line_.command == Command::kPlan ? kModelCopiesToPlan : kModelCopies + replicas;
    options.folder_bytes = copies * draft_.job.model().size_bytes();
    options.interrupted = [this] { return interrupts_.count() > 0; };
    ASSIGN_OR_RETURN(cluster_, EmbeddedCluster::Start(options));
    client_ = std::make_unique<CoordinatorClient>(cluster_->address(), cluster_->channel_options());
    cluster_->OnDeath([this](const absl::Status& how) { client_->Stop(how); });
  } else {
    ASSIGN_OR_RETURN(const ChannelOptions options, ReadChannelOptions(line_.connection));
    client_ = std::make_unique<CoordinatorClient>(line_.connection.coordinator, options);
  }
  return absl::OkStatus();
}

absl::Status Run::SubmitAndFollow() {
  // Until the job has an id, one interrupt ends it all.
  interrupts_.Handle([this](int) { client_->Stop(absl::CancelledError("interrupted")); });
  ASSIGN_OR_RETURN(job_id_, client_->Submit(draft_.job, draft_.model_path));
  if (cluster_ == nullptr) Say(absl::StrCat("job ", job_id_));
  interrupts_.Handle([this](int count) { OnInterrupt(count); });
  RETURN_IF_ERROR(Follow(*client_, job_id_, 0, view_, progress_, step_log_.get()));
  ASSIGN_OR_RETURN(final_, DescribeSurely(*client_, job_id_));
  return absl::OkStatus();
}

void Run::OnInterrupt(int count) {
  if (count == 1) {
    std::cerr << "\nlockstep: cancelling" << (line_.command == Command::kPlan ? "" : ": the job ends at the next step")
              << " (again: at once)\n";
    // Not here: the call may take a while, and the next signal must be heard.
    canceller_ = std::thread([this] {
      if (const auto cancelled = client_->Cancel(job_id_); !cancelled.ok()) client_->Stop(absl::CancelledError("interrupted"));
    });
    return;
  }
  client_->Stop(absl::CancelledError("interrupted twice"));
  if (cluster_ != nullptr) cluster_->Kill();
}

int Run::Report() {
  int exit_code = ExitCodeOf(final_.state(), final_.failure());
  if (final_.state() == v1::DONE) {
    std::cout << RenderResult(draft_.job, final_.result(), final_.profile(), view_.replicas) << "\n";
    if (const absl::Status fetched = FetchResults(); !fetched.ok()) exit_code = Failed(fetched);
  } else {
    if (exit_code == kExitFailed) SayTrainersLastLines();
    PrintErrors({RenderState(final_.state(), final_.reason())});
  }
  if (!line_.summary.empty()) {
    const std::string text = MakeSummary(view_, final_).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    if (const absl::Status written = WriteFileAtomically(line_.summary, text); !written.ok()) {
      PrintErrors({absl::StrCat("--summary: ", written.message())});
      // Better on the screen than nowhere.
      std::cout << text;
      if (exit_code == kExitDone) exit_code = kExitFailed;
    }
  }
  return exit_code;
}

int Run::ReportPlan() {
  int exit_code = ExitCodeOf(final_.state(), final_.failure());
  if (final_.has_profile() && line_.json) {
    std::cout << PlanToJson(final_).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  } else if (final_.has_profile()) {
    std::cout << RenderPlan(final_) << "\n";
  }
  if (final_.state() != v1::DONE) {
    if (exit_code == kExitFailed) SayTrainersLastLines();
    PrintErrors({RenderState(final_.state(), final_.reason())});
  }
  if (line_.svg.empty()) return exit_code;
  const absl::Status drawn =
      final_.has_profile() ? WriteFileAtomically(line_.svg, DrawMemory(final_)) : absl::NotFoundError("there is nothing to draw");
  if (!drawn.ok()) {
    PrintErrors({absl::StrCat("--svg: ", drawn.message())});
    if (exit_code == kExitDone) exit_code = kExitFailed;
  }
  return exit_code;
}

absl::Status Run::FetchResults() {
  if (line_.command == Command::kEvaluate) return absl::OkStatus();
  if (line_.command == Command::kPredict) return Fetch("predictions.csv", line_.out);
  const absl::Status trained = Fetch("trained.keras", line_.out.empty() ? DefaultOutput(draft_, "-trained.keras") : line_.out);
  const bool has_best = std::find(final_.artifacts().begin(), final_.artifacts().end(), "best.keras") != final_.artifacts().end();
  if (has_best) {
    const absl::Status best = Fetch("best.keras", line_.best_out.empty() ? DefaultOutput(draft_, "-best.keras") : line_.best_out);
    if (!best.ok() && trained.ok()) return best;
  } else if (!line_.best_out.empty()) {
    Say("no best model was kept: its metric was never seen");
  }
  return trained;
}

absl::Status Run::Fetch(const std::string& artifact, const std::string& path) {
  const std::string absolute = std::filesystem::absolute(path).lexically_normal().string();
  absl::Status status;
  for (int attempt = 0; attempt < 5; ++attempt) {
    status = client_->Download(job_id_, artifact, absolute);
    if (!IsRetryable(status)) break;
    RETURN_IF_ERROR(client_->Sleep(absl::Seconds(1)));
  }
  if (status.ok()) {
    const char* what = artifact == "predictions.csv" ? "Predictions" : artifact == "best.keras" ? "Best model" : "Trained model";
    Say(absl::StrCat(what, ": ", absolute));
    return status;
  }
  const std::string kept = cluster_ != nullptr ? KeepInFolder(artifact, absolute)
                                               : absl::StrCat("lockstep download ", job_id_, " --artifact ", artifact, " fetches it");
  return absl::Status(status.code(), absl::StrCat(absolute, ": ", status.message(), "; nothing is lost: ", kept));
}

std::string Run::KeepInFolder(const std::string& artifact, const std::string& path) {
  const std::string kept_folder = absl::StrCat(cluster_->folder(), "/kept");
  const std::string kept = absl::StrCat(kept_folder, "/", std::filesystem::path(path).filename().string());
  absl::Status status = MakeDirectories(kept_folder);
  if (status.ok()) status = client_->Download(job_id_, artifact, kept);
  cluster_->KeepFolder(status.ok() ? kept_folder : "");
  return status.ok() ? absl::StrCat("the file is ", kept)
                     : absl::StrCat(artifact, " is in the folder ", cluster_->folder(), ", which is left as it is");
}

void Run::SayTrainersLastLines() {
  std::string text;
  if (!client_->Logs(job_id_, false, [&text](const std::string& lines) { text += lines; }).ok()) return;
  std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  if (lines.size() > kTrainerLines) lines.erase(lines.begin(), lines.end() - static_cast<std::ptrdiff_t>(kTrainerLines));
  for (const std::string& line : lines) std::cerr << line << "\n";
}

int Run::Failed(const absl::Status& status) {
  if (interrupts_.count() > 0) {
    PrintErrors({"interrupted"});
    return kExitInterrupted;
  }
  PrintErrors({std::string(status.message())});
  return ExitCodeOf(status);
}

}  // namespace

int RunJob(const CommandLine& line) {
  PreparedJob prepared = PrepareJob(line);
  if (!line.best_out.empty() && prepared.draft.job.checkpoint().best().empty()) {
    prepared.draft.job.mutable_checkpoint()->set_best(prepared.draft.job.data().has_validation() ? "val_loss" : "loss");
  }
  if (line.command == Command::kFit && line.out.empty() && !prepared.draft.model_path.empty()) {
    const absl::Status status = CheckOutputFile(DefaultOutput(prepared.draft, "-trained.keras"));
    if (!status.ok()) prepared.errors.push_back(absl::StrCat("--out: ", status.message()));
  }
  if (!prepared.errors.empty()) {
    PrintErrors(prepared.errors);
    return kExitBadInput;
  }
  // Whoever reads our progress may go (`| head`); the training is not to end with it.
  signal(SIGPIPE, SIG_IGN);
  return Run(line, std::move(prepared.draft)).Execute();
}

}  // namespace lockstep
