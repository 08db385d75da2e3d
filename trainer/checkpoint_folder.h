#pragma once
// Checkpoints in storage of the job's own: one folder that all its workers see, given by `checkpoint.folder`, and in it one of the job's
// id. The coordinator knows their names, sizes and checksums; their bytes never pass through it. No libtorch.

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/checkpoint_storage.h"
#include "trainer/link.h"

namespace lockstep {

// `source`, durable and whole at FOLDER/`name`, or not at all. FOLDER is made in its parent, which must exist: it may be a place where
// nothing is mounted. Gives what a Chunk says of the whole file.
absl::StatusOr<FileDigest> KeepInFolder(const std::string& folder, const std::string& name, const std::string& source);

// Removes every checkpoint in the folder that is not in `kept`, and what writers left that died. What is called otherwise is left alone.
void SweepFolder(const std::string& folder, const std::vector<std::string>& kept);

// Of the job's own storage, told to the coordinator. `link` must outlive what is returned; `fetch` makes a link to the file.
CheckpointStorage FolderStorage(const std::string& checkpoint_folder, const std::string& job_id, Link& link);

}  // namespace lockstep
