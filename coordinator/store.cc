#include "coordinator/store.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "coordinator/store_database.h"

namespace lockstep {
namespace {

constexpr int64_t kSchemaVersion = 4;

constexpr char kSchema[] = R"sql(
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, state TEXT NOT NULL, reason TEXT NOT NULL, failure TEXT NOT NULL, generation INTEGER NOT NULL,
  next_generation INTEGER NOT NULL, total_steps INTEGER NOT NULL, cancel_wanted INTEGER NOT NULL, deaths INTEGER NOT NULL,
  death_step INTEGER NOT NULL, submitted_unix_ms INTEGER NOT NULL, started_unix_ms INTEGER NOT NULL,
  ended_unix_ms INTEGER NOT NULL, job BLOB NOT NULL, plan BLOB, result BLOB,
  request_id TEXT NOT NULL DEFAULT '', pause_wanted INTEGER NOT NULL DEFAULT 0, scale BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS generations (
  job_id TEXT NOT NULL, number INTEGER NOT NULL, role TEXT NOT NULL, secret BLOB NOT NULL, created_unix_ms INTEGER NOT NULL,
  waits INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (job_id, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (
  job_id TEXT NOT NULL, number INTEGER NOT NULL, rank INTEGER NOT NULL, worker_id TEXT NOT NULL, address TEXT NOT NULL,
  first_virtual_replica INTEGER NOT NULL, virtual_replica_count INTEGER NOT NULL, threads INTEGER NOT NULL,
  process_generation INTEGER NOT NULL DEFAULT 0, process_rank INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (job_id, number, rank)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  job_id TEXT NOT NULL, sequence INTEGER NOT NULL, unix_ms INTEGER NOT NULL, kind INTEGER NOT NULL, step INTEGER,
  event BLOB NOT NULL, PRIMARY KEY (job_id, sequence)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS events_by_step ON events (job_id, step) WHERE step IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_by_kind ON events (job_id, kind, sequence) WHERE kind <> 4;
CREATE TABLE IF NOT EXISTS artifacts (
  job_id TEXT NOT NULL, name TEXT NOT NULL, file TEXT NOT NULL, bytes INTEGER NOT NULL, xxh3_128 TEXT NOT NULL,
  PRIMARY KEY (job_id, name)) WITHOUT ROWID;
)sql";
static_assert(v1::Event::kStepFieldNumber == 4, "the schema's partial indexes say so");

absl::Status Parse(const Statement& row, int column, google::protobuf::MessageLite& message) {
  if (message.ParseFromString(row.Bytes(column))) return absl::OkStatus();
  return absl::DataLossError("store: a row holds no message of its kind");
}

// What version 1 had not.
constexpr char kFromVersion1[] = "ALTER TABLE jobs ADD COLUMN request_id TEXT NOT NULL DEFAULT '';";
// What version 2 had not. 0: the member's own generation and rank.
constexpr char kFromVersion2[] =
    "ALTER TABLE members ADD COLUMN process_generation INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE members ADD COLUMN process_rank INTEGER NOT NULL DEFAULT 0;";

// What version 3 had not.
constexpr char kFromVersion3[] =
    "ALTER TABLE jobs ADD COLUMN pause_wanted INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE jobs ADD COLUMN scale BLOB;"
    "ALTER TABLE generations ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;";

// What brings a file of this version up; nothing for a new one.
std::string Migration(int64_t version) {
  std::string sql;
  if (version == 1) sql += kFromVersion1;
  if (version == 1 || version == 2) sql += kFromVersion2;
  if (version >= 1 && version <= 3) sql += kFromVersion3;
  return sql;
}

// 0: of a file that is new.
absl::StatusOr<int64_t> SchemaVersion(Database& database) {
  ASSIGN_OR_RETURN(Statement version, database.Prepare("PRAGMA user_version"));
  ASSIGN_OR_RETURN(const bool row, version.Step());
  const int64_t found = row ? version.Integer(0) : 0;
  version.Reset();
  if (found > kSchemaVersion) {
    return absl::FailedPreconditionError(absl::StrCat("store: its schema is version ", found, ", this program knows up to ", kSchemaVersion,
                                                      "; run the version that made it, or a later one"));
  }
  return found;
}

}  // namespace

// Statements are declared after the connection, so that they end before it.
struct Store::Writer {
  Database database;
  Statement begin, commit, rollback, job, generation, member, event, artifact, drop_artifact;
};

struct Store::Reader {
  Database database;
  Statement jobs, generation, members, artifacts, last_sequence, latest, by_kind, events, steps;
};

Store::Store(std::unique_ptr<Writer> writer, std::unique_ptr<Reader> reader) : writer_(std::move(writer)), reader_(std::move(reader)) {}
Store::~Store() = default;

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& path) {
  ASSIGN_OR_RETURN(Database write, Database::Open(path));
  const absl::StatusOr<int64_t> version = SchemaVersion(write);
  RETURN_IF_ERROR(Annotate(version.status(), path));
  RETURN_IF_ERROR(write.Execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF"));
  RETURN_IF_ERROR(write.Execute(absl::StrCat("BEGIN; ", kSchema, Migration(*version), "PRAGMA user_version=", kSchemaVersion, "; COMMIT")));
  const std::string folder = std::filesystem::path(path).parent_path().string();
  RETURN_IF_ERROR(FlushDirectory(folder.empty() ? "." : folder));
  ASSIGN_OR_RETURN(Database read, Database::Open(path));

  auto w = std::make_unique<Writer>(Writer{std::move(write)});
  const std::pair<Statement*, const char*> writes[] = {
      {&w->begin, "BEGIN IMMEDIATE"},
      {&w->commit, "COMMIT"},
      {&w->rollback, "ROLLBACK"},
      {&w->job, "INSERT OR REPLACE INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"},
      {&w->generation, "INSERT INTO generations VALUES (?,?,?,?,?,?)"},
      {&w->member, "INSERT INTO members VALUES (?,?,?,?,?,?,?,?,?,?)"},
      {&w->event, "INSERT INTO events VALUES (?,?,?,?,?,?)"},
      {&w->artifact, "INSERT OR REPLACE INTO artifacts VALUES (?,?,?,?,?)"},
      {&w->drop_artifact, "DELETE FROM artifacts WHERE job_id=? AND name=?"}};
  for (const auto& [statement, sql] : writes) {
    ASSIGN_OR_RETURN(*statement, w->database.Prepare(sql));
  }
  auto r = std::make_unique<Reader>(Reader{std::move(read)});
  const std::pair<Statement*, const char*> reads[] = {
      {&r->jobs, "SELECT * FROM jobs ORDER BY id"},
      {&r->generation, "SELECT * FROM generations WHERE job_id=? ORDER BY number DESC LIMIT 1"},
      {&r->members, "SELECT * FROM members WHERE job_id=? AND number=? ORDER BY rank"},
      {&r->artifacts, "SELECT * FROM artifacts WHERE job_id=? ORDER BY name"},
      {&r->last_sequence, "SELECT COALESCE(MAX(sequence),0) FROM events WHERE job_id=?"},
      {&r->latest, "SELECT event FROM events WHERE job_id=? AND step IS NOT NULL ORDER BY step DESC LIMIT 1"},
      {&r->by_kind, "SELECT event FROM events WHERE job_id=? AND kind<>4 AND kind=? ORDER BY sequence"},
      {&r->events, "SELECT event FROM events WHERE job_id=? AND sequence>? ORDER BY sequence LIMIT ?"},
      {&r->steps, "SELECT event FROM events WHERE job_id=? AND step IS NOT NULL AND step BETWEEN ? AND ? ORDER BY step"}};
  for (const auto& [statement, sql] : reads) {
    ASSIGN_OR_RETURN(*statement, r->database.Prepare(sql));
  }
  return std::unique_ptr<Store>(new Store(std::move(w), std::move(r)));
}

absl::Status Store::health() const {
  absl::MutexLock lock(&write_mutex_);
  return poison_;
}

absl::Status Store::Apply(const Change& change) {
  absl::MutexLock lock(&write_mutex_);
  RETURN_IF_ERROR(poison_);
  absl::Status status = writer_->begin.Run();
  if (status.ok()) status = Write(change);
  LOCKSTEP_FAILPOINT("coordinator.before_commit");
  if (status.ok() && LOCKSTEP_FAILPOINT("coordinator.full_disk")) status = absl::ResourceExhaustedError("a test fills the disk");
  if (status.ok()) status = writer_->commit.Run();
  LOCKSTEP_FAILPOINT("coordinator.after_commit");
  if (status.ok()) return status;
  writer_->rollback.Run().IgnoreError();
  poison_ = absl::UnavailableError(
      absl::StrCat("the coordinator can make nothing durable any more and must be restarted, after: ", status.message()));
  LOG_ERROR("store=poisoned job=%s error=\"%s\"", change.job_id, status.ToString());
  return poison_;
}

absl::Status Store::Write(const Change& change) {
  Writer& w = *writer_;
  const std::string& id = change.job_id;
  if (change.job) {
    const JobRecord& job = *change.job;
    w.job.Bind(1, id).Bind(2, v1::JobState_Name(job.state)).Bind(3, job.reason).Bind(4, v1::FailureKind_Name(job.failure));
    w.job.Bind(5, static_cast<int64_t>(job.generation)).Bind(6, static_cast<int64_t>(job.next_generation));
    w.job.Bind(7, static_cast<int64_t>(job.total_steps)).Bind(8, job.cancel_wanted ? 1 : 0).Bind(9, job.deaths);
    w.job.Bind(10, static_cast<int64_t>(job.death_step)).Bind(11, job.submitted_unix_ms).Bind(12, job.started_unix_ms);
    w.job.Bind(13, job.ended_unix_ms).BindBlob(14, job.job.SerializeAsString());
    if (job.plan) w.job.BindBlob(15, job.plan->SerializeAsString());
    if (!job.plan) w.job.BindNull(15);
    if (job.result) w.job.BindBlob(16, job.result->SerializeAsString());
    if (!job.result) w.job.BindNull(16);
    w.job.Bind(17, job.request_id).Bind(18, job.pause_wanted ? 1 : 0);
    if (job.scale) w.job.BindBlob(19, job.scale->SerializeAsString());
    if (!job.scale) w.job.BindNull(19);
    RETURN_IF_ERROR(w.job.Run());
  }
  if (change.generation) {
    const GenerationRecord& generation = *change.generation;
    const auto number = static_cast<int64_t>(generation.number);
    w.generation.Bind(1, id).Bind(2, number).Bind(3, v1::Role_Name(generation.role)).BindBlob(4, generation.secret);
    RETURN_IF_ERROR(w.generation.Bind(5, generation.created_unix_ms).Bind(6, generation.waits ? 1 : 0).Run());
    for (const MemberRecord& record : generation.members) {
      const v1::Member& member = record.member;
      w.member.Bind(1, id).Bind(2, number).Bind(3, member.rank()).Bind(4, member.worker_id()).Bind(5, member.address());
      w.member.Bind(6, member.first_virtual_replica()).Bind(7, member.virtual_replica_count()).Bind(8, record.threads);
      w.member.Bind(9, static_cast<int64_t>(record.process_generation)).Bind(10, record.process_rank);
      RETURN_IF_ERROR(w.member.Run());
    }
  }
  for (const v1::Event& event : change.events) {
    w.event.Bind(1, id).Bind(2, static_cast<int64_t>(event.sequence())).Bind(3, event.unix_ms()).Bind(4, event.what_case());
    if (event.has_step()) w.event.Bind(5, static_cast<int64_t>(event.step().step()));
    if (!event.has_step()) w.event.BindNull(5);
    RETURN_IF_ERROR(w.event.BindBlob(6, event.SerializeAsString()).Run());
  }
  for (const std::string& name : change.dropped_artifacts) RETURN_IF_ERROR(w.drop_artifact.Bind(1, id).Bind(2, name).Run());
  if (change.artifact) {
    const ArtifactRecord& artifact = *change.artifact;
    w.artifact.Bind(1, id).Bind(2, artifact.name).Bind(3, artifact.file).Bind(4, static_cast<int64_t>(artifact.bytes));
    RETURN_IF_ERROR(w.artifact.Bind(5, artifact.xxh3_128).Run());
  }
  return absl::OkStatus();
}

namespace {

absl::StatusOr<JobRecord> ToJob(const Statement& row) {
  JobRecord job;
  job.id = row.Bytes(0);
  if (!v1::JobState_Parse(row.Bytes(1), &job.state) || !v1::FailureKind_Parse(row.Bytes(3), &job.failure)) {
    return absl::DataLossError(absl::StrCat("store: job ", job.id, " is in a state that does not exist"));
  }
  job.reason = row.Bytes(2);
  job.generation = static_cast<uint64_t>(row.Integer(4));
  job.next_generation = static_cast<uint64_t>(row.Integer(5));
  job.total_steps = static_cast<uint64_t>(row.Integer(6));
  job.cancel_wanted = row.Integer(7) != 0;
  job.deaths = static_cast<uint32_t>(row.Integer(8));
  job.death_step = static_cast<uint64_t>(row.Integer(9));
  job.submitted_unix_ms = row.Integer(10);
  job.started_unix_ms = row.Integer(11);
  job.ended_unix_ms = row.Integer(12);
  RETURN_IF_ERROR(Parse(row, 13, job.job));
  if (!row.IsNull(14)) RETURN_IF_ERROR(Parse(row, 14, job.plan.emplace()));
  if (!row.IsNull(15)) RETURN_IF_ERROR(Parse(row, 15, job.result.emplace()));
  job.request_id = row.Bytes(16);
  job.pause_wanted = row.Integer(17) != 0;
  if (!row.IsNull(18)) RETURN_IF_ERROR(Parse(row, 18, job.scale.emplace()));
  return job;
}

// Calls `take` with every event that the statement gives.
template <typename Take>
absl::Status ForEachEvent(Statement& statement, Take take) {
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, statement.Step());
    if (!row) return absl::OkStatus();
    v1::Event event;
    if (absl::Status status = Parse(statement, 0, event); !status.ok()) {
      statement.Reset();
      return status;
    }
    take(std::move(event));
  }
}

}  // namespace

absl::StatusOr<std::vector<StoredJob>> Store::LoadJobs() const {
  absl::MutexLock lock(&read_mutex_);
  std::vector<JobRecord> records;
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, reader_->jobs.Step());
    if (!row) break;
    absl::StatusOr<JobRecord> record = ToJob(reader_->jobs);
    if (!record.ok()) reader_->jobs.Reset();
    RETURN_IF_ERROR(record.status());
    records.push_back(std::move(*record));
  }
  std::vector<StoredJob> jobs;
  for (JobRecord& record : records) {
    ASSIGN_OR_RETURN(StoredJob job, LoadJob(std::move(record)));
    jobs.push_back(std::move(job));
  }
  return jobs;
}

absl::StatusOr<StoredJob> Store::LoadJob(JobRecord record) const {
  StoredJob job;
  job.record = std::move(record);
  const std::string& id = job.record.id;
  RETURN_IF_ERROR(LoadGeneration(job));
  reader_->artifacts.Bind(1, id);
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, reader_->artifacts.Step());
    if (!row) break;
    const Statement& at = reader_->artifacts;
    job.artifacts.push_back({at.Bytes(1), at.Bytes(2), static_cast<uint64_t>(at.Integer(3)), at.Bytes(4)});
  }
  ASSIGN_OR_RETURN(const bool row, reader_->last_sequence.Bind(1, id).Step());
  if (row) job.last_sequence = static_cast<uint64_t>(reader_->last_sequence.Integer(0));
  reader_->last_sequence.Reset();
  RETURN_IF_ERROR(ForEachEvent(reader_->latest.Bind(1, id), [&](const v1::Event& event) { job.latest = event.step(); }));
  RETURN_IF_ERROR(ForEachEvent(reader_->by_kind.Bind(1, id).Bind(2, v1::Event::kEpochFieldNumber),
                               [&](v1::Event event) { KeepEpoch(job.epochs, std::move(*event.mutable_epoch())); }));
  if (!HasEnded(job.record.state)) {
    RETURN_IF_ERROR(ForEachEvent(reader_->by_kind.Bind(1, id).Bind(2, v1::Event::kNoteFieldNumber),
                                 [&](const v1::Event& event) { job.notes.push_back(event.note()); }));
  }
  return job;
}

absl::Status Store::LoadGeneration(StoredJob& job) const {
  Statement& newest = reader_->generation.Bind(1, job.record.id);
  ASSIGN_OR_RETURN(const bool found, newest.Step());
  if (!found) return absl::OkStatus();
  GenerationRecord generation;
  generation.number = static_cast<uint64_t>(newest.Integer(1));
  const bool known = v1::Role_Parse(newest.Bytes(2), &generation.role);
  generation.secret = newest.Bytes(3);
  generation.created_unix_ms = newest.Integer(4);
  generation.waits = newest.Integer(5) != 0;
  newest.Reset();
  if (!known) return absl::DataLossError(absl::StrCat("store: a generation of job ", job.record.id, " has a role that does not exist"));
  Statement& members = reader_->members.Bind(1, job.record.id).Bind(2, static_cast<int64_t>(generation.number));
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, members.Step());
    if (!row) break;
    MemberRecord record;
    record.member.set_rank(static_cast<uint32_t>(members.Integer(2)));
    record.member.set_worker_id(members.Bytes(3));
    record.member.set_address(members.Bytes(4));
    record.member.set_first_virtual_replica(static_cast<uint32_t>(members.Integer(5)));
    record.member.set_virtual_replica_count(static_cast<uint32_t>(members.Integer(6)));
    record.threads = static_cast<uint32_t>(members.Integer(7));
    const auto process_generation = static_cast<uint64_t>(members.Integer(8));
    record.process_generation = process_generation > 0 ? process_generation : generation.number;
    record.process_rank = process_generation > 0 ? static_cast<uint32_t>(members.Integer(9)) : record.member.rank();
    generation.members.push_back(std::move(record));
  }
  job.generation = std::move(generation);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::Event>> Store::ReadEvents(const std::string& job_id, uint64_t after, int limit) const {
  absl::MutexLock lock(&read_mutex_);
  std::vector<v1::Event> events;
  reader_->events.Bind(1, job_id).Bind(2, static_cast<int64_t>(after)).Bind(3, limit);
  RETURN_IF_ERROR(ForEachEvent(reader_->events, [&](v1::Event event) { events.push_back(std::move(event)); }));
  return events;
}

absl::StatusOr<std::vector<v1::StepRecord>> Store::ReadSteps(const std::string& job_id, uint64_t first, uint64_t last) const {
  absl::MutexLock lock(&read_mutex_);
  std::vector<v1::StepRecord> steps;
  reader_->steps.Bind(1, job_id).Bind(2, static_cast<int64_t>(first)).Bind(3, static_cast<int64_t>(last));
  RETURN_IF_ERROR(ForEachEvent(reader_->steps, [&](v1::Event event) { steps.push_back(std::move(*event.mutable_step())); }));
  return steps;
}

}  // namespace lockstep
