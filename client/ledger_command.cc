#include "client/ledger_command.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/exit_code.h"
#include "client/ledger_file.h"
#include "dataset/index.h"
#include "ledger/file_digest.h"
#include "ledger/ledger.h"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

LedgerTerms TermsOf(const v1::JobStatus& status) {
  const v1::Job& job = status.has_resolved() ? status.resolved() : status.job();
  LedgerTerms terms;
  terms.batch = job.batch();
  terms.drop_last = job.data().last_batch() == v1::Data::DROP;
  terms.virtual_replicas = job.virtual_replicas();
  terms.whole_epochs = status.has_result() ? status.result().epochs() : std::max(status.latest().epoch(), 1u) - 1;
  return terms;
}

void Print(const Json& json) { std::cout << json.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n"; }

void Print(const v1::StepRecord& step, const dataset::Index& index) {
  std::cout << "step " << step.step() << "  epoch " << step.epoch() << "  generation " << step.generation() << "\n";
  for (int leaf = 0; leaf < step.leaves_size(); ++leaf) {
    const v1::LeafUse& use = step.leaves(leaf);
    std::cout << "  virtual replica " << leaf << ":";
    for (const uint64_t sample : use.samples()) {
      const bool bad = std::find(use.bad().begin(), use.bad().end(), sample) != use.bad().end();
      std::cout << " " << index.PathOf(static_cast<int64_t>(sample)) << (bad ? " (left out: cannot be decoded)" : "");
    }
    std::cout << "\n";
  }
}

std::string Text(const EpochAccount& account) {
  std::string text = absl::StrCat("epoch ", account.epoch, ": ", account.steps, " steps, ", account.used, " samples used once");
  if (account.bad > 0) absl::StrAppend(&text, ", ", account.bad, " left out: cannot be decoded");
  if (account.dropped > 0) absl::StrAppend(&text, ", ", account.dropped, " dropped with the last batch");
  if (!account.whole) absl::StrAppend(&text, ", ", account.unused, " not used: the epoch has not ended");
  return text;
}

// Where the records come from.
struct Source {
  LedgerTerms terms;
  std::unique_ptr<dataset::Index> index;
  std::function<absl::Status(const TakeStep& step, const TakeEpoch& epoch)> read;
};

absl::StatusOr<Source> FromCoordinator(const CommandLine& line, CoordinatorClient& client) {
  Source source;
  ASSIGN_OR_RETURN(const v1::JobStatus status, client.Describe(line.job_id));
  if (status.job().kind() == v1::Job::EVALUATE || status.job().kind() == v1::Job::PREDICT) {
    return absl::InvalidArgumentError(absl::StrCat("job ", line.job_id, " does not train, and has no ledger"));
  }
  if (!status.has_latest()) return absl::FailedPreconditionError(absl::StrCat("job ", line.job_id, " has not committed a step yet"));
  if (line.epoch > status.latest().epoch()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--epoch ", line.epoch, ": job ", line.job_id, " has come to epoch ", status.latest().epoch()));
  }
  source.terms = TermsOf(status);
  const std::string path = absl::StrCat(std::filesystem::temp_directory_path().string(), "/lockstep-ledger-", getpid(), ".index");
  const auto remove = absl::MakeCleanup([&path] { unlink(path.c_str()); });
  RETURN_IF_ERROR(client.Download(line.job_id, "train.index", path));
  ASSIGN_OR_RETURN(source.index, dataset::Index::Open(path));  // its file stays open
  source.read = [&line, &client](const TakeStep& take_step, const TakeEpoch& take_epoch) {
    return client.Ledger(line.job_id, line.epoch, [&](const v1::Event& event) {
      if (event.has_step()) take_step(event.step());
      if (event.has_epoch()) take_epoch(event.epoch());
      return absl::OkStatus();
    });
  };
  return source;
}

absl::StatusOr<Source> FromFile(const CommandLine& line) {
  Source source;
  ASSIGN_OR_RETURN(source.terms, ReadLedgerTerms(line.ledger_file));
  ASSIGN_OR_RETURN(source.index, dataset::Index::Open(line.index_file));
  source.read = [&line](const TakeStep& take_step, const TakeEpoch& take_epoch) {
    const auto wanted = [&line](uint32_t epoch) { return line.epoch == 0 || epoch == line.epoch; };
    return ReadLedgerFile(
        line.ledger_file,
        [&](const v1::StepRecord& step) {
          if (wanted(step.epoch())) take_step(step);
        },
        [&](const v1::EpochRecord& epoch) {
          if (wanted(epoch.epoch())) take_epoch(epoch);
        });
  };
  return source;
}

void PrintAsJson(const Ledger& ledger) {
  Json json = {{"verified", ledger.violation_count() == 0},
               {"violation_count", ledger.violation_count()},
               {"violations", ledger.violations()},
               {"epochs", Json::array()}};
  for (const EpochAccount& one : ledger.epochs()) {
    json["epochs"].push_back({{"epoch", one.epoch},
                              {"whole", one.whole},
                              {"steps", one.steps},
                              {"used", one.used},
                              {"bad", one.bad},
                              {"dropped", one.dropped},
                              {"unused", one.unused}});
  }
  Print(json);
}

void PrintAsText(const Ledger& ledger) {
  for (const EpochAccount& one : ledger.epochs()) std::cout << Text(one) << "\n";
  for (const std::string& violation : ledger.violations()) std::cout << "VIOLATION  " << violation << "\n";
  const uint64_t count = ledger.violation_count();
  if (count > ledger.violations().size()) std::cout << "and " << count - ledger.violations().size() << " more\n";
  std::cout << (count == 0 ? "verified: every sample once"
                           : absl::StrCat("not exactly once: ", count, count == 1 ? " violation" : " violations"))
            << "\n";
}

absl::StatusOr<int> Verify(const CommandLine& line, const Source& source) {
  Ledger::DigestCheck check;
  if (!line.data_folder.empty()) {
    check = [&](const v1::LeafUse& use) { return CheckFiles(*source.index, line.data_folder, use); };
  }
  Ledger ledger(*source.index, source.terms, check);
  RETURN_IF_ERROR(
      source.read([&](const v1::StepRecord& step) { ledger.Add(step); }, [&](const v1::EpochRecord& epoch) { ledger.Add(epoch); }));
  ledger.Finish();
  line.json ? PrintAsJson(ledger) : PrintAsText(ledger);
  return ledger.violation_count() == 0 ? kExitDone : kExitFailed;
}

}  // namespace

absl::StatusOr<int> ShowLedger(const CommandLine& line, CoordinatorClient* client) {
  absl::StatusOr<Source> source = client != nullptr ? FromCoordinator(line, *client) : FromFile(line);
  RETURN_IF_ERROR(source.status());
  if (line.verify) return Verify(line, *source);
  if (line.json) Print(LedgerLine(source->terms));
  RETURN_IF_ERROR(
      source->read([&](const v1::StepRecord& step) { line.json ? Print(LedgerLine(step, *source->index)) : Print(step, *source->index); },
                   [&](const v1::EpochRecord& epoch) {
                     if (line.json) Print(LedgerLine(epoch));
                   }));
  return kExitDone;
}

}  // namespace lockstep
