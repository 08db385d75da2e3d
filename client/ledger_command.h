#pragma once
// lockstep ledger: prints what committed steps consumed, or proves that it was every sample once (ledger/ledger.h).

#include "absl/status/statusor.h"
#include "client/command_line.h"
#include "client/coordinator_client.h"

namespace lockstep {

// Of line.job_id, or, with a null client, of line.ledger_file. The exit status.
absl::StatusOr<int> ShowLedger(const CommandLine& line, CoordinatorClient* client);

}  // namespace lockstep
