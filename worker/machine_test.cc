#include "worker/machine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "base/test_folder.h"

namespace lockstep {
namespace {

TEST(Machine, TheAddressTowardsALoopbackIsALoopback) {
  EXPECT_EQ(AddressTowards("127.0.0.1:7070").value(), "127.0.0.1");
  EXPECT_FALSE(AddressTowards("127.0.0.1").ok());
  EXPECT_FALSE(AddressTowards("127.0.0.1:").ok());
  const absl::StatusOr<std::string> nowhere = AddressTowards("no-such-host.invalid:1");
  EXPECT_EQ(nowhere.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(nowhere.status().message().find("no-such-host.invalid"), std::string::npos);
}

TEST(Machine, TheKernelTellsWhatThereIs) {
  EXPECT_GE(Cores(), 1U);
  EXPECT_GT(MemoryBytes(), ResidentBytes());
  EXPECT_GT(ResidentBytes(), 1U << 20);
  EXPECT_FALSE(HostName().empty());
}

TEST(Machine, TheLeastLimitOfItsControlGroupsHolds) {
  const TestFolder root;
  const auto limit = [&root](const std::string& group, const std::string& file, const std::string& text) {
    std::filesystem::create_directories(root / group);
    std::ofstream(root / absl::StrCat(group, "/", file)) << text << "\n";
  };
  EXPECT_EQ(GroupMemoryLimit("0::/a/b\n", root.path()), UINT64_MAX) << "no groups at all";
  limit("a/b", "memory.max", "max");
  limit("a", "memory.max", "3000");
  EXPECT_EQ(GroupMemoryLimit("0::/a/b\n", root.path()), 3000U) << "of the one above";
  limit("a/b", "memory.max", "2000");
  EXPECT_EQ(GroupMemoryLimit("0::/a/b\n", root.path()), 2000U);
  EXPECT_EQ(GroupMemoryLimit("0::/c\n", root.path()), UINT64_MAX) << "another group's";
  limit("memory/x", "memory.limit_in_bytes", "1000");
  EXPECT_EQ(GroupMemoryLimit("5:cpu,memory:/x/y\n0::/a\n", root.path()), 1000U) << "version 1 beside version 2";
  EXPECT_EQ(GroupMemoryLimit("5:cpuset:/x\nnonsense\n", root.path()), UINT64_MAX);
  limit(".", "memory.max", "500");
  EXPECT_EQ(GroupMemoryLimit("0::/\n", root.path()), 500U) << "a container's own";
}

}  // namespace
}  // namespace lockstep
