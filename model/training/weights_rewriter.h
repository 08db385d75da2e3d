#pragma once
// Changes arrays of an HDF5 file in place. No libtorch. Thread-safe: holds Hdf5Lock() while it works.

#include <string>

#include "absl/status/status.h"
#include "model/training/archive_writer.h"

namespace lockstep {

// Writes the arrays and the optimizer's variables into the HDF5 file at `path`, which is a private copy: after an error it is broken.
// Errors as WriteTrainedArchive's.
absl::Status RewriteWeights(const std::string& path, const TrainedWeights& weights);

}  // namespace lockstep
