#include "coordinator/store_database.h"

#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

absl::Status ToStatus(int code, sqlite3* handle) {
  const std::string message = absl::StrCat("store: ", sqlite3_errmsg(handle));
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return absl::DataLossError(message);
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY: return absl::PermissionDeniedError(message);
    default: return absl::UnknownError(message);
  }
}

}  // namespace

void Statement::Remember(int code) {
  if (bind_error_ == SQLITE_OK) bind_error_ = code;
}

Statement& Statement::Bind(int at, int64_t value) {
  Remember(sqlite3_bind_int64(statement_.get(), at, value));
  return *this;
}

Statement& Statement::Bind(int at, std::string_view text) {
  Remember(sqlite3_bind_text(statement_.get(), at, text.data(), static_cast<int>(text.size()), SQLITE_TRANSIENT));
  return *this;
}

Statement& Statement::BindBlob(int at, const std::string& bytes) {
  Remember(sqlite3_bind_blob64(statement_.get(), at, bytes.data(), bytes.size(), SQLITE_TRANSIENT));
  return *this;
}

Statement& Statement::BindNull(int at) {
  Remember(sqlite3_bind_null(statement_.get(), at));
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  const int code = bind_error_ == SQLITE_OK ? sqlite3_step(statement_.get()) : bind_error_;
  if (code == SQLITE_ROW) return true;
  absl::Status status;
  if (code != SQLITE_DONE) status = ToStatus(code, sqlite3_db_handle(statement_.get()));
  sqlite3_reset(statement_.get());
  bind_error_ = SQLITE_OK;
  if (!status.ok()) return status;
  return false;
}

absl::Status Statement::Run() {
  const absl::StatusOr<bool> row = Step();
  if (row.ok() && *row) {
    Reset();
    return absl::InternalError("store: a statement gave a row that nobody reads");
  }
  return row.status();
}

std::string Statement::Bytes(int column) const {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_.get(), column));
  return data == nullptr ? std::string() : std::string(data, static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column)));
}

absl::StatusOr<Database> Database::Open(const std::string& path) {
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  Database database(handle);
  if (code != SQLITE_OK) {
    if (handle == nullptr) return absl::ResourceExhaustedError("store: no memory for SQLite");
    const absl::Status status = ToStatus(code, handle);
    return absl::Status(status.code(), absl::StrCat(status.message(), " (", path, ")"));
  }
  sqlite3_busy_timeout(handle, 5'000);
  sqlite3_extended_result_codes(handle, 1);
  return database;
}

absl::Status Database::Execute(const std::string& sql) {
  const int code = sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : ToStatus(code, handle_.get());
}

absl::StatusOr<Statement> Database::Prepare(const std::string& sql) {
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v3(handle_.get(), sql.c_str(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
  if (code != SQLITE_OK) return ToStatus(code, handle_.get());
  Statement statement;
  statement.statement_.reset(raw);
  return statement;
}

}  // namespace lockstep
