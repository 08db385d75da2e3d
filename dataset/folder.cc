// The listing half of the index: walks a folder of class folders and says what is wrong with it, all at once. What it holds in
// memory is the class names and an open folder for each level.

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "dataset/index.h"

namespace lockstep::dataset {
namespace {

constexpr int kDeepest = 64;  // folders within folders
constexpr size_t kMostClasses = 1'000'000;
constexpr size_t kMostProblems = 20;  // told one by one
constexpr size_t kMostNames = 10;     // in a message

bool IsPicture(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return false;
  std::string extension(name.substr(dot + 1));
  std::transform(extension.begin(), extension.end(), extension.begin(), [](unsigned char c) { return std::tolower(c); });
  return extension == "jpg" || extension == "jpeg" || extension == "png";
}

// Names travel in messages and logs that must be UTF-8 (RFC 3629).
bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xC0) != 0x80) return false;
    }
    if (length > 1) {
      const auto second = static_cast<unsigned char>(text[i + 1]);
      if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F)) return false;
      if ((lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) return false;
    }
    i += length;
  }
  return true;
}

std::string FirstOf(const std::vector<std::string>& names) {
  const size_t shown = std::min(names.size(), kMostNames);
  const std::string some = absl::StrJoin(names.begin(), names.begin() + static_cast<ptrdiff_t>(shown), ", ");
  return shown == names.size() ? some : absl::StrCat(some, ", … ", names.size() - shown, " more");
}

struct Entry {
  std::string_view name;
  bool directory = false;
  int64_t bytes = 0;
};

// Visits what is in a folder, hidden names left out, symbolic links followed; `lost` counts links that lead nowhere.
absl::Status ForEachEntry(const std::string& folder, int64_t& lost, const std::function<absl::Status(const Entry&)>& visit) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(folder.c_str()), &closedir);
  if (directory == nullptr) return ErrnoStatus(errno, "cannot open folder", folder);
  for (;;) {
    errno = 0;
    const dirent* item = readdir(directory.get());
    if (item == nullptr) return errno == 0 ? absl::OkStatus() : ErrnoStatus(errno, "cannot read folder", folder);
    if (item->d_name[0] == '.') continue;
    struct stat info {};
    if (fstatat(dirfd(directory.get()), item->d_name, &info, 0) != 0) {
      if (errno != ENOENT && errno != ELOOP) return ErrnoStatus(errno, "cannot stat", absl::StrCat(folder, "/", item->d_name));
      ++lost;
      continue;
    }
    if (!S_ISDIR(info.st_mode) && !S_ISREG(info.st_mode)) continue;
    RETURN_IF_ERROR(visit({item->d_name, S_ISDIR(info.st_mode), static_cast<int64_t>(info.st_size)}));
  }
}

// One listing of one folder.
class Lister {
 public:
  Lister(const std::string& folder, const IndexOptions& options) : folder_(folder), options_(options) {}

  absl::Status ReadTopLevel();
  absl::Status ListAll(const FileSink& sink);
  const std::vector<std::string>& classes() const { return options_.expected_classes.empty() ? folders_ : options_.expected_classes; }
  IndexSummary Summary(int64_t samples) const;

 private:
  // Hands over the pictures below folder_/relative; returns how many.
  absl::StatusOr<int64_t> Walk(const std::string& relative, int64_t label, int depth, const FileSink& sink);
  absl::Status Visit(const Entry& entry, const std::string& relative, int64_t label, const FileSink& sink);
  void Problem(std::string text) {
    if (++problem_count_ <= kMostProblems) problems_.push_back(std::move(text));
  }
  absl::Status Verdict() const;

  const std::string& folder_;
  const IndexOptions& options_;
  std::vector<std::string> folders_;  // at the top, sorted
  std::vector<std::string> problems_;
  size_t problem_count_ = 0;
  int64_t found_ = 0, ignored_ = 0, lost_ = 0, loose_ = 0;
};

absl::Status Lister::ReadTopLevel() {
  struct stat info {};
  if (stat(folder_.c_str(), &info) != 0 && errno == ENOENT) {
    return absl::InvalidArgumentError(absl::StrCat("there is no folder ", folder_));
  }
  if (info.st_mode != 0 && !S_ISDIR(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(folder_, " is not a folder"));
  RETURN_IF_ERROR(ForEachEntry(folder_, lost_, [this](const Entry& entry) -> absl::Status {
    if (entry.directory) folders_.emplace_back(entry.name);
    if (!entry.directory && IsPicture(entry.name)) ++loose_;
    if (folders_.size() <= kMostClasses) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("folder ", folder_, " has more than ", kMostClasses, " class folders"));
  }));
  std::sort(folders_.begin(), folders_.end());
  if (!options_.require_classes || !folders_.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("folder ", folder_, " has no class folders", loose_ > 0 ? ": its pictures must lie in one folder for each class" : ""));
}

absl::Status Lister::ListAll(const FileSink& sink) {
  std::map<std::string_view, int64_t> labels;
  for (size_t i = 0; i < classes().size(); ++i) labels[classes()[i]] = static_cast<int64_t>(i);
  for (const std::string& name : folders_) {
    const std::string path = absl::StrCat(folder_, "/", name);
    const auto label = labels.find(name);
    if (label == labels.end()) {
      Problem(absl::StrCat("class folder ", path, " is not among the training classes (", FirstOf(options_.expected_classes), ")"));
      continue;
    }
    if (!IsUtf8(name)) Problem(absl::StrCat("the name of class folder ", absl::CHexEscape(path), " is not UTF-8"));
    ASSIGN_OR_RETURN(const int64_t found, Walk(name, label->second, 1, sink));
    if (found == 0 && options_.require_classes) {
      Problem(absl::StrCat("class folder ", path, " has no pictures (.jpg, .jpeg or .png)"));
    }
  }
  if (!options_.require_classes) {
    int64_t counted_before = 0;
    RETURN_IF_ERROR(ForEachEntry(folder_, counted_before,
                                 [&](const Entry& entry) { return entry.directory ? absl::OkStatus() : Visit(entry, "", -1, sink); }));
  }
  return Verdict();
}

absl::StatusOr<int64_t> Lister::Walk(const std::string& relative, int64_t label, int depth, const FileSink& sink) {
  const std::string path = absl::StrCat(folder_, "/", relative);
  if (depth > kDeepest) {
    return absl::InvalidArgumentError(
        absl::StrCat("folder ", path, " is nested deeper than ", kDeepest, " folders (a symbolic link to one of its parents?)"));
  }
  const int64_t before = found_;
  RETURN_IF_ERROR(ForEachEntry(path, lost_, [&](const Entry& entry) -> absl::Status {
    if (!entry.directory) return Visit(entry, absl::StrCat(relative, "/"), label, sink);
    const std::string below = absl::StrCat(relative, "/", std::string(entry.name));
    if (!IsUtf8(entry.name))
      Problem(absl::StrCat("the name of folder ", absl::CHexEscape(absl::StrCat(folder_, "/", below)), " is not UTF-8"));
    return Walk(below, label, depth + 1, sink).status();
  }));
  return found_ - before;
}

absl::Status Lister::Visit(const Entry& entry, const std::string& relative, int64_t label, const FileSink& sink) {
  if (!IsPicture(entry.name)) {
    ++ignored_;
    return absl::OkStatus();
  }
  ++found_;
  const std::string path = relative + std::string(entry.name);
  if (!IsUtf8(entry.name)) Problem(absl::StrCat("the name of ", absl::CHexEscape(absl::StrCat(folder_, "/", path)), " is not UTF-8"));
  return problem_count_ == 0 ? sink({path, label, entry.bytes}) : absl::OkStatus();
}

absl::Status Lister::Verdict() const {
  if (problem_count_ > 0) {
    std::string text = absl::StrJoin(problems_, "\n");
    if (problem_count_ > kMostProblems) absl::StrAppend(&text, "\n… and ", problem_count_ - kMostProblems, " more problems");
    return absl::InvalidArgumentError(text);
  }
  if (found_ > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("folder ", folder_, " has no pictures (.jpg, .jpeg or .png)"));
}

IndexSummary Lister::Summary(int64_t samples) const {
  IndexSummary summary;
  summary.samples = samples;
  summary.classes = static_cast<int64_t>(classes().size());
  summary.ignored_files = ignored_;
  if (options_.require_classes && loose_ > 0) {
    summary.notes.push_back(absl::StrCat(loose_, " pictures beside the class folders are not used"));
  }
  if (ignored_ > 0) summary.notes.push_back(absl::StrCat(ignored_, " files ignored: not .jpg, .jpeg or .png"));
  if (lost_ > 0) summary.notes.push_back(absl::StrCat(lost_, " symbolic links ignored: they lead nowhere"));
  std::vector<std::string> missing;
  std::set_difference(classes().begin(), classes().end(), folders_.begin(), folders_.end(), std::back_inserter(missing));
  if (!missing.empty() && options_.require_classes) summary.notes.push_back(absl::StrCat("no pictures of ", FirstOf(missing)));
  return summary;
}

}  // namespace

absl::StatusOr<IndexSummary> BuildIndex(const std::string& folder, const std::string& path, const IndexOptions& options) {
  Lister lister(folder, options);
  RETURN_IF_ERROR(lister.ReadTopLevel());
  ASSIGN_OR_RETURN(const int64_t samples, WriteIndex([&lister](const FileSink& sink) { return lister.ListAll(sink); }, lister.classes(),
                                                     path, options.memory_bytes));
  return lister.Summary(samples);
}

}  // namespace lockstep::dataset
