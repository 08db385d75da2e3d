#pragma once
// Logs: key=value lines on standard error. Transitions are logged, ticks are not; what happens every step is a metric.
//
//   InitLogging("coordinator", LogLevel::kInfo);
//   LOG_INFO("job=%s state=%s reason=\"%s\"", id, state, reason);
//
// Thread-safe after InitLogging, which main calls once.

#include <string>
#include <string_view>

#include "absl/strings/str_format.h"

namespace lockstep {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kNone };

// `program` stands in every line. Lines below `level` are dropped.
void InitLogging(std::string_view program, LogLevel level);
void WriteLog(LogLevel level, std::string_view line);

}  // namespace lockstep

#define LOG_DEBUG(...) ::lockstep::WriteLog(::lockstep::LogLevel::kDebug, absl::StrFormat(__VA_ARGS__))
#define LOG_INFO(...) ::lockstep::WriteLog(::lockstep::LogLevel::kInfo, absl::StrFormat(__VA_ARGS__))
#define LOG_WARNING(...) ::lockstep::WriteLog(::lockstep::LogLevel::kWarning, absl::StrFormat(__VA_ARGS__))
#define LOG_ERROR(...) ::lockstep::WriteLog(::lockstep::LogLevel::kError, absl::StrFormat(__VA_ARGS__))
