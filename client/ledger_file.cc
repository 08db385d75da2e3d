#include "client/ledger_file.h"

#include <fstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

uint64_t Hexadecimal(const Json& text) {
  uint64_t value = 0;
  return absl::SimpleHexAtoi(text.get<std::string>(), &value) ? value : 0;
}

v1::StepRecord StepFrom(const Json& json) {
  v1::StepRecord step;
  step.set_step(json.at("step"));
  step.set_epoch(json.at("epoch"));
  step.set_generation(json.at("generation"));
  step.set_samples(json.at("samples"));
  step.set_sample_digest(Hexadecimal(json.at("sample_digest")));
  for (const Json& leaf : json.at("virtual_replicas")) {
    v1::LeafUse& use = *step.add_leaves();
    for (const Json& sample : leaf.at("samples")) use.add_samples(sample);
    for (const Json& sample : leaf.at("bad")) use.add_bad(sample);
    use.set_digest(Hexadecimal(leaf.at("digest")));
  }
  return step;
}

}  // namespace

Json LedgerLine(const LedgerTerms& terms) {
  return {{"batch", terms.batch},
          {"last_batch", terms.drop_last ? "drop" : "use"},
          {"virtual_replicas", terms.virtual_replicas},
          {"whole_epochs", terms.whole_epochs}};
}

Json LedgerLine(const v1::StepRecord& step, const dataset::Index& index) {
  Json json = {{"step", step.step()},
               {"epoch", step.epoch()},
               {"generation", step.generation()},
               {"samples", step.samples()},
               {"sample_digest", absl::StrFormat("%016x", step.sample_digest())},
               {"virtual_replicas", Json::array()}};
  for (const v1::LeafUse& use : step.leaves()) {
    Json leaf = {
        {"samples", use.samples()}, {"bad", use.bad()}, {"digest", absl::StrFormat("%016x", use.digest())}, {"paths", Json::array()}};
    for (const uint64_t sample : use.samples()) leaf["paths"].push_back(index.PathOf(static_cast<int64_t>(sample)));
    json["virtual_replicas"].push_back(std::move(leaf));
  }
  return json;
}

Json LedgerLine(const v1::EpochRecord& epoch) { return {{"end_of_epoch", epoch.epoch()}, {"bad_samples", epoch.bad_samples()}}; }

absl::StatusOr<LedgerTerms> ReadLedgerTerms(const std::string& path) {
  std::ifstream in(path);
  std::string first;
  if (!std::getline(in, first)) return absl::NotFoundError(absl::StrCat("--from ", path, ": cannot be read, or is empty"));
  try {
    const Json json = Json::parse(first);
    return LedgerTerms{json.at("batch"), json.at("last_batch") == "drop", json.at("virtual_replicas"), json.at("whole_epochs")};
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":1: does not say what the job is: ", error.what()));
  }
}

absl::Status ReadLedgerFile(const std::string& path, const TakeStep& take_step, const TakeEpoch& take_epoch) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  for (int number = 2; std::getline(in, line); ++number) {
    try {
      const Json json = Json::parse(line);
      if (json.contains("step")) {
        take_step(StepFrom(json));
        continue;
      }
      v1::EpochRecord epoch;
      epoch.set_epoch(json.at("end_of_epoch"));
      for (const Json& bad : json.at("bad_samples")) epoch.add_bad_samples(bad.get<std::string>());
      take_epoch(epoch);
    } catch (const Json::exception& error) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": no line of a ledger: ", error.what()));
    }
  }
  return absl::OkStatus();
}

}  // namespace lockstep
