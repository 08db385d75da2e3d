#include "model/training/archive_writer.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zip.h>

#include <csignal>
#include <filesystem>

#include "base/file.h"
#include "base/test_folder.h"

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kConfigText[] =
    R"({"module": "keras", "class_name": "Sequential", "config": {"b": 1, "a": [1.5, 2]}, "compile_config": {"optimizer": "adam"}})";
const std::string& Extra() {
  static const std::string& bytes = *new std::string(1000, 'e');
  return bytes;
}

void PutArray(hid_t file, const char* name, const std::vector<hsize_t>& shape, const std::vector<float>& values) {
  const hid_t links = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  const hid_t space = shape.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  const hid_t set = H5Dcreate2(file, name, H5T_IEEE_F32LE, space, links, H5P_DEFAULT, H5P_DEFAULT);
  H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  H5Dclose(set), H5Sclose(space), H5Pclose(links);
}

class ArchiveWriterTest : public testing::Test {
 protected:
  ArchiveWriterTest() { WriteSource(); }
  std::string Path(const std::string& name) const { return folder_ / name; }

  // Two layers' arrays, and three optimizer variables, of a trained SGD with one.
  void WriteSource() {
    const hid_t file = H5Fcreate(Path("weights").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    PutArray(file, "layers/dense/vars/0", {2, 2}, {1, 2, 3, 4});
    PutArray(file, "layers/dense/vars/1", {2}, {5, 6});
    PutArray(file, "optimizer/vars/0", {}, {3});
    PutArray(file, "optimizer/vars/1", {}, {0.5});
    PutArray(file, "optimizer/vars/2", {2, 2}, {1, 1, 1, 1});
    H5Fclose(file);
    int error = 0;
    zip_t* zip = zip_open(Path("source.keras").c_str(), ZIP_CREATE | ZIP_TRUNCATE, &error);
    const auto add = [&](const char* name, zip_source_t* source) { zip_file_add(zip, name, source, 0); };
    add("metadata.json", zip_source_buffer(zip, R"({"keras_version": "3.15.1"})", 27, 0));
    add("config.json", zip_source_buffer(zip, kConfigText, sizeof(kConfigText) - 1, 0));
    add("model.weights.h5", zip_source_file(zip, Path("weights").c_str(), 0, 0));
    add("assets/extra.txt", zip_source_buffer(zip, Extra().data(), Extra().size(), 0));
    ASSERT_EQ(zip_close(zip), 0);
    std::filesystem::remove(Path("weights"));
  }

  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  const TestFolder folder_;
};

struct Trained {
  std::vector<float> kernel = {10, 20, 30, 40}, slot = {7, 8, 9, 10};
  int64_t iterations = 12;
  float rate = 0.25;

  TrainedWeights Weights() const {
    TrainedWeights weights;
    weights.arrays["layers/dense/vars/0"] = {{2, 2}, absl::MakeConstSpan(kernel)};
    weights.optimizer.push_back({{}, absl::MakeConstSpan(&iterations, 1)});
    weights.optimizer.push_back({{}, absl::MakeConstSpan(&rate, 1)});
    weights.optimizer.push_back({{2, 2}, absl::MakeConstSpan(slot)});
    weights.optimizer.push_back({{2, 2}, absl::MakeConstSpan(kernel)});
    return weights;
  }
};

TEST_F(ArchiveWriterTest, RewritesArraysAndMakesMissingOnes) {
  const Trained trained;
  ASSERT_TRUE(WriteTrainedArchive(Path("source.keras"), Path("trained.keras"), trained.Weights()).ok());
  const auto archive = *KerasArchive::Open(Path("trained.keras"));
  EXPECT_EQ(*archive->Read<float>("layers/dense/vars/0", {2, 2}), trained.kernel);
  EXPECT_THAT(*archive->Read<float>("layers/dense/vars/1", {2}), ElementsAre(5, 6)) << "an array that was not named stays";
  EXPECT_EQ((*archive->Read<int64_t>("optimizer/vars/0", {}))[0], 12);
  EXPECT_EQ(archive->arrays().at("optimizer/vars/0").kind, KerasArchive::Kind::kInteger) << "it was a float before";
  EXPECT_EQ(*archive->Read<float>("optimizer/vars/2", {2, 2}), trained.slot);
  EXPECT_EQ(*archive->Read<float>("optimizer/vars/3", {2, 2}), trained.kernel) << "missing before";
  EXPECT_EQ(archive->config(), Json::parse(kConfigText));
  EXPECT_THAT(Files(), ElementsAre("source.keras", "trained.keras"));
}

TEST_F(ArchiveWriterTest, RemovesOptimizerVariablesBeyondTheLast) {
  const Trained trained;
  TrainedWeights weights = trained.Weights();
  weights.optimizer.resize(1);
  ASSERT_TRUE(WriteTrainedArchive(Path("source.keras"), Path("trained.keras"), weights).ok());
  const auto archive = *KerasArchive::Open(Path("trained.keras"));
  EXPECT_TRUE(archive->Has("optimizer/vars/0"));
  EXPECT_FALSE(archive->Has("optimizer/vars/1") || archive->Has("optimizer/vars/2"));
}

TEST_F(ArchiveWriterTest, SourceAndTargetMayBeTheSame) {
  const Trained trained;
  ASSERT_TRUE(WriteTrainedArchive(Path("source.keras"), Path("source.keras"), trained.Weights()).ok());
  EXPECT_EQ(*(*KerasArchive::Open(Path("source.keras")))->Read<float>("layers/dense/vars/0", {2, 2}), trained.kernel);
  EXPECT_THAT(Files(), ElementsAre("source.keras"));
}

TEST_F(ArchiveWriterTest, ArraysAreStoredWithTheTypeTheyComeIn) {
  const std::vector<double> kernel = {0.1, 0.2, 0.3, 0.4};
  TrainedWeights weights;
  weights.arrays["layers/dense/vars/0"] = {{2, 2}, absl::MakeConstSpan(kernel)};
  ASSERT_TRUE(WriteTrainedArchive(Path("source.keras"), Path("trained.keras"), weights).ok());
  EXPECT_EQ(*(*KerasArchive::Open(Path("trained.keras")))->Read<double>("layers/dense/vars/0", {2, 2}), kernel);
}

TEST_F(ArchiveWriterTest, CompileConfigIsReplacedAndOtherEntriesStay) {
  const Trained trained;
  TrainedWeights weights = trained.Weights();
  weights.compile_config = {{"optimizer", "sgd"}};
  ASSERT_TRUE(WriteTrainedArchive(Path("source.keras"), Path("trained.keras"), weights).ok());
  const auto archive = *KerasArchive::Open(Path("trained.keras"));
  EXPECT_EQ(archive->compile_config()["optimizer"], "sgd");
  EXPECT_EQ(archive->config()["config"]["a"], Json({1.5, 2}));
  EXPECT_EQ(archive->metadata()["keras_version"], "3.15.1");
  int error = 0;
  zip_t* zip = zip_open(Path("trained.keras").c_str(), ZIP_RDONLY, &error);
  std::vector<std::string> names;
  for (zip_int64_t i = 0; i < zip_get_num_entries(zip, 0); ++i) names.emplace_back(zip_get_name(zip, static_cast<zip_uint64_t>(i), 0));
  EXPECT_THAT(names, ElementsAre("metadata.json", "config.json", "model.weights.h5", "assets/extra.txt"));
  zip_file_t* file = zip_fopen(zip, "assets/extra.txt", 0);
  std::string extra(Extra().size() + 1, '\0');
  EXPECT_EQ(zip_fread(file, extra.data(), extra.size()), static_cast<zip_int64_t>(Extra().size()));
  EXPECT_EQ(extra.substr(0, Extra().size()), Extra());
  zip_fclose(file);
  zip_discard(zip);
}

TEST_F(ArchiveWriterTest, TheSameStateMakesTheSameFile) {
  const Trained trained;
  ASSERT_TRUE(WriteTrainedArchive(Path("source.keras"), Path("a.keras"), trained.Weights()).ok());
  ASSERT_TRUE(WriteTrainedArchive(Path("source.keras"), Path("b.keras"), trained.Weights()).ok());
  EXPECT_TRUE(*ReadFile(Path("a.keras")) == *ReadFile(Path("b.keras")));
}

TEST_F(ArchiveWriterTest, BadSourcesAndTargetsAreNamedAndLeaveNothing) {
  const Trained trained;
  const TrainedWeights weights = trained.Weights();
  absl::Status status = WriteTrainedArchive(Path("missing.keras"), Path("t.keras"), weights);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("missing.keras"));
  EXPECT_EQ(WriteTrainedArchive(Path("source.keras"), Path("no/folder/t.keras"), weights).code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(Path("broken.keras"), "PK not a zip").ok());
  EXPECT_EQ(WriteTrainedArchive(Path("broken.keras"), Path("t.keras"), weights).code(), absl::StatusCode::kDataLoss);
  TrainedWeights wrong;
  wrong.arrays["layers/dense/vars/0"] = {{3, 2}, absl::MakeConstSpan(trained.kernel)};
  EXPECT_EQ(WriteTrainedArchive(Path("source.keras"), Path("t.keras"), wrong).code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Files(), ElementsAre("broken.keras", "source.keras"));
}

TEST_F(ArchiveWriterTest, TruncatedWeightsAreRefused) {
  // Cut within the weights: the zip's directory is gone, or, cut in HDF5's own bytes, the checksum is wrong.
  const std::string whole = *ReadFile(Path("source.keras"));
  const Trained trained;
  for (const size_t size : {whole.size() / 2, whole.size() - 10, size_t{5}, size_t{0}}) {
    ASSERT_TRUE(WriteFileAtomically(Path("cut.keras"), std::string_view(whole).substr(0, size)).ok());
    EXPECT_FALSE(WriteTrainedArchive(Path("cut.keras"), Path("t.keras"), trained.Weights()).ok()) << size;
    EXPECT_FALSE(std::filesystem::exists(Path("t.keras")));
  }
}

// In a child process: what it returns, or 99 where its set-up is not permitted here.
template <typename Work>
int InChild(Work work) {
  const pid_t child = fork();
  if (child == 0) _exit(work());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

// An optimizer's slot larger than what may be written.
struct Big {
  std::vector<float> slot = std::vector<float>(1 << 20, 1.0f);
  TrainedWeights Weights() const {
    TrainedWeights weights;
    weights.optimizer.push_back({{1 << 20}, absl::MakeConstSpan(slot)});
    return weights;
  }
};

TEST_F(ArchiveWriterTest, AFullDiskIsAnErrorThatLeavesTheOldFile) {
  const int result = InChild([this] {
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return 99;
    const std::string small = Path("small");
    std::filesystem::create_directories(small);
    if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 || mount("tmpfs", small.c_str(), "tmpfs", 0, "size=1m") != 0)
      return 99;
    const std::string target = small + "/trained.keras";
    if (!WriteFileAtomically(target, "old").ok()) return 2;
    const Big big;
    const absl::Status status = WriteTrainedArchive(Path("source.keras"), target, big.Weights());
    if (status.code() != absl::StatusCode::kUnknown) return (void)fprintf(stderr, "%s\n", status.ToString().c_str()), 3;
    if (*ReadFile(target) != "old") return 4;
    return std::distance(std::filesystem::directory_iterator(small), {}) == 1 ? 0 : 5;
  });
  if (result == 99) GTEST_SKIP() << "a small file system cannot be mounted here";
  EXPECT_EQ(result, 0);
}

TEST_F(ArchiveWriterTest, AFileSizeLimitAnywhereOnTheWayLeavesTheOldFile) {
  const Big big;
  ASSERT_TRUE(WriteTrainedArchive(Path("source.keras"), Path("t.keras"), big.Weights()).ok());
  const rlim_t whole = std::filesystem::file_size(Path("t.keras"));
  for (const rlim_t limit : {rlim_t{1000}, rlim_t{100'000}, whole - 3000, whole - 1}) {
    ASSERT_TRUE(WriteFileAtomically(Path("t.keras"), "old").ok());
    EXPECT_EQ(InChild([&] {
                signal(SIGXFSZ, SIG_IGN);
                const rlimit bound = {limit, limit};
                setrlimit(RLIMIT_FSIZE, &bound);
                return WriteTrainedArchive(Path("source.keras"), Path("t.keras"), big.Weights()).ok() ? 1 : 0;
              }),
              0)
        << limit;
    EXPECT_TRUE(*ReadFile(Path("t.keras")) == "old") << limit;
    EXPECT_THAT(Files(), ElementsAre("source.keras", "t.keras")) << limit;
  }
}

}  // namespace
}  // namespace lockstep
