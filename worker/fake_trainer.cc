// Stands in for lockstep-trainer in the worker's tests: speaks the control protocol, and behaves as the job's name says.
//
//   run          sends a status every 20 ms until it is cancelled, then says "cancelled" and exits 0
//   done         says "done" and exits 0
//   exit 3       says "gave up" and exits 3
//   crash        dies of SIGSEGV
//   stubborn     ignores SIGTERM and the cancel command
//   loud N       writes N numbered lines, then runs
//   mute         never reads its order's successors, never writes; with a child of its own that ignores everything
//   garbage      sends bytes that are no status

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "proto/cluster.pb.h"
#include "rpc/frame.h"

namespace lockstep {
namespace {

class FakeTrainer {
 public:
  FakeTrainer(int control, v1::TrainerStart start) : control_(control), start_(std::move(start)) {}

  int Run() {
    const std::string& name = start_.order().job().name();
    std::fprintf(stderr, "started %s in %s\n", name.c_str(), start_.scratch().c_str());
    std::ofstream(start_.scratch() + "/leftover") << "something";
    if (name == "done") return End("done", 0);
    if (name == "exit 3") return End("gave up", 3);
    if (name == "crash") {
      // A sanitizer would make an exit of it.
      signal(SIGSEGV, SIG_DFL);
      raise(SIGSEGV);
    }
    if (name == "garbage") {
      [[maybe_unused]] const ssize_t written = write(control_, "\3\0\0\0abc", 7);
      pause();
    }
    if (name == "mute") return HangWithChild();
    if (name == "stubborn") signal(SIGTERM, SIG_IGN);
    if (absl::StartsWith(name, "loud ")) {
      const int lines = std::atoi(name.c_str() + 5);
      for (int i = 0; i < lines; ++i) std::fprintf(stderr, "line %d\n", i);
    }
    return Train(/*stubborn=*/name == "stubborn");
  }

 private:
  int End(const std::string& words, int code) {
    v1::TrainerStatus status;
    status.set_phase("ended");
    status.set_message(words);
    if (!WriteFrame(control_, status).ok()) return 1;
    std::fprintf(stderr, "ends without a newline");
    return code;
  }

  int HangWithChild() {
    if (fork() == 0) signal(SIGTERM, SIG_IGN);
    for (;;) pause();
  }

  int Train(bool stubborn) {
    absl::Notification cancelled;
    std::thread reader([this, &cancelled] {
      for (;;) {
        const auto command = ReadFrame<v1::TrainerCommand>(control_);
        if (!command.ok() || !command->has_value()) _exit(1);
        if ((*command)->cancel() && !cancelled.HasBeenNotified()) cancelled.Notify();
      }
    });
    reader.detach();
    v1::TrainerStatus status;
    status.set_phase("training");
    status.set_epoch(1);
    status.set_images_per_second(123.5);
    status.set_pipeline_depth(2);
    status.set_pipeline_bytes(4096);
    (*status.mutable_memory()->mutable_bytes_by_category())["parameters"] = 1000;
    (*status.mutable_memory()->mutable_bytes_by_category())["activations"] = 5000;
    status.mutable_memory()->set_peak_bytes(7000);
    status.mutable_memory()->set_limit_bytes(8000);
    status.mutable_memory()->set_resident_bytes(90000);
    status.mutable_memory()->add_high_water()->set_phase("forward");
    for (uint64_t step = 1; stubborn || !cancelled.WaitForNotificationWithTimeout(absl::Milliseconds(20)); ++step) {
      if (stubborn) absl::SleepFor(absl::Milliseconds(20));
      status.set_step(step);
      status.set_loss(1.0 / static_cast<double>(step));
      status.set_images(step * 32);
      status.set_all_reduce_bytes(step * 1024);
      status.mutable_phase_seconds()->set_forward(0.01 * static_cast<double>(step));
      status.mutable_phase_seconds()->set_total(0.02 * static_cast<double>(step));
      if (!WriteFrame(control_, status).ok()) _exit(1);
    }
    return End("cancelled", 0);
  }

  const int control_;
  const v1::TrainerStart start_;
};

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  if (argc != 3 || std::string(argv[1]) != "--control-fd") return 64;
  const int control = std::atoi(argv[2]);
  const auto start = lockstep::ReadFrame<lockstep::v1::TrainerStart>(control);
  if (!start.ok() || !start->has_value()) return 65;
  // No destructors: a detached thread may still read.
  _exit(lockstep::FakeTrainer(control, **start).Run());
}
