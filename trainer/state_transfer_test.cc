#include "trainer/state_transfer.h"

#include <gtest/gtest.h>

#include <barrier>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "allreduce/rank_memory.h"
#include "base/file.h"
#include "base/test_folder.h"

namespace lockstep {
namespace {

// Ranks as threads that exchange what they have.
class Ranks {
 public:
  explicit Ranks(int count) : said_(static_cast<size_t>(count)), met_(count) {}

  ExchangeBytes Of(int rank) {
    return [this, rank](std::string_view mine) -> absl::StatusOr<std::vector<std::string>> {
      said_[static_cast<size_t>(rank)] = std::string(mine);
      met_.arrive_and_wait();
      std::vector<std::string> all = said_;
      met_.arrive_and_wait();
      if (rank == 0) ++exchanges_;
      return all;
    };
  }
  int exchanges() const { return exchanges_; }

 private:
  std::vector<std::string> said_;
  std::barrier<> met_;
  int exchanges_ = 0;
};

TEST(StateTransfer, AFileOfAnySizeArrivesFromAnyNumberOfSources) {
  constexpr size_t kChunk = allreduce::kMaxVerdictBytes - 1;
  for (const size_t bytes : {size_t{0}, size_t{1}, kChunk - 1, kChunk, kChunk + 1, 2 * kChunk, 3 * kChunk, 7 * kChunk + 5}) {
    std::string contents(bytes, '\0');
    for (size_t i = 0; i < bytes; ++i) contents[i] = static_cast<char>(i * 31 + i / 251);
    for (const std::vector<int>& sources : {std::vector<int>{0}, {1}, {0, 1}, {1, 2, 3}, {0, 2, 3, 4}}) {
      TestFolder folder;
      constexpr int kRanks = 5;
      Ranks ranks(kRanks);
      std::vector<std::thread> threads;
      std::vector<absl::Status> ended(kRanks);
      const auto path = [&](int rank) { return absl::StrCat(folder.path(), "/", rank); };
      for (int rank = 0; rank < kRanks; ++rank) {
        const bool sends = std::find(sources.begin(), sources.end(), rank) != sources.end();
        if (sends) {
          ASSERT_TRUE(WriteFileAtomically(path(rank), contents).ok());
        }
        threads.emplace_back(
            [&, rank, sends] { ended[static_cast<size_t>(rank)] = ShareFile(ranks.Of(rank), sources, rank, !sends, path(rank)); });
      }
      for (std::thread& thread : threads) thread.join();
      for (int rank = 0; rank < kRanks; ++rank) {
        ASSERT_TRUE(ended[static_cast<size_t>(rank)].ok()) << ended[static_cast<size_t>(rank)];
        EXPECT_EQ(*ReadFile(path(rank)), contents) << bytes << " bytes, rank " << rank;
      }
      const size_t chunks = std::max<size_t>((bytes + kChunk - 1) / kChunk, 1);
      EXPECT_EQ(static_cast<size_t>(ranks.exchanges()), (chunks + sources.size() - 1) / sources.size()) << "in parallel";
    }
  }
}

}  // namespace
}  // namespace lockstep
