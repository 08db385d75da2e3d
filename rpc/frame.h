#pragma once
// Messages on a local stream socket, each behind its length (4 bytes, little-endian, at most 64 MiB). Not thread-safe for one
// descriptor and direction.

#include <google/protobuf/message_lite.h>

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep {

// Unavailable: the other side is gone.
absl::Status WriteFrame(int fd, const google::protobuf::MessageLite& message);

// Waits for a whole message's bytes; nothing at end-of-file. DataLoss: the file ended within a message, or it is too long.
absl::StatusOr<std::optional<std::string>> ReadFrameBytes(int fd);

template <typename Message>
absl::StatusOr<std::optional<Message>> ReadFrame(int fd) {
  absl::StatusOr<std::optional<std::string>> bytes = ReadFrameBytes(fd);
  if (!bytes.ok()) return bytes.status();
  if (!bytes->has_value()) return std::optional<Message>();
  Message message;
  if (!message.ParseFromString(**bytes)) return absl::DataLossError("a frame holds no message of its kind");
  return std::optional<Message>(std::move(message));
}

}  // namespace lockstep
