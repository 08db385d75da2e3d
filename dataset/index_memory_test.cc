// Listing a huge folder holds no more in memory than it may. This program counts everything that operator new hands out.

#include <malloc.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "absl/strings/str_format.h"
#include "base/test_folder.h"
#include "dataset/index.h"
#include "gtest/gtest.h"

namespace {

std::atomic<int64_t> held{0}, peak{0};

void* Counted(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  const int64_t now = held += static_cast<int64_t>(malloc_usable_size(memory));
  for (int64_t before = peak; before < now && !peak.compare_exchange_weak(before, now);) {
  }
  return memory;
}

void Release(void* memory) {
  held -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

void* operator new(size_t bytes) { return Counted(std::malloc(bytes)); }
void operator delete(void* memory) noexcept { Release(memory); }
void operator delete(void* memory, size_t) noexcept { Release(memory); }

namespace lockstep::dataset {
namespace {

// Names as they come from readdir: in no order. Every number below `count` once, as the prime does not divide it.
FileSource Synthetic(uint64_t count) {
  return [count](const FileSink& sink) -> absl::Status {
    char path[64];
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t number = i * 7'368'787 % count;
      const int length = std::snprintf(path, sizeof(path), "c%03u/%07llu.jpg", static_cast<unsigned>(number % 1000),
                                       static_cast<unsigned long long>(number));
      const absl::Status status =
          sink({{path, static_cast<size_t>(length)}, static_cast<int64_t>(number % 1000), static_cast<int64_t>(number)});
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  };
}

void ListAndCheck(int64_t count, int64_t memory) {
  const TestFolder folder;
  const std::string path = folder / "index";
  const int64_t before = held;
  peak = before;
  const absl::StatusOr<int64_t> written = WriteIndex(Synthetic(static_cast<uint64_t>(count)), {"class"}, path, memory);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(*written, count);
  // Beside sorting: two sections being written, and small things.
  EXPECT_LE(peak - before, memory + (256 << 10)) << "for " << count << " names";
  EXPECT_GT(peak - before, memory / 2) << "the count does not see the sorter";
  peak = held.load();
  const auto index = Index::Open(path);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_LE(peak - before, 1 << 20);
  ASSERT_EQ((*index)->size(), count);
  // Every label has as many samples, and their names count up: what the i-th one is, is known.
  const int64_t of_a_label = count / 1000;
  for (int64_t i = 0; i<count; i += count> 1'000'000 ? 7 : 1) {
    const int64_t number = i % of_a_label * 1000 + i / of_a_label;
    const auto sample = (*index)->Sample(i);
    ASSERT_TRUE(sample.ok()) << sample.status();
    ASSERT_EQ(sample->path, absl::StrFormat("c%03d/%07d.jpg", number % 1000, number));
    ASSERT_EQ(sample->label, number % 1000);
    ASSERT_EQ(sample->bytes, number);
  }
}

TEST(IndexMemory, AMillionNamesInOneMebibyte) { ListAndCheck(1'000'000, kLeastSortBytes); }

// Its files take 0.7 GB in the temporary folder while it runs.
TEST(IndexMemory, TenMillionNamesInSixteenMebibytes) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "takes minutes with sanitizers; a million is checked";
#endif
  ListAndCheck(10'000'000, 16 << 20);
}

}  // namespace
}  // namespace lockstep::dataset
