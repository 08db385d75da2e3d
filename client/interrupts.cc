#include "client/interrupts.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <utility>

namespace lockstep {

Interrupts::Interrupts() {
  sigset_t wanted;
  sigemptyset(&wanted);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&wanted, signal);
  pthread_sigmask(SIG_BLOCK, &wanted, &previous_);
  signal_fd_ = signalfd(-1, &wanted, SFD_CLOEXEC);
  stop_event_ = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { Run(); });
}

Interrupts::~Interrupts() {
  const uint64_t one = 1;
  // A write to a fresh eventfd cannot fail.
  [[maybe_unused]] const ssize_t written = write(stop_event_, &one, sizeof(one));
  thread_.join();
  close(signal_fd_);
  close(stop_event_);
  pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
}

void Interrupts::Handle(std::function<void(int)> handler) {
  absl::MutexLock lock(&mutex_);
  handler_ = std::move(handler);
  if (handler_ && count_ > 0) handler_(count_);
}

void Interrupts::Run() {
  for (;;) {
    std::array<pollfd, 2> wanted = {{{signal_fd_, POLLIN, 0}, {stop_event_, POLLIN, 0}}};
    if (poll(wanted.data(), wanted.size(), -1) < 0) continue;
    if (wanted[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof(info)) != sizeof(info)) continue;
    absl::MutexLock lock(&mutex_);
    ++count_;
    if (handler_) handler_(count_);
  }
}

}  // namespace lockstep
