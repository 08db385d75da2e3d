#include "coordinator/artifact_stream.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "rpc/file_stream.h"

namespace lockstep {
namespace {

constexpr int kMostLooks = 5;

absl::Status Send(const std::string& path, const std::string& job_id, const ArtifactRecord& artifact,
                  absl::FunctionRef<bool(const v1::Chunk&)> write) {
  bool damaged = false;
  absl::Status sent = SendFile(path, [&](const v1::Chunk& chunk) {
    damaged = chunk.last() && (chunk.total_bytes() != artifact.bytes || chunk.xxh3_128() != artifact.xxh3_128);
    return !damaged && write(chunk);
  });
  if (!damaged) return sent;
  return absl::DataLossError(absl::StrCat("artifact ", artifact.name, " of job ", job_id, " is damaged on the coordinator's disk: it was ",
                                          artifact.bytes, " bytes with checksum ", artifact.xxh3_128));
}

}  // namespace

absl::Status SendArtifact(const Coordinator& coordinator, const StateFolder& folder, const std::string& job_id, const std::string& name,
                          absl::FunctionRef<bool(const v1::Chunk&)> write) {
  absl::Status sent;
  for (int look = 0; look < kMostLooks; ++look) {
    ASSIGN_OR_RETURN(const ArtifactRecord artifact, coordinator.FindArtifact(job_id, name));
    if (artifact.file.starts_with('/')) {
      return absl::FailedPreconditionError(
          absl::StrCat("artifact ", name, " of job ", job_id,
                       " is where the job keeps its checkpoints; read it there, on a machine of its workers: ", artifact.file));
    }
    sent = Send(folder.JobPath(job_id, artifact.file), job_id, artifact, write);
    // Replaced between its record and its file: then nothing was sent, and there is a newer record.
    if (!absl::IsNotFound(sent)) return sent;
  }
  return sent;
}

}  // namespace lockstep
