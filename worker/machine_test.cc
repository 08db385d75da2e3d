#include "worker/machine.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace lockstep
