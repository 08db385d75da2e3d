#include "client/plan_report.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/job_check.h"
#include "client/proto_json.h"
#include "client/render.h"
#include "client/size.h"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

// As planned; of a refused job as submitted, with what planning makes of the batch where it was left open.
v1::Job PlannedJob(const v1::JobStatus& status) {
  v1::Job job = status.has_resolved() ? status.resolved() : status.job();
  if (job.virtual_replicas() == 0) job.set_virtual_replicas(DefaultVirtualReplicas(job.batch()));
  if (job.micro_batch() == 0) job.set_micro_batch(job.batch() / job.virtual_replicas());
  return job;
}

// Of the process, on the host.
uint64_t TrainerBytes(const v1::JobStatus& status) {
  const v1::MemoryProfile& profile = status.profile();
  return profile.has_host() ? profile.host().resident_bytes() : profile.resident_bytes();
}

std::string Counted(uint64_t count, absl::string_view noun) { return absl::StrCat(count, " ", noun, count == 1 ? "" : "s"); }

std::string Heading(const v1::JobStatus& status) {
  const v1::Job job = PlannedJob(status);
  const uint32_t each = job.batch() / job.virtual_replicas();
  const uint32_t trainers = MostTrainers(status), threads = status.profile().threads();
  return absl::StrCat(job.model().file_name(), ": batch ", job.batch(), " as ", Counted(job.virtual_replicas(), "virtual replica"), " of ",
                      Counted(each, "sample"), job.micro_batch() < each ? absl::StrCat(" (", job.micro_batch(), " at once), ") : ", ",
                      threads > 1 ? absl::StrCat(threads, " side by side") : "one at a time",
                      trainers > 1 ? absl::StrCat(" in each of ", trainers, " trainers") : " in one trainer",
                      !status.profile().has_host() ? ""
                      : trainers > 1               ? ", with a CUDA device each"
                                                   : ", with a CUDA device");
}

using Rows = std::vector<std::vector<std::string>>;

// Of what takes something, or, for those who wonder at what is missing, of everything.
void AddCategories(const BytesByCategory& bytes_by_category, uint64_t all, bool also_nothing, Rows& rows) {
  for (const std::string& name : CategoriesOf(bytes_by_category, {})) {
    const uint64_t bytes = bytes_by_category.at(name);
    if (bytes == 0 && !also_nothing) continue;
    const double share = all == 0 ? 0 : 100 * static_cast<double>(bytes) / static_cast<double>(all);
    rows.push_back({absl::StrCat("  ", name), FormatSize(bytes), absl::StrFormat("%.1f %%", share)});
  }
  rows.push_back({"  in all", FormatSize(all), ""});
}

void AddHost(const v1::JobStatus& status, Rows& rows) {
  const uint32_t trainers = MostTrainers(status);
  if (trainers < 2) return;
  rows.push_back({absl::StrCat("  ", Counted(trainers, "trainer"), " on one host"), FormatSize(trainers * TrainerBytes(status)), ""});
}

// Of its process, or of its device, with the limit of either.
std::string CategoryTable(const v1::JobStatus& status) {
  const v1::MemoryProfile& profile = status.profile();
  Rows rows;
  AddCategories(profile.bytes_by_category(), profile.resident_bytes(), !profile.has_host(), rows);
  if (profile.expected_resident_bytes() > 0) rows.push_back({"  expected", FormatSize(profile.expected_resident_bytes()), ""});
  const uint64_t limit = profile.limit_bytes();
  rows.push_back({status.job().memory().limit_bytes() == 0 && limit > 0 ? "  limit of the worker" : "  limit",
                  limit == 0 ? "none" : FormatSize(limit), ""});
  if (!profile.has_host()) AddHost(status, rows);
  return RenderTable(rows, {false, true, true});
}

std::string HostTable(const v1::JobStatus& status) {
  const v1::HostMemory& host = status.profile().host();
  Rows rows;
  AddCategories(host.bytes_by_category(), host.resident_bytes(), false, rows);
  AddHost(status, rows);
  return RenderTable(rows, {false, true, true});
}

std::string RemedyTable(const v1::MemoryProfile& profile, bool refused) {
  std::vector<std::vector<std::string>> rows = {{"  MEMORY", "STEP TIME", "REMEDY"}};
  for (const v1::Remedy& remedy : profile.remedies()) {
    std::vector<std::string> words;
    if (remedy.applied()) words.emplace_back("applied");
    if (remedy.changes_bits()) words.emplace_back("changes bits");
    if (refused && !remedy.applied() && remedy.resident_bytes() <= profile.limit_bytes()) words.emplace_back("would fit");
    rows.push_back({absl::StrCat("  ", FormatSize(remedy.resident_bytes())),
                    remedy.time_ratio() > 0 ? absl::StrFormat("%.2fx", remedy.time_ratio()) : "not known",
                    absl::StrCat(remedy.text().empty() ? remedy.name() : remedy.text(), words.empty() ? "" : " (",
                                 absl::StrJoin(words, ", "), words.empty() ? "" : ")")});
  }
  return RenderTable(rows, {true, true, false});
}

std::string Verdict(const v1::JobStatus& status) {
  const v1::MemoryProfile& profile = status.profile();
  if (status.state() != v1::DONE) return status.failure() == v1::OUT_OF_MEMORY ? "It does not fit." : "";
  if (profile.limit_bytes() == 0) return "It fits.";
  const auto applied = std::any_of(profile.remedies().begin(), profile.remedies().end(), [](const auto& one) { return one.applied(); });
  return absl::StrCat("It fits", applied ? ", with the remedies that are applied" : "", ": ", FormatSize(profile.resident_bytes()), " of ",
                      FormatSize(profile.limit_bytes()), ".");
}

}  // namespace

uint32_t MostTrainers(const v1::JobStatus& status) {
  const v1::Job job = PlannedJob(status);
  return std::min(std::max({job.replicas().min(), job.replicas().max(), 1u}), job.virtual_replicas());
}

std::string RenderPlan(const v1::JobStatus& status) {
  const v1::MemoryProfile& profile = status.profile();
  const bool cuda = profile.has_host();
  std::string text = absl::StrCat(Heading(status), "\nPredicted memory of ", cuda ? "the device of one trainer" : "one trainer",
                                  " at its peak, by category\n", CategoryTable(status));
  if (cuda) absl::StrAppend(&text, "\nPredicted memory of its process on the host, by category\n", HostTable(status));
  if (!profile.at_peak().empty()) absl::StrAppend(&text, "\nAt the peak: ", PlaceText(profile.at_peak()));
  absl::StrAppend(&text, cuda ? "\nTensors and workspaces take " : "\nTensors take ", FormatSize(TensorBytes(profile)),
                  cuda ? " of the device" : " of it", "; each virtual replica at a time ", FormatSize(profile.bytes_per_further_thread()));
  if (profile.largest_batch() > 0) {
    absl::StrAppend(&text, "\nThe largest batch that fits: ", profile.largest_batch(), ", with ",
                    Counted(PlannedJob(status).virtual_replicas(), "virtual replica"));
  }
  if (profile.remedies_size() > 0) {
    absl::StrAppend(&text, "\nRemedies, each with those before it\n", RemedyTable(profile, status.state() != v1::DONE));
  }
  if (!profile.method().empty()) absl::StrAppend(&text, "\nMethod: ", profile.method());
  for (const std::string& note : status.plan_notes()) absl::StrAppend(&text, "\nNote: ", note);
  const std::string verdict = Verdict(status);
  return absl::StrCat(text, verdict.empty() ? "" : "\n", verdict);
}

Json PlanToJson(const v1::JobStatus& status) {
  const v1::Job job = PlannedJob(status);
  const v1::MemoryProfile& profile = status.profile();
  const auto known = [](uint64_t value) { return value == 0 ? Json(nullptr) : Json(value); };
  Json json = Json::object();
  json["job_id"] = status.job_id();
  json["fits"] = status.state() == v1::DONE;
  json["state"] = v1::JobState_Name(status.state());
  json["failure"] = v1::FailureKind_Name(status.failure());
  json["reason"] = status.reason();
  json["device"] = profile.has_host() ? "cuda" : "cpu";
  json["model"] = job.model().file_name();
  json["batch"] = job.batch();
  json["virtual_replicas"] = job.virtual_replicas();
  json["micro_batch"] = job.micro_batch();
  json["trainers"] = MostTrainers(status);
  json["threads"] = profile.threads();
  if (profile.has_host()) json["device_bytes"] = profile.resident_bytes();
  json["trainer_bytes"] = TrainerBytes(status);
  json["expected_trainer_bytes"] = known(profile.expected_resident_bytes());
  json["host_bytes"] = MostTrainers(status) * TrainerBytes(status);
  json["tensor_bytes"] = TensorBytes(profile);
  json["limit_bytes"] = known(profile.limit_bytes());
  json["largest_batch"] = known(profile.largest_batch());
  json["at_peak"] = profile.at_peak();
  json["notes"] = std::vector<std::string>(status.plan_notes().begin(), status.plan_notes().end());
  json["profile"] = ToJson(profile);
  if (status.has_resolved()) json["resolved"] = ToJson(status.resolved());
  return json;
}

}  // namespace lockstep
