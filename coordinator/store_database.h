#pragma once
// Just enough of SQLite for the store: a connection and prepared statements, with errors as absl::Status. Belongs to store.cc
// alone. Not thread-safe: a connection and its statements belong to one thread at a time.

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep {

class Database;

// One prepared statement. Bind in order from 1, step, read columns from 0; Reset before the next use.
class Statement {
 public:
  Statement() = default;
  Statement(Statement&&) = default;
  Statement& operator=(Statement&&) = default;

  Statement& Bind(int at, int64_t value);
  Statement& Bind(int at, std::string_view text);
  Statement& BindBlob(int at, const std::string& bytes);
  Statement& BindNull(int at);

  // True: a row can be read. False: no row is left, and the statement is as before its first step. Errors, also those of
  // binding, leave it so too.
  absl::StatusOr<bool> Step();
  // For statements that give no rows.
  absl::Status Run();
  // Ends reading before the last row.
  void Reset() { sqlite3_reset(statement_.get()); }

  int64_t Integer(int column) const { return sqlite3_column_int64(statement_.get(), column); }
  std::string Bytes(int column) const;
  bool IsNull(int column) const { return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL; }

 private:
  friend class Database;
  void Remember(int code);

  std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement_{nullptr, &sqlite3_finalize};
  int bind_error_ = SQLITE_OK;
};

class Database {
 public:
  // Creates the file if there is none.
  static absl::StatusOr<Database> Open(const std::string& path);

  absl::Status Execute(const std::string& sql);
  absl::StatusOr<Statement> Prepare(const std::string& sql);

 private:
  explicit Database(sqlite3* handle) : handle_(handle, &sqlite3_close_v2) {}

  std::unique_ptr<sqlite3, int (*)(sqlite3*)> handle_;
};

}  // namespace lockstep
