#include "allreduce/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace lockstep::allreduce {
namespace {

constexpr int kFixedSize = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

absl::StatusOr<Mapping> Map(size_t bytes, int flags, int fd) {
  void* const address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (address == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot map ", bytes, " bytes for the all-reduce: ", std::strerror(errno)));
  }
  return Mapping(address, bytes);
}

}  // namespace

Mapping::~Mapping() {
  if (address_ != nullptr) munmap(address_, bytes_);
}

absl::StatusOr<Mapping> MapPrivate(size_t bytes) {
  absl::StatusOr<Mapping> mapping = Map(bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  if (mapping.ok()) madvise(mapping->data(), bytes, MADV_HUGEPAGE);
  return mapping;
}

absl::StatusOr<SharedSegment> CreateShared(size_t bytes) {
  SharedSegment segment;
  segment.file = FileDescriptor(memfd_create("lockstep-allreduce", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!segment.file.valid()) return absl::ResourceExhaustedError(absl::StrCat("memfd_create: ", std::strerror(errno)));
  // Now, because running out of memory would otherwise show as SIGBUS in the middle of a step.
  if (fallocate(segment.file.get(), 0, 0, static_cast<off_t>(bytes)) != 0) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot get ", bytes, " bytes of shared memory: ", std::strerror(errno)));
  }
  if (fcntl(segment.file.get(), F_ADD_SEALS, kFixedSize) != 0) return SocketError(errno, "seal shared memory");
  absl::StatusOr<Mapping> mapping = Map(bytes, MAP_SHARED | MAP_POPULATE, segment.file.get());
  if (!mapping.ok()) return mapping.status();
  segment.mapping = *std::move(mapping);
  return segment;
}

absl::StatusOr<Mapping> MapShared(const FileDescriptor& file, size_t bytes) {
  struct stat status {};
  if (fstat(file.get(), &status) != 0 || static_cast<size_t>(status.st_size) != bytes) {
    return absl::DataLossError(absl::StrCat("a peer's shared memory has ", status.st_size, " bytes instead of ", bytes));
  }
  if ((fcntl(file.get(), F_GET_SEALS) & kFixedSize) != kFixedSize) {
    return absl::DataLossError("a peer's shared memory could change its size");
  }
  return Map(bytes, MAP_SHARED, file.get());
}

}  // namespace lockstep::allreduce
