#pragma once
// What can be known to be wrong with a job before anything is started: the fields among themselves, and the files and folders
// of this machine. The coordinator and planning check again, and more. Every error names the field, and its flag.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/job_fields.h"

namespace lockstep {

// V as planning resolves it where the job leaves it open: 8, halved until it divides the batch with at least 4 samples each.
uint32_t DefaultVirtualReplicas(uint32_t batch);

// Pure.
std::vector<std::string> CheckFields(const JobDraft& draft);

// The data folders exist and can be listed. For jobs that run on this machine.
std::vector<std::string> CheckFolders(const v1::Job& job);

// An archive at a glance: a file that begins as a ZIP does.
absl::Status CheckModelFile(const std::string& path);

// A file can be made or replaced at `path`: its folder exists and can be written to, and it is not itself a folder.
absl::Status CheckOutputFile(const std::string& path);

// Name, size and checksum of the file, as Submit wants them.
absl::StatusOr<v1::ModelFile> DescribeModelFile(const std::string& path);

}  // namespace lockstep
