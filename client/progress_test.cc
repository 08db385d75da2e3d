#include "client/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

namespace lockstep {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kMiB = 1 << 20;

// Tells a job's story event by event.
class Story {
 public:
  explicit Story(uint32_t epochs, v1::Job::Kind kind = v1::Job::FIT) : view_(JobOf(epochs, kind)) {}

  v1::Event State(v1::JobState state, const std::string& reason, uint64_t total_steps = 0, uint32_t replicas = 0) {
    v1::Event event = Next(0);
    event.mutable_state()->set_state(state);
    event.mutable_state()->set_reason(reason);
    event.mutable_state()->set_total_steps(total_steps);
    event.mutable_state()->set_replicas(replicas);
    return Done(event);
  }

  v1::Event Step(uint32_t epoch, double loss, double accuracy) {
    v1::Event event = Next(500);
    v1::StepRecord& step = *event.mutable_step();
    step.set_step(++step_);
    step.set_epoch(epoch);
    step.set_loss(loss);
    step.set_generation(1);
    step.set_samples(10);
    step.set_images_per_second(20);
    v1::NamedValue& metric = *step.add_metrics();
    metric.set_name("accuracy");
    metric.set_value(accuracy);
    step.mutable_memory()->set_peak_bytes(512 * kMiB);
    step.mutable_memory()->set_limit_bytes(8192 * kMiB);
    (*step.mutable_memory()->mutable_bytes_by_category())["parameters"] = 100 * kMiB;
    return Done(event);
  }

  v1::Event Epoch(uint32_t epoch, double loss, double val_loss) {
    v1::Event event = Next(0);
    event.mutable_epoch()->set_epoch(epoch);
    event.mutable_epoch()->set_step(step_);
    event.mutable_epoch()->set_loss(loss);
    event.mutable_epoch()->set_wall_seconds(75.4);
    v1::NamedValue& value = *event.mutable_epoch()->add_validation();
    value.set_name("loss");
    value.set_value(val_loss);
    return Done(event);
  }

  v1::Event Pass(uint64_t batch, uint64_t batches, std::optional<double> loss) {
    v1::Event event = Next(1000);
    v1::PassRecord& pass = *event.mutable_pass();
    pass.set_batch(batch);
    pass.set_batches(batches);
    if (loss) pass.set_loss(*loss);
    pass.set_images_per_second(50);
    pass.set_wall_seconds(2);
    pass.mutable_memory()->set_peak_bytes(64 * kMiB);
    return Done(event);
  }

  v1::Event Note(const std::string& text) {
    v1::Event event = Next(0);
    event.set_note(text);
    return Done(event);
  }

  const RunView& view() const { return view_; }

 private:
  static v1::Job JobOf(uint32_t epochs, v1::Job::Kind kind) {
    v1::Job job;
    job.set_kind(kind);
    job.set_epochs(epochs);
    return job;
  }
  v1::Event Next(int64_t later_ms) {
    v1::Event event;
    event.set_sequence(++sequence_);
    event.set_unix_ms(now_ms_ += later_ms);
    return event;
  }
  v1::Event Done(const v1::Event& event) {
    view_.Apply(event);
    return event;
  }

  RunView view_;
  uint64_t sequence_ = 0;
  uint64_t step_ = 0;
  int64_t now_ms_ = 1'000'000;
};

TEST(RunView, MeansOverTheEpochAndTimeLeft) {
  Story story(2);
  story.State(v1::RUNNING, "running on 2 replicas", 8, 2);
  EXPECT_EQ(story.view().steps_per_epoch, 4u);
  EXPECT_EQ(story.view().TimeLeft(), std::nullopt);
  story.Step(1, 3, 0.2);
  EXPECT_EQ(story.view().TimeLeft(), std::nullopt) << "one step tells no pace";
  story.Step(1, 1, 0.4);
  EXPECT_DOUBLE_EQ(story.view().epoch.loss(), 2);
  EXPECT_EQ(*story.view().TimeLeft(), absl::Seconds(3));
  story.Step(2, 7, 0.9);
  EXPECT_DOUBLE_EQ(story.view().epoch.loss(), 7) << "a new epoch begins anew";
  EXPECT_EQ(story.view().memory.peak_bytes(), 512 * kMiB);
  EXPECT_EQ(story.view().replicas, 2u);
}

TEST(RenderLive, EverythingOnOneLine) {
  Story story(2);
  story.State(v1::RUNNING, "", 8, 1);
  story.Step(1, 3, 0.2);
  story.Step(1, 1, 0.4);
  Style style;
  style.columns = 130;
  EXPECT_EQ(RenderLive(story.view(), style),
            "epoch 1/2  ===============...............  2/4  loss 2.0000  accuracy 0.3000  20 images/s  0:03 left  memory 512 MiB of "
            "8.00 GiB");
}

TEST(RenderLive, NeverWiderThanTheTerminal) {
  Story story(2);
  story.State(v1::QUEUED, "waiting to plan: no wörker");
  for (size_t columns = 1; columns < 40; ++columns) {
    Style style;
    style.columns = columns;
    EXPECT_LE(RenderLive(story.view(), style).size(), columns + 1) << "one character has two bytes";
  }
  story.State(v1::RUNNING, "", 8, 1);
  story.Step(1, 3, 0.2);
  for (size_t columns = 1; columns < 160; ++columns) {
    Style style;
    style.columns = columns;
    EXPECT_LE(RenderLive(story.view(), style).size(), columns);
  }
}

TEST(RenderLive, BeforeTheFirstStepTheState) {
  Story story(1);
  EXPECT_EQ(RenderLive(story.view(), Style()), "connecting");
  story.State(v1::QUEUED, "waiting for a worker with 2 free slots");
  EXPECT_EQ(RenderLive(story.view(), Style()), "queued: waiting for a worker with 2 free slots");
}

TEST(RenderLive, StepsWithoutEpochs) {
  Story story(0);
  story.State(v1::RUNNING, "", 100, 1);
  story.Step(1, 1, 1);
  EXPECT_THAT(RenderStep(story.view()), HasSubstr("epoch 1  step 1/100  loss 1.0000"));
  story.Epoch(1, 1, 1);
  story.Step(2, 1, 1);
  EXPECT_THAT(RenderStep(story.view()), HasSubstr("epoch 2  step 1/1  ")) << "an epoch's length is known once one has ended";
}

TEST(RenderLive, APassThatTrainsNothing) {
  Story evaluation(0, v1::Job::EVALUATE);
  evaluation.State(v1::RUNNING, "running on 1 replica", 40, 1);
  EXPECT_EQ(RenderLive(evaluation.view(), Style()), "running on 1 replica");
  evaluation.Pass(10, 40, 0.25);
  Style style;
  style.columns = 100;
  EXPECT_EQ(RenderLive(evaluation.view(), style),
            "evaluating  =======....................  10/40  loss 0.2500  50 images/s  0:06 left  memory 64.0 MiB");
  EXPECT_EQ(RenderStep(evaluation.view()), "evaluating  batch 10/40  loss 0.2500  50 images/s  0:06 left  memory 64.0 MiB");
  Story prediction(0, v1::Job::PREDICT);
  prediction.State(v1::RUNNING, "", 40, 1);
  prediction.Pass(40, 40, std::nullopt);
  EXPECT_EQ(RenderStep(prediction.view()), "predicting  batch 40/40  50 images/s  0:00 left  memory 64.0 MiB");
}

TEST(Progress, APassIsShownAsStepsAre) {
  for (const bool terminal : {false, true}) {
    Story story(0, v1::Job::EVALUATE);
    ManualClock clock;
    std::ostringstream out;
    Style style;
    style.terminal = terminal;
    Progress progress(out, style, clock);
    for (uint64_t batch = 1; batch <= 11; ++batch) {
      progress.Show(story.Pass(batch, 11, 1.0), story.view());
      clock.Advance(absl::Seconds(1));
    }
    progress.End();
    const std::string text = out.str();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), terminal ? 0 : 3) << text;
    EXPECT_THAT(text, HasSubstr(terminal ? "  11/11  loss" : "batch 11/11  loss"));
  }
}

TEST(RenderEpoch, WithValidation) {
  Story story(3);
  const v1::Event event = story.Epoch(2, 0.5, 0.00001);
  EXPECT_EQ(RenderEpoch(event.epoch(), story.view(), Style()), "epoch 2/3  loss 0.5000  val_loss 1.000e-05  75 s");
}

TEST(Progress, PlainLinesAreFewAndWhole) {
  Story story(1);
  ManualClock clock;
  std::ostringstream out;
  Progress progress(out, Style(), clock);
  progress.Show(story.State(v1::PLANNING, "planning"), story.view());
  progress.Show(story.State(v1::PLANNING, "planning"), story.view());
  progress.Show(story.Note("412 files ignored"), story.view());
  progress.Show(story.State(v1::RUNNING, "running on 1 replica", 100, 1), story.view());
  for (int i = 0; i < 50; ++i) {
    progress.Show(story.Step(1, 1, 1), story.view());
    clock.Advance(absl::Milliseconds(500));
  }
  progress.Show(story.Epoch(1, 1, 2), story.view());
  progress.End();
  const std::string text = out.str();
  EXPECT_THAT(text, Not(HasSubstr("\r")));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2 + 1 + 4 + 1) << text;
}

TEST(Progress, NotesAreLeftToWhoeverSaysThemAtTheEnd) {
  for (const bool news : {true, false}) {
    Story story(1);
    ManualClock clock;
    std::ostringstream out;
    Style style;
    style.notes_are_news = news;
    Progress(out, style, clock).Show(story.Note("412 files ignored"), story.view());
    EXPECT_EQ(out.str(), news ? "412 files ignored\n" : "");
  }
}

TEST(Progress, TheLiveLineIsRedrawnInPlaceAndGoesAway) {
  Story story(1);
  ManualClock clock;
  std::ostringstream out;
  Style style;
  style.terminal = true;
  Progress progress(out, style, clock);
  progress.Show(story.State(v1::RUNNING, "running", 100, 1), story.view());
  progress.Show(story.Step(1, 1, 1), story.view());
  const size_t before = out.str().size();
  progress.Show(story.Step(1, 1, 1), story.view());
  EXPECT_EQ(out.str().size(), before) << "redrawn too often";
  clock.Advance(absl::Seconds(1));
  progress.Show(story.Step(1, 1, 1), story.view());
  EXPECT_THAT(out.str().substr(before), HasSubstr("\r\x1b[Kepoch 1/1"));
  progress.Say("a note");
  EXPECT_THAT(out.str(), HasSubstr("\r\x1b[Ka note\nepoch 1/1"));
  progress.Show(story.Epoch(1, 1, 1), story.view());
  EXPECT_TRUE(out.str().ends_with("\r\x1b[Kepoch 1/1  loss 1.0000  val_loss 1.0000  20 images/s  75 s\n")) << "no stale line below it";
  clock.Advance(absl::Seconds(1));
  progress.Show(story.Step(2, 1, 1), story.view());
  progress.End();
  EXPECT_TRUE(out.str().ends_with("\r\x1b[K"));
}

TEST(Formats, ForPeople) {
  EXPECT_EQ(FormatValue(0), "0.0000");
  EXPECT_EQ(FormatValue(0.43214), "0.4321");
  EXPECT_EQ(FormatValue(-123456), "-1.235e+05");
  EXPECT_EQ(FormatValue(NAN), "nan");
  EXPECT_EQ(FormatTime(absl::Seconds(7.4)), "0:07");
  EXPECT_EQ(FormatTime(absl::Seconds(3723)), "1:02:03");
  EXPECT_EQ(FormatElapsed(absl::Seconds(0.524)), "0.52 s");
  EXPECT_EQ(FormatElapsed(absl::Seconds(7.44)), "7.4 s");
  EXPECT_EQ(FormatElapsed(absl::Seconds(45.3)), "45 s");
  EXPECT_EQ(FormatElapsed(absl::Seconds(99.6)), "1:40");
  EXPECT_EQ(FormatCount(9.25), "9.2");
  EXPECT_EQ(FormatCount(950.4), "950");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
}

TEST(RenderMemory, InTheDesignsOrderWithShares) {
  v1::MemoryReport memory;
  (*memory.mutable_bytes_by_category())["optimizer"] = 100 * kMiB;
  (*memory.mutable_bytes_by_category())["parameters"] = 300 * kMiB;
  (*memory.mutable_bytes_by_category())["novel"] = 0;
  memory.set_peak_bytes(512 * kMiB);
  EXPECT_EQ(RenderMemory(memory, {}),
            "  parameters        300 MiB  75.0 %\n"
            "  optimizer         100 MiB  25.0 %\n"
            "  novel                 0 B   0.0 %\n"
            "  in all            400 MiB\n"
            "  peak of tensors   512 MiB\n"
            "  limit of tensors     none\n"
            "  resident              0 B");
  v1::MemoryProfile predicted;
  (*predicted.mutable_bytes_by_category())["parameters"] = 310 * kMiB;
  (*predicted.mutable_bytes_by_category())["runtime"] = 20 * kMiB;
  predicted.set_peak_bytes(300 * kMiB);
  predicted.set_bytes_per_further_thread(100 * kMiB);
  predicted.set_threads(3);
  predicted.set_resident_bytes(330 * kMiB);
  predicted.set_expected_resident_bytes(310 * kMiB);
  EXPECT_EQ(RenderMemory(memory, predicted),
            "                    measured          predicted\n"
            "  parameters         300 MiB  75.0 %    310 MiB\n"
            "  optimizer          100 MiB  25.0 %          -\n"
            "  runtime                  -           20.0 MiB\n"
            "  novel                  0 B   0.0 %          -\n"
            "  in all             400 MiB            330 MiB\n"
            "  peak of tensors    512 MiB            500 MiB\n"
            "  limit of tensors      none\n"
            "  resident               0 B            310 MiB");
}

}  // namespace
}  // namespace lockstep
