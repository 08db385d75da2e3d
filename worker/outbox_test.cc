#include "worker/outbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace lockstep {
namespace {

using testing::HasSubstr;

TrainerKey Key(const std::string& job) { return {job, 1, v1::TRAIN, 0}; }

v1::TrainerReport Report(const std::string& job, int64_t pid, bool ended) {
  v1::TrainerReport report;
  report.set_job_id(job);
  report.set_pid(pid);
  report.set_ended(ended);
  return report;
}

class OutboxTest : public testing::Test {
 protected:
  v1::WorkerReport Fill(uint64_t sequence) {
    v1::WorkerReport report;
    outbox_.Fill(sequence, &report);
    return report;
  }
  Bell bell_;
  Outbox outbox_{&bell_};
};

TEST_F(OutboxTest, AnEndIsToldUntilItIsAcknowledged) {
  outbox_.AddEnded(Key("a"), Report("a", 1, true));
  EXPECT_TRUE(bell_.Await(absl::ZeroDuration()));
  EXPECT_EQ(Fill(7).trainers_size(), 1);
  EXPECT_EQ(Fill(8).trainers_size(), 1) << "8 goes over a new stream: 7 was not answered";
  outbox_.Acknowledge(7);
  EXPECT_FALSE(outbox_.IsAcknowledged(Key("a"))) << "the newest report that held it is 8";
  outbox_.Acknowledge(8);
  EXPECT_TRUE(outbox_.IsAcknowledged(Key("a")));
  EXPECT_EQ(Fill(9).trainers_size(), 0);
}

TEST_F(OutboxTest, AnEndAfterTheReportIsNotAcknowledgedWithIt) {
  Fill(1);
  outbox_.AddEnded(Key("a"), Report("a", 1, true));
  outbox_.Acknowledge(1);
  EXPECT_FALSE(outbox_.IsAcknowledged(Key("a")));
  EXPECT_EQ(Fill(2).trainers_size(), 1);
}

TEST_F(OutboxTest, OnlyChangesOfWhatRunsAreUrgent) {
  outbox_.SetRunning({Report("a", 1, false)});
  EXPECT_TRUE(outbox_.urgent());
  Fill(1);
  EXPECT_FALSE(outbox_.urgent());
  v1::TrainerReport further = Report("a", 1, false);
  further.mutable_status()->set_step(2);
  outbox_.SetRunning({further});
  EXPECT_FALSE(outbox_.urgent()) << "a step is no news";
  EXPECT_EQ(Fill(2).trainers(0).status().step(), 2U);
  outbox_.SetRunning({});
  EXPECT_TRUE(outbox_.urgent());
}

TEST_F(OutboxTest, LinesGoOnceAndInOrder) {
  outbox_.AddLog(Key("a"), "1\n");
  outbox_.AddLog(Key("a"), "2\n");
  outbox_.AddLog(Key("b"), "3\n");
  const v1::WorkerReport first = Fill(1);
  ASSERT_EQ(first.logs_size(), 2);
  EXPECT_EQ(first.logs(0).text(), "1\n2\n");
  outbox_.AddLog(Key("b"), "4\n");
  outbox_.Acknowledge(1);
  const v1::WorkerReport second = Fill(2);
  ASSERT_EQ(second.logs_size(), 1);
  EXPECT_EQ(second.logs(0).text(), "4\n");
}

TEST_F(OutboxTest, ManyLinesTakeSeveralReportsAndAreUrgentUntilTheLast) {
  const std::string piece(60 << 10, 'x');
  size_t sent = 0;
  for (int i = 0; i < 20; ++i) outbox_.AddLog(Key("a"), piece + "\n");
  uint64_t sequence = 0;
  do {
    const v1::WorkerReport report = Fill(++sequence);
    EXPECT_LT(report.ByteSizeLong(), 2U << 20);
    for (const v1::LogLines& lines : report.logs()) sent += lines.text().size();
    outbox_.Acknowledge(sequence);
  } while (outbox_.urgent());
  EXPECT_EQ(sent, 20 * (piece.size() + 1));
  EXPECT_GT(sequence, 1U);
}

TEST_F(OutboxTest, BeyondItsBoundTheOldestLinesGoAndAreCounted) {
  const std::string piece(100 << 10, 'x');
  for (int i = 0; i < 100; ++i) outbox_.AddLog(Key("a"), piece + "\n");
  size_t kept = 0;
  std::string first;
  for (uint64_t sequence = 1; sequence < 100; ++sequence) {
    const v1::WorkerReport report = Fill(sequence);
    for (const v1::LogLines& lines : report.logs()) {
      if (first.empty()) first = lines.text().substr(0, 100);
      kept += static_cast<size_t>(std::count(lines.text().begin(), lines.text().end(), '\n'));
    }
    outbox_.Acknowledge(sequence);
  }
  EXPECT_LE(kept * (piece.size() + 1), kMostLogBytes + (1 << 20));
  EXPECT_THAT(first, HasSubstr(std::to_string(100 - (kept - 1)) + " lines lost"));
}

}  // namespace
}  // namespace lockstep
