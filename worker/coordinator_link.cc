#include "worker/coordinator_link.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "base/logging.h"
#include "rpc/status.h"

namespace lockstep {
namespace {

// Between two streams to a coordinator that is there.
constexpr absl::Duration kPause = absl::Milliseconds(500);
// A channel's own back-off says when to connect. How often to look up from waiting for it, and when to ask for the reason again.
constexpr absl::Duration kGlance = absl::Milliseconds(100);
constexpr absl::Duration kSayAgain = absl::Seconds(10);
constexpr absl::Duration kGoodbyeTimeout = absl::Seconds(2);
// For the other side to end a stream after our last word.
constexpr absl::Duration kCloseTimeout = absl::Seconds(1);
constexpr absl::Duration kShortestHeartbeat = absl::Milliseconds(20);
constexpr absl::Duration kLongestHeartbeat = absl::Seconds(60);

}  // namespace

CoordinatorLink::CoordinatorLink(CoordinatorLinkOptions options, Bell* bell, Outbox* outbox, Supervisor* supervisor,
                                 std::function<void()> on_connected, std::function<void(absl::Status)> on_refused)
    : options_(std::move(options)),
      bell_(bell),
      outbox_(outbox),
      supervisor_(supervisor),
      on_connected_(std::move(on_connected)),
      on_refused_(std::move(on_refused)),
      channel_(MakeChannel(options_.coordinator, options_.channel)),
      stub_(v1::Cluster::NewStub(channel_)),
      thread_([this] { Run(); }) {}

CoordinatorLink::~CoordinatorLink() { End(/*goodbye=*/false); }

void CoordinatorLink::Leave() { End(/*goodbye=*/true); }

void CoordinatorLink::End(bool goodbye) {
  if (!thread_.joinable()) return;
  {
    absl::MutexLock lock(&mutex_);
    leaving_ = true;
    goodbye_ = goodbye;
    if (context_ != nullptr && (!answered_ || !goodbye)) context_->TryCancel();
  }
  bell_->Ring();
  thread_.join();
}

bool CoordinatorLink::connected() const {
  absl::MutexLock lock(&mutex_);
  return answered_ && !broken_;
}

bool CoordinatorLink::leaving() const {
  absl::MutexLock lock(&mutex_);
  return leaving_;
}

void CoordinatorLink::Run() {
  std::string away;  // why, as logged
  while (!leaving()) {
    const absl::Status ended = AttendOnce();
    if (leaving()) return;
    if (IsRefusal(ended)) {
      on_refused_(ended);
      return;
    }
    {
      absl::MutexLock lock(&mutex_);
      if (answered_) away.clear();
    }
    if (away != ended.message()) {
      away = std::string(ended.message());
      LOG_WARNING("coordinator=%s state=away reason=\"%s\"", options_.coordinator, ended.ToString());
    }
    AwaitChannel();
  }
}

void CoordinatorLink::AwaitChannel() {
  if (channel_->GetState(/*try_to_connect=*/true) == GRPC_CHANNEL_READY) {
    // It is there and did not want us.
    const absl::Time until = absl::Now() + kPause;
    while (!leaving() && absl::Now() < until) bell_->Await(until - absl::Now());
    return;
  }
  const absl::Time until = absl::Now() + kSayAgain;
  while (!leaving() && absl::Now() < until && !channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + kGlance))) {
  }
}

bool CoordinatorLink::IsRefusal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kUnimplemented: return true;
    case absl::StatusCode::kFailedPrecondition: break;
    default: refused_since_ = absl::InfiniteFuture(); return false;
  }
  refused_since_ = std::min(refused_since_, absl::Now());
  absl::MutexLock lock(&mutex_);
  return absl::Now() - refused_since_ > (ever_connected_ ? options_.refusal_timeout : options_.first_refusal_timeout);
}

absl::Status CoordinatorLink::AttendOnce() {
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mutex_);
    if (leaving_) return absl::CancelledError("leaving");
    context_ = &context;
    broken_ = false;
    answered_ = false;
  }
  const std::unique_ptr<Stream> stream = stub_->Attend(&context);
  std::thread reader([this, &stream] { ReadOrders(stream.get()); });
  SendReports(stream.get());
  // One that ends by itself says why; cancelled, it would only say so.
  if (!AwaitBroken(kCloseTimeout)) context.TryCancel();
  reader.join();
  const grpc::Status status = stream->Finish();
  absl::MutexLock lock(&mutex_);
  context_ = nullptr;
  return FromGrpcStatus(status);
}

void CoordinatorLink::ReadOrders(Stream* stream) {
  v1::WorkerOrders orders;
  while (stream->Read(&orders)) {
    bool first_ever;
    bool first;
    {
      absl::MutexLock lock(&mutex_);
      first = !std::exchange(answered_, true);
      first_ever = !std::exchange(ever_connected_, true);
      acknowledged_ = std::max(acknowledged_, orders.acknowledged_sequence());
      if (orders.heartbeat_ms() > 0) {
        heartbeat_ = std::clamp(absl::Milliseconds(orders.heartbeat_ms()), kShortestHeartbeat, kLongestHeartbeat);
      }
    }
    if (first) LOG_INFO("coordinator=%s state=connected", options_.coordinator);
    outbox_->Acknowledge(orders.acknowledged_sequence());
    supervisor_->SetOrders(std::move(orders));
    if (first_ever) on_connected_();
    bell_->Ring();
    orders.Clear();
  }
  {
    absl::MutexLock lock(&mutex_);
    broken_ = true;
  }
  bell_->Ring();
}

void CoordinatorLink::SendReports(Stream* stream) {
  while (!leaving()) {
    if (!SendReport(stream, /*leaving=*/false) || !AwaitAcknowledgement(options_.answer_timeout)) return;
    AwaitNextReport();
  }
  SayGoodbye(stream);
}

void CoordinatorLink::SayGoodbye(Stream* stream) {
  {
    absl::MutexLock lock(&mutex_);
    if (!goodbye_ || broken_) return;
  }
  if (SendReport(stream, /*leaving=*/true) && AwaitAcknowledgement(kGoodbyeTimeout)) stream->WritesDone();
}

bool CoordinatorLink::SendReport(Stream* stream, bool leaving) {
  v1::WorkerReport report = options_.identity;
  report.set_sequence(++sequence_);
  report.set_leaving(leaving);
  outbox_->Fill(sequence_, &report);
  return stream->Write(report);
}

bool CoordinatorLink::AwaitBroken(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&broken_), timeout);
}

bool CoordinatorLink::AwaitAcknowledgement(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      if (acknowledged_ >= sequence_) return true;
      if (broken_) return false;
    }
    if (absl::Now() >= deadline) {
      LOG_WARNING("coordinator=%s error=\"no answer to report %d for %s\"", options_.coordinator, sequence_, absl::FormatDuration(timeout));
      return false;
    }
    bell_->Await(deadline - absl::Now());
  }
}

void CoordinatorLink::AwaitNextReport() {
  absl::Duration heartbeat;
  {
    absl::MutexLock lock(&mutex_);
    heartbeat = heartbeat_;
  }
  const absl::Time due = absl::Now() + heartbeat;
  while (absl::Now() < due && !outbox_->urgent()) {
    {
      absl::MutexLock lock(&mutex_);
      if (broken_ || leaving_) return;
    }
    bell_->Await(due - absl::Now());
  }
}

}  // namespace lockstep
