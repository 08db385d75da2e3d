#include "rpc/frame.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lockstep {
namespace {

constexpr uint32_t kMostFrameBytes = 64 << 20;

// How many bytes came before the end of the file.
absl::StatusOr<size_t> ReadFully(int fd, char* data, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t count = read(fd, data + done, bytes - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == ECONNRESET) break;
    if (count < 0) return absl::UnavailableError(absl::StrCat("cannot read a frame: ", std::strerror(errno)));
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  return done;
}

}  // namespace

absl::Status WriteFrame(int fd, const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  if (size > kMostFrameBytes) return absl::InvalidArgumentError(absl::StrCat("a frame of ", size, " bytes is too long"));
  std::string bytes(4, '\0');
  for (int i = 0; i < 4; ++i) bytes[static_cast<size_t>(i)] = static_cast<char>(size >> (8 * i));
  if (!message.AppendToString(&bytes)) return absl::InternalError("a message cannot be written");
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::UnavailableError(absl::StrCat("cannot write a frame: ", std::strerror(errno)));
    done += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::string>> ReadFrameBytes(int fd) {
  unsigned char header[4];
  ASSIGN_OR_RETURN(const size_t have, ReadFully(fd, reinterpret_cast<char*>(header), sizeof(header)));
  if (have == 0) return std::optional<std::string>();
  if (have < sizeof(header)) return absl::DataLossError("the socket ended within a frame's length");
  uint32_t size = 0;
  for (int i = 0; i < 4; ++i) size |= static_cast<uint32_t>(header[i]) << (8 * i);
  if (size > kMostFrameBytes) return absl::DataLossError(absl::StrCat("a frame says it has ", size, " bytes"));
  std::string bytes(size, '\0');
  ASSIGN_OR_RETURN(const size_t got, ReadFully(fd, bytes.data(), size));
  if (got < size) return absl::DataLossError("the socket ended within a frame");
  return std::optional<std::string>(std::move(bytes));
}

}  // namespace lockstep
