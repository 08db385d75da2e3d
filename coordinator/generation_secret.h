#pragma once
// What trainers of one generation show each other.

#include <string>

#include "absl/status/statusor.h"

namespace lockstep {

// 32 random bytes.
absl::StatusOr<std::string> MakeSecret();

}  // namespace lockstep
