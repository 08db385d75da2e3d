#include "base/resident_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace lockstep {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kPages = 1000;

char* Map(int flags) {
  void* mapping = mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(mapping, MAP_FAILED);
  madvise(mapping, kPages * kPage, MADV_NOHUGEPAGE);
  return static_cast<char*>(mapping);
}

TEST(ResidentMemory, CountsThePagesThatWereTouched) {
  char* const mapping = Map(MAP_PRIVATE);
  EXPECT_EQ(ResidentBytesOf(mapping, kPages * kPage), 0);
  for (const size_t page : {0ul, 1ul, 500ul, kPages - 1}) mapping[page * kPage] = 1;
  EXPECT_EQ(ResidentBytesOf(mapping, kPages * kPage), 4 * static_cast<int64_t>(kPage));
  EXPECT_EQ(ResidentBytesOf(mapping + kPage, kPage), static_cast<int64_t>(kPage));
  EXPECT_EQ(ResidentBytesOf(mapping + 2 * kPage, 498 * kPage), 0);
  EXPECT_EQ(ResidentBytesOf(mapping + kPage + 17, 1), static_cast<int64_t>(kPage)) << "whole pages";
  madvise(mapping, kPages * kPage, MADV_DONTNEED);
  EXPECT_EQ(ResidentBytesOf(mapping, kPages * kPage), 0);
  munmap(mapping, kPages * kPage);
}

TEST(ResidentMemory, PagesThatOnlyAnotherProcessTouchedDoNotCount) {
  char* const mapping = Map(MAP_SHARED);
  const pid_t other = fork();
  if (other == 0) {
    for (size_t page = 0; page < kPages; ++page) mapping[page * kPage] = 1;
    _exit(0);
  }
  ASSERT_EQ(waitpid(other, nullptr, 0), other);
  EXPECT_EQ(ResidentBytesOf(mapping, kPages * kPage), 0);
  EXPECT_EQ(mapping[3 * kPage], 1);
  EXPECT_GE(ResidentBytesOf(mapping, kPages * kPage), static_cast<int64_t>(kPage));
  munmap(mapping, kPages * kPage);
}

}  // namespace
}  // namespace lockstep
