#include "coordinator/page.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace lockstep {
namespace {

constexpr char kHead[] = R"html(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>Lockstep</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}
th{font-weight:600}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}progress{width:8rem}
.FAILED,.REFUSED,.lost{color:#b00020}.DONE{color:#1b6e2d}.RUNNING{color:#1a4f9c}.muted{color:#777}
@media (prefers-color-scheme:dark){body{background:#181818;color:#ddd}th,td{border-color:#444}.RUNNING{color:#8ab4f8}.DONE{color:#81c995}
.FAILED,.REFUSED,.lost{color:#f28b82}}
</style></head><body>
)html";

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"\n", "<br>"}});
}

std::string Ago(int64_t unix_ms, absl::Time now) {
  if (unix_ms == 0) return "";
  const absl::Duration since = absl::Trunc(now - absl::FromUnixMillis(unix_ms), absl::Seconds(1));
  return absl::StrCat(absl::FormatDuration(std::max(since, absl::ZeroDuration())), " ago");
}

std::string Progress(const v1::JobStatus& job) {
  const uint64_t step = job.latest().step();
  if (job.total_steps() == 0) return step > 0 ? absl::StrCat("step ", step) : "";
  return absl::StrCat("<progress max=\"", job.total_steps(), "\" value=\"", step, "\"></progress> ", step, " of ", job.total_steps());
}

std::string Figures(const v1::JobStatus& job) {
  if (!job.has_latest()) return "";
  std::string text = absl::StrFormat("loss %.4f, %.1f images/s", job.latest().loss(), job.latest().images_per_second());
  if (job.epochs_size() == 0) return text;
  for (const v1::NamedValue& value : job.epochs(job.epochs_size() - 1).validation()) {
    absl::StrAppend(&text, absl::StrFormat(", val_%s %.4f", Escaped(value.name()), value.value()));
  }
  return text;
}

std::string JobRow(const v1::JobStatus& job, absl::Time now) {
  const std::string name = job.job().name().empty() ? job.job().model().file_name() : job.job().name();
  const std::string state = v1::JobState_Name(job.state());
  return absl::StrCat("<tr><td class=n>", Escaped(job.job_id()), "</td><td>", Escaped(name), "</td><td class=", state, ">", state,
                      "</td><td>", Escaped(job.reason()), "</td><td class=n>", Progress(job), "</td><td class=n>", Figures(job),
                      "</td><td class=\"n muted\">", Ago(job.submitted_unix_ms(), now), "</td></tr>\n");
}

std::string WorkerRow(const v1::WorkerStatus& worker, absl::Time now) {
  return absl::StrCat("<tr><td>", Escaped(worker.worker_id()), "</td><td>", Escaped(worker.host()), "</td><td class=", worker.state(), ">",
                      worker.state(), "</td><td class=n>", worker.cores(), "</td><td class=n>",
                      absl::StrFormat("%.1f GiB", static_cast<double>(worker.memory_bytes()) / (1 << 30)), "</td><td class=n>",
                      worker.trainers_size(), " running, ", worker.free_slots(), " free</td><td class=\"n muted\">",
                      Ago(worker.last_seen_unix_ms(), now), "</td></tr>\n");
}

}  // namespace

std::string Page(const Snapshot& snapshot, const std::string& version, absl::Time now) {
  std::string html = kHead;
  absl::StrAppend(&html, "<h1>Lockstep <span class=muted>", version, "</span></h1>\n");
  if (!snapshot.durable) {
    absl::StrAppend(&html,
                    "<p class=FAILED>The store cannot be written. Nothing new is accepted until the coordinator is restarted.</p>\n");
  }
  absl::StrAppend(&html, "<h2>Jobs</h2>\n");
  if (snapshot.jobs.empty()) absl::StrAppend(&html, "<p class=muted>None yet.</p>\n");
  if (!snapshot.jobs.empty()) {
    absl::StrAppend(&html, "<table><tr><th>Job<th>Name<th>State<th>Why<th>Steps<th>Newest<th>Submitted</tr>\n");
    for (const Snapshot::JobFigures& job : snapshot.jobs) absl::StrAppend(&html, JobRow(job.status, now));
    absl::StrAppend(&html, "</table>\n");
  }
  absl::StrAppend(&html, "<h2>Workers</h2>\n");
  if (snapshot.workers.empty()) absl::StrAppend(&html, "<p class=muted>None is connected.</p>\n");
  if (!snapshot.workers.empty()) {
    absl::StrAppend(&html, "<table><tr><th>Worker<th>Host<th>State<th>Cores<th>Memory<th>Trainers<th>Heard of</tr>\n");
    for (const v1::WorkerStatus& worker : snapshot.workers) absl::StrAppend(&html, WorkerRow(worker, now));
    absl::StrAppend(&html, "</table>\n");
  }
  absl::StrAppend(&html, "<p class=muted><a href=\"/metrics\">metrics</a></p></body></html>\n");
  return html;
}

}  // namespace lockstep
