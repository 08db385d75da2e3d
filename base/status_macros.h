#pragma once
// RETURN_IF_ERROR and ASSIGN_OR_RETURN over absl::Status.

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

#define LOCKSTEP_CONCAT_INNER(a, b) a##b
#define LOCKSTEP_CONCAT(a, b) LOCKSTEP_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                                         \
  do {                                                                      \
    if (absl::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expression) ASSIGN_OR_RETURN_INNER(LOCKSTEP_CONCAT(status_or_, __LINE__), lhs, expression)

#define ASSIGN_OR_RETURN_INNER(name, lhs, expression) \
  auto name = (expression);                           \
  if (!name.ok()) return std::move(name).status();    \
  lhs = std::move(name).value()

namespace lockstep {

// The same status, payloads included, with "context: " before its message; OK stays OK.
inline absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(absl::string_view(context.data(), context.size()), ": ", status.message()));
  status.ForEachPayload([&annotated](absl::string_view type, const absl::Cord& payload) { annotated.SetPayload(type, payload); });
  return annotated;
}

}  // namespace lockstep
