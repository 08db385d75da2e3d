#include "model/training/monitor.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/training/config_fields.h"

namespace lockstep {

std::optional<double> Monitor::ValueIn(const EpochLogs& logs) const {
  for (const auto& [name, value] : logs) {
    if (name == metric) return value;
  }
  return std::nullopt;
}

bool Monitor::Improves(double value, double reference) const {
  const auto compared = static_cast<float>(direction == Direction::kDown ? value + min_delta : value - min_delta);
  const auto against = static_cast<float>(reference);
  return direction == Direction::kDown ? compared < against : compared > against;
}

absl::StatusOr<Monitor> MakeMonitor(const std::string& field, const std::string& metric, const std::string& mode, double min_delta,
                                    const std::vector<MonitoredMetric>& metrics, bool has_validation) {
  const auto refuse = [&](const std::string& text) { return absl::InvalidArgumentError(absl::StrCat(field, ": ", text)); };
  std::vector<std::string> known;
  for (const MonitoredMetric& candidate : metrics) known.push_back(candidate.name);
  if (has_validation) {
    for (const MonitoredMetric& candidate : metrics) known.push_back(absl::StrCat("val_", candidate.name));
  }
  // A metric of the user's may itself be called "val_…".
  if (std::find(known.begin(), known.end(), metric) == known.end()) {
    if (!has_validation && absl::StartsWith(metric, "val_")) {
      return refuse(absl::StrCat("\"", metric, "\" needs validation data (data.validation), and the job has none"));
    }
    return refuse(absl::StrCat("metric ", NotKnown(metric, known)));
  }
  if (!std::isfinite(min_delta)) return refuse("min_delta is not a finite number");
  const std::string bare(absl::StripPrefix(metric, "val_"));
  const auto found = std::find_if(metrics.begin(), metrics.end(),
                                  [&](const MonitoredMetric& candidate) { return candidate.name == metric || candidate.name == bare; });
  Monitor monitor{metric, found->direction, std::abs(min_delta)};
  if (mode == "min") {
    monitor.direction = Direction::kDown;
  } else if (mode == "max") {
    monitor.direction = Direction::kUp;
  } else if (!mode.empty() && mode != "auto") {
    return refuse(absl::StrCat("mode ", NotKnown(mode, {"auto", "min", "max"})));
  }
  return monitor;
}

}  // namespace lockstep
