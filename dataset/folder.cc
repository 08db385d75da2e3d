// The listing half of the index: walks a folder of class folders and says what is wrong with it, all at once.

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <map>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "dataset/index.h"

namespace lockstep::dataset {
namespace {

constexpr int kDeepest = 64;  // folders within folders

bool IsPicture(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) return false;
  std::string extension = name.substr(dot + 1);
  std::transform(extension.begin(), extension.end(), extension.begin(), [](unsigned char c) { return std::tolower(c); });
  return extension == "jpg" || extension == "jpeg" || extension == "png";
}

struct Entry {
  std::string name;
  bool directory = false;
  int64_t bytes = 0;
};

// Visits what is in a folder, hidden names left out, symbolic links followed.
absl::Status ForEachEntry(const std::string& folder, const std::function<absl::Status(const Entry&)>& visit) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(folder.c_str()), &closedir);
  if (directory == nullptr) return ErrnoStatus(errno, "cannot open folder", folder);
  for (;;) {
    errno = 0;
    const dirent* item = readdir(directory.get());
    if (item == nullptr) return errno == 0 ? absl::OkStatus() : ErrnoStatus(errno, "cannot read folder", folder);
    if (item->d_name[0] == '.') continue;
    struct stat info {};
    if (fstatat(dirfd(directory.get()), item->d_name, &info, 0) != 0) continue;  // a dangling link, or gone meanwhile
    Entry entry{item->d_name, S_ISDIR(info.st_mode), static_cast<int64_t>(info.st_size)};
    if (!entry.directory && !S_ISREG(info.st_mode)) continue;
    RETURN_IF_ERROR(visit(entry));
  }
}

class Walker {
 public:
  Walker(std::string root, const std::function<absl::Status(FoundFile)>& sink, IndexSummary& summary)
      : root_(std::move(root)), sink_(sink), summary_(summary) {}

  // Adds the pictures below root/relative; returns how many.
  absl::StatusOr<int64_t> Walk(const std::string& relative, int64_t label, int depth) {
    if (depth > kDeepest) {
      return absl::InvalidArgumentError(absl::StrCat("folder ", root_, "/", relative, " is nested deeper than ", kDeepest,
                                                     " folders (a symbolic link to one of its parents?)"));
    }
    int64_t found = 0;
    std::vector<std::string> folders;
    RETURN_IF_ERROR(ForEachEntry(absl::StrCat(root_, "/", relative), [&](const Entry& entry) -> absl::Status {
      const std::string path = relative.empty() ? entry.name : absl::StrCat(relative, "/", entry.name);
      if (entry.directory) {
        folders.push_back(path);
      } else if (IsPicture(entry.name)) {
        ++found;
        return sink_({path, label, entry.bytes});
      } else {
        ++summary_.ignored_files;
      }
      return absl::OkStatus();
    }));
    for (const std::string& folder : folders) {
      ASSIGN_OR_RETURN(const int64_t below, Walk(folder, label, depth + 1));
      found += below;
    }
    return found;
  }

 private:
  const std::string root_;
  const std::function<absl::Status(FoundFile)>& sink_;
  IndexSummary& summary_;
};

// The class folders, sorted, and whether pictures lie beside them.
struct TopLevel {
  std::vector<std::string> folders;
  int64_t loose_pictures = 0;
};
absl::StatusOr<TopLevel> ReadTopLevel(const std::string& folder) {
  TopLevel top;
  RETURN_IF_ERROR(ForEachEntry(folder, [&](const Entry& entry) {
    if (entry.directory) top.folders.push_back(entry.name);
    if (!entry.directory && IsPicture(entry.name)) ++top.loose_pictures;
    return absl::OkStatus();
  }));
  std::sort(top.folders.begin(), top.folders.end());
  return top;
}

}  // namespace

absl::StatusOr<IndexSummary> BuildIndex(const std::string& folder, const std::string& path, const IndexOptions& options) {
  absl::StatusOr<TopLevel> top = ReadTopLevel(folder);
  if (!top.ok()) {
    return top.status().code() == absl::StatusCode::kNotFound ? absl::InvalidArgumentError(top.status().message()) : top.status();
  }
  std::vector<std::string> problems;
  if (options.require_classes && top->folders.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("folder ", folder, " has no class folders",
                                                   top->loose_pictures > 0 ? ": its pictures must lie in one folder for each class" : ""));
  }
  const std::vector<std::string>& classes = options.expected_classes.empty() ? top->folders : options.expected_classes;
  std::map<std::string, int64_t> labels;
  for (size_t i = 0; i < classes.size(); ++i) labels[classes[i]] = static_cast<int64_t>(i);

  IndexSummary summary;
  const FileSource files = [&](const std::function<absl::Status(FoundFile)>& sink) -> absl::Status {
    Walker walker(folder, sink, summary);
    for (const std::string& name : top->folders) {
      const auto label = labels.find(name);
      if (label == labels.end()) {
        problems.push_back(absl::StrCat("class folder ", folder, "/", name, " is not among the training classes (",
                                        absl::StrJoin(options.expected_classes, ", "), ")"));
        continue;
      }
      ASSIGN_OR_RETURN(const int64_t found, walker.Walk(name, label->second, 1));
      if (found == 0 && options.require_classes) {
        problems.push_back(absl::StrCat("class folder ", folder, "/", name, " has no pictures (.jpg, .jpeg or .png)"));
      }
    }
    if (options.require_classes) return absl::OkStatus();
    return ForEachEntry(folder, [&](const Entry& entry) {
      return entry.directory || !IsPicture(entry.name) ? absl::OkStatus() : sink({entry.name, -1, entry.bytes});
    });
  };
  const absl::StatusOr<int64_t> written = WriteIndex(files, classes, path, options.memory_bytes);
  if (!written.ok()) return written.status();
  if (!problems.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
  if (*written == 0) return absl::InvalidArgumentError(absl::StrCat("folder ", folder, " has no pictures (.jpg, .jpeg or .png)"));
  summary.samples = *written;
  summary.classes = static_cast<int64_t>(classes.size());
  if (options.require_classes && top->loose_pictures > 0) {
    summary.notes.push_back(absl::StrCat(top->loose_pictures, " pictures beside the class folders are not used"));
  }
  if (summary.ignored_files > 0) summary.notes.push_back(absl::StrCat(summary.ignored_files, " files ignored: not .jpg, .jpeg or .png"));
  return summary;
}

}  // namespace lockstep::dataset
