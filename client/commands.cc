#include "client/commands.h"

#include <algorithm>
#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/coordinator_client.h"
#include "client/describe.h"
#include "client/exit_code.h"
#include "client/follow.h"
#include "client/job_check.h"
#include "client/job_run.h"
#include "client/job_watcher.h"
#include "client/ledger_command.h"
#include "client/proto_json.h"
#include "client/render.h"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

void Print(const Json& json) { std::cout << json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n"; }

// One command, with the client that it talks through.
class Conversation {
 public:
  Conversation(const CommandLine& line, CoordinatorClient& client) : line_(line), client_(client) {}

  // The exit status, or why it could not be done.
  absl::StatusOr<int> Submit();
  absl::StatusOr<int> List();
  absl::StatusOr<int> Describe();
  absl::StatusOr<int> Watch() { return WatchJob(line_.job_id, line_.after_sequence); }
  absl::StatusOr<int> Cancel();
  absl::StatusOr<int> Show(absl::StatusOr<v1::JobStatus> status);
  absl::StatusOr<int> Download();
  absl::StatusOr<int> Logs();
  absl::StatusOr<int> Workers();

 private:
  absl::StatusOr<int> WaitForPlan(const std::string& job_id);
  absl::StatusOr<int> WatchJob(const std::string& job_id, uint64_t after_sequence);
  absl::Status WatchAsJson(const std::string& job_id, uint64_t after_sequence);

  const CommandLine& line_;
  CoordinatorClient& client_;
};

absl::StatusOr<int> Conversation::Submit() {
  const PreparedJob prepared = PrepareJob(line_);
  if (!prepared.errors.empty()) {
    PrintErrors(prepared.errors);
    return kExitBadInput;
  }
  ASSIGN_OR_RETURN(const std::string job_id, client_.Submit(prepared.draft.job, prepared.draft.model_path));
  std::cout << (line_.json ? Json({{"job_id", job_id}}).dump() : job_id) << std::endl;
  if (line_.follow) return WatchJob(job_id, 0);
  if (line_.wait_plan) return WaitForPlan(job_id);
  return kExitDone;
}

absl::StatusOr<int> Conversation::WaitForPlan(const std::string& job_id) {
  RunView view{v1::Job()};
  // Told by its own word, for any other error might come from the stream.
  bool planned = false;
  const RealClock clock;
  JobWatcher watcher(client_, job_id, 0, WatchOptions(), clock);
  const absl::Status status = watcher.Run(
      [&](const v1::Event& event) {
        view.Apply(event);
        planned = view.state > v1::PLANNING;
        return planned ? absl::CancelledError() : absl::OkStatus();
      },
      [](const std::string& message) { std::cerr << "lockstep: " << message << "\n"; });
  if (!planned) RETURN_IF_ERROR(status);
  std::cerr << "lockstep: " << RenderState(view.state, view.reason) << "\n";
  return HasEnded(view.state) ? ExitCodeOf(view.state, view.failure) : kExitDone;
}

absl::StatusOr<int> Conversation::WatchJob(const std::string& job_id, uint64_t after_sequence) {
  if (line_.json) {
    RETURN_IF_ERROR(WatchAsJson(job_id, after_sequence));
    ASSIGN_OR_RETURN(const v1::JobStatus status, DescribeSurely(client_, job_id));
    return ExitCodeOf(status.state(), status.failure());
  }
  ASSIGN_OR_RETURN(const v1::JobStatus at_start, client_.Describe(job_id));
  std::unique_ptr<StepLog> step_log;
  if (!line_.step_log.empty()) {
    ASSIGN_OR_RETURN(step_log, StepLog::Create(line_.step_log, at_start.job().log_samples()));
  }
  RunView view(at_start.has_resolved() ? at_start.resolved() : at_start.job());
  RealClock clock;
  Progress progress(std::cout, Style::OfStandardOutput(), clock);
  const absl::Status followed = Follow(client_, job_id, after_sequence, view, progress, step_log.get());
  progress.End();
  RETURN_IF_ERROR(followed);
  ASSIGN_OR_RETURN(const v1::JobStatus status, DescribeSurely(client_, job_id));
  if (status.has_result() && status.state() == v1::DONE) {
    std::cout << RenderResult(status.job(), status.result(), status.profile(), view.replicas) << "\n";
  } else {
    std::cout << RenderState(status.state(), status.reason()) << "\n";
  }
  if (step_log != nullptr) RETURN_IF_ERROR(step_log->Close());
  return ExitCodeOf(status.state(), status.failure());
}

absl::Status Conversation::WatchAsJson(const std::string& job_id, uint64_t after_sequence) {
  const RealClock clock;
  JobWatcher watcher(client_, job_id, after_sequence, WatchOptions(), clock);
  return watcher.Run(
      [](const v1::Event& event) {
        std::cout << ToJson(event).dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
        return absl::OkStatus();
      },
      [](const std::string& message) { std::cerr << "lockstep: " << message << "\n"; });
}

absl::StatusOr<int> Conversation::List() {
  ASSIGN_OR_RETURN(const v1::ListResponse response, client_.List(line_.limit));
  if (line_.json) {
    Print(ToJson(response)["jobs"]);
  } else {
    std::cout << RenderJobs(response, absl::Now()) << "\n";
  }
  return kExitDone;
}

absl::StatusOr<int> Conversation::Describe() {
  ASSIGN_OR_RETURN(const v1::JobStatus status, client_.Describe(line_.job_id));
  if (line_.json) {
    Print(ToJson(status));
  } else {
    std::cout << RenderJob(status) << "\n";
  }
  return kExitDone;
}

absl::StatusOr<int> Conversation::Cancel() {
  ASSIGN_OR_RETURN(const v1::JobStatus status, client_.Cancel(line_.job_id));
  if (line_.json) {
    Print(ToJson(status));
  } else {
    std::cout << (HasEnded(status.state()) ? RenderState(status.state(), status.reason()) : "cancelling: it ends at its next step") << "\n";
  }
  return kExitDone;
}

absl::StatusOr<int> Conversation::Show(absl::StatusOr<v1::JobStatus> status) {
  RETURN_IF_ERROR(status.status());
  if (line_.json) {
    Print(ToJson(*status));
  } else {
    std::cout << RenderState(status->state(), status->reason()) << "\n";
  }
  return kExitDone;
}

absl::StatusOr<int> Conversation::Download() {
  std::string artifact = line_.artifact;
  if (artifact.empty()) {
    ASSIGN_OR_RETURN(const v1::JobStatus status, client_.Describe(line_.job_id));
    artifact = status.job().kind() == v1::Job::PREDICT ? "predictions.csv" : "trained.keras";
  }
  const std::string path = line_.out.empty() ? artifact : line_.out;
  RETURN_IF_ERROR(CheckOutputFile(path));
  RETURN_IF_ERROR(client_.Download(line_.job_id, artifact, path));
  if (line_.json) {
    Print({{"artifact", artifact}, {"path", path}});
  } else {
    std::cout << path << "\n";
  }
  return kExitDone;
}

absl::StatusOr<int> Conversation::Logs() {
  RETURN_IF_ERROR(client_.Logs(line_.job_id, line_.follow, [this](const std::string& text) {
    if (!line_.json) {
      std::cout << text << std::flush;
      return;
    }
    for (const absl::string_view entry : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      std::cout << Json({{"line", std::string(entry)}}).dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
    }
  }));
  return kExitDone;
}

absl::StatusOr<int> Conversation::Workers() {
  ASSIGN_OR_RETURN(const v1::ListWorkersResponse response, client_.ListWorkers());
  if (line_.json) {
    Print(ToJson(response)["workers"]);
  } else {
    std::cout << RenderWorkers(response, absl::Now()) << "\n";
  }
  return kExitDone;
}

absl::StatusOr<int> PrintVersion(const CommandLine& line, CoordinatorClient* client) {
  Json json = {{"client", LOCKSTEP_VERSION}};
  if (client != nullptr) {
    ASSIGN_OR_RETURN(const v1::VersionResponse response, client->Version());
    json["coordinator"] = response.version();
  }
  if (line.json) {
    Print(json);
    return kExitDone;
  }
  for (const auto& [name, version] : json.items()) std::cout << name << " " << version.get<std::string>() << "\n";
  return kExitDone;
}

absl::StatusOr<int> Dispatch(const CommandLine& line) {
  if (line.command == Command::kLedger && !line.ledger_file.empty()) return ShowLedger(line, nullptr);
  if (line.connection.coordinator.empty()) {
    if (line.command == Command::kVersion) return PrintVersion(line, nullptr);
    return absl::InvalidArgumentError("name the coordinator: --coordinator HOST:PORT, or LOCKSTEP_COORDINATOR");
  }
  ASSIGN_OR_RETURN(const ChannelOptions options, ReadChannelOptions(line.connection));
  CoordinatorClient client(line.connection.coordinator, options);
  Conversation conversation(line, client);
  switch (line.command) {
    case Command::kLedger: return ShowLedger(line, &client);
    case Command::kSubmit: return conversation.Submit();
    case Command::kList: return conversation.List();
    case Command::kDescribe: return conversation.Describe();
    case Command::kWatch: return conversation.Watch();
    case Command::kCancel: return conversation.Cancel();
    case Command::kPause: return conversation.Show(client.Pause(line.job_id));
    case Command::kResume: return conversation.Show(client.Resume(line.job_id));
    case Command::kScale: return conversation.Show(client.Scale(line.job_id, line.fewest, line.most));
    case Command::kDownload: return conversation.Download();
    case Command::kLogs: return conversation.Logs();
    case Command::kWorkers: return conversation.Workers();
    case Command::kVersion: return PrintVersion(line, &client);
    default: return absl::InternalError("not a command for a coordinator");
  }
}

}  // namespace

int RunCommand(const CommandLine& line) {
  const absl::StatusOr<int> exit_code = Dispatch(line);
  if (exit_code.ok()) return *exit_code;
  PrintErrors({std::string(exit_code.status().message())});
  return ExitCodeOf(exit_code.status());
}

}  // namespace lockstep
