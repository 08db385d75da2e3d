#include "dataset/file_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace lockstep::dataset {
namespace {

class LocalFileReader final : public FileReader {
 public:
  absl::Status Read(const std::string& path, int64_t bytes, std::string& contents) const override {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
    const auto closer = absl::MakeCleanup([fd] { close(fd); });
    struct stat info {};
    if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "cannot stat", path);
    if (info.st_size != bytes) {
      return absl::DataLossError(
          absl::StrCat(path, " has changed since the data set was listed: ", bytes, " bytes then, ", info.st_size, " now"));
    }
    contents.resize(static_cast<size_t>(bytes));
    for (size_t have = 0; have < contents.size();) {
      const ssize_t count = read(fd, contents.data() + have, contents.size() - have);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return ErrnoStatus(errno, "cannot read", path);
      if (count == 0) return absl::DataLossError(absl::StrCat(path, " became shorter while it was read"));
      have += static_cast<size_t>(count);
    }
    return absl::OkStatus();
  }
};

}  // namespace

std::unique_ptr<FileReader> LocalFiles() { return std::make_unique<LocalFileReader>(); }

}  // namespace lockstep::dataset
