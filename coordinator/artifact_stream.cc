#include "coordinator/artifact_stream.h"

#include "absl/strings/str_cat.h"
#include "rpc/file_stream.h"

namespace lockstep {

absl::Status SendArtifact(const StateFolder& folder, const std::string& job_id, const ArtifactRecord& artifact,
                          absl::FunctionRef<bool(const v1::Chunk&)> write) {
  bool damaged = false;
  const absl::Status sent = SendFile(folder.JobPath(job_id, artifact.file), [&](const v1::Chunk& chunk) {
    damaged = chunk.last() && (chunk.total_bytes() != artifact.bytes || chunk.xxh3_128() != artifact.xxh3_128);
    return !damaged && write(chunk);
  });
  if (damaged) {
    return absl::DataLossError(absl::StrCat("artifact ", artifact.name, " of job ", job_id,
                                            " is damaged on the coordinator's disk: it was ", artifact.bytes, " bytes with checksum ",
                                            artifact.xxh3_128));
  }
  return sent;
}

}  // namespace lockstep
