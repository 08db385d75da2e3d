#include "model/keras_archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/test_archive.h"

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TestArchive Good() {
  return TestArchive::Sequential({nullptr, 2}, {{"Dense", {{"units", 3}}}})
      .Array("layers/dense/vars/0", {2, 3}, {1, 2, 3, 4, 5, 6})
      .Array("layers/dense/vars/1", {3}, {0.5, 0, -0.5});
}

absl::Status OpenStatus(std::string bytes) { return KerasArchive::FromBytes(std::move(bytes), "net.keras").status(); }

TEST(KerasArchive, ReadsConfigurationAndArrays) {
  const auto archive = KerasArchive::FromBytes(Good().Bytes(), "net.keras");
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_EQ((*archive)->config()["class_name"], "Sequential");
  EXPECT_EQ((*archive)->metadata()["keras_version"], "3.15.1");
  EXPECT_TRUE((*archive)->compile_config().is_null());
  ASSERT_TRUE((*archive)->Has("layers/dense/vars/0"));
  EXPECT_THAT((*archive)->arrays().at("layers/dense/vars/0").shape, ElementsAre(2, 3));
  const auto values = (*archive)->Read<float>("layers/dense/vars/0", {2, 3});
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_THAT(*values, ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST(KerasArchive, TwoThatAreOpenAtOnceAreTwo) {
  const auto first = KerasArchive::FromBytes(Good().Bytes(), "net.keras");
  const auto second = KerasArchive::FromBytes(Good().Array("layers/dense/vars/1", {3}, {7, 8, 9}).Bytes(), "net.keras");
  ASSERT_TRUE(first.ok() && second.ok()) << first.status() << second.status();
  EXPECT_THAT(*(*first)->Read<double>("layers/dense/vars/1", {3}), ElementsAre(0.5, 0, -0.5));
  EXPECT_THAT(*(*second)->Read<double>("layers/dense/vars/1", {3}), ElementsAre(7, 8, 9));
}

TEST(KerasArchive, NamesTheArrayThatIsMissingOrOfAnotherShape) {
  const auto archive = KerasArchive::FromBytes(Good().Bytes(), "net.keras");
  ASSERT_TRUE(archive.ok()) << archive.status();
  const absl::Status missing = (*archive)->Read<float>("layers/dense/vars/7", {3}).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("layers/dense/vars/7"));
  const absl::Status shape = (*archive)->Read<float>("layers/dense/vars/0", {3, 2}).status();
  EXPECT_EQ(shape.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shape.message()), HasSubstr("(2, 3), not (3, 2)"));
}

TEST(KerasArchive, NoSuchFile) { EXPECT_EQ(KerasArchive::Open("/no/such/net.keras").status().code(), absl::StatusCode::kNotFound); }

TEST(KerasArchive, WhatIsNoArchive) {
  for (const std::string& bytes : {std::string(), std::string("hello"), std::string(5000, 'x')}) {
    const absl::Status status = OpenStatus(bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("net.keras"));
  }
}

TEST(KerasArchive, TruncatedAnywhereIsAnError) {
  const std::string bytes = Good().Bytes();
  for (size_t length = 0; length < bytes.size(); length += 37) {
    const absl::Status status = OpenStatus(bytes.substr(0, length));
    EXPECT_FALSE(status.ok()) << "the first " << length << " of " << bytes.size() << " bytes";
  }
}

TEST(KerasArchive, AChangedByteInAnEntryIsFound) {
  const std::string good = Good().Bytes();
  for (const std::string_view needle : {std::string_view("Sequential"), std::string_view("\x89HDF")}) {
    std::string bytes = good;
    const size_t at = bytes.find(needle);
    ASSERT_NE(at, std::string::npos);
    bytes[at + 1] ^= 1;
    const absl::Status status = OpenStatus(bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("entry"));
  }
}

TEST(KerasArchive, NamesTheMissingEntry) {
  for (const char* name : {"config.json", "metadata.json", "model.weights.h5"}) {
    TestArchive archive = Good();
    archive.left_out = {name};
    const absl::Status status = OpenStatus(archive.Bytes());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

TEST(KerasArchive, NamesTheEntryThatIsBroken) {
  for (const auto& [name, text] : std::map<std::string, std::string>{
           {"config.json", "{\"class_name\": "}, {"metadata.json", "[]"}, {"model.weights.h5", "not HDF5 at all"}}) {
    TestArchive archive = Good();
    archive.entries[name] = text;
    const absl::Status status = OpenStatus(archive.Bytes());
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

TEST(KerasArchive, RefusesConfigurationsNestedWithoutEnd) {
  TestArchive archive = Good();
  archive.entries["config.json"] = "{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  EXPECT_THAT(std::string(OpenStatus(archive.Bytes()).message()), HasSubstr("nested deeper"));
}

TEST(KerasArchive, RefusesEntriesThatUnpackToMuchMore) {
  TestArchive archive = Good();
  archive.entries["config.json"] = std::string(uint64_t{65} << 20, ' ');
  const absl::Status status = OpenStatus(archive.Bytes());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json"));
}

}  // namespace
}  // namespace lockstep
