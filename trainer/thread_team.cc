#include "trainer/thread_team.h"

namespace lockstep {

ThreadTeam::ThreadTeam(int threads, const std::function<void(int)>& prepare) {
  {
    absl::MutexLock lock(&mutex_);
    running_ = threads;
  }
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this, i, &prepare] { Loop(i, prepare); });
  absl::MutexLock lock(&mutex_);
  const auto prepared = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return running_ == 0; };
  mutex_.Await(absl::Condition(&prepared));
}

ThreadTeam::~ThreadTeam() {
  {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::Run(const std::function<void(int)>& work) {
  absl::MutexLock lock(&mutex_);
  work_ = &work;
  running_ = size();
  ++round_;
  const auto done = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return running_ == 0; };
  mutex_.Await(absl::Condition(&done));
  work_ = nullptr;
}

void ThreadTeam::Loop(int index, const std::function<void(int)>& prepare) {
  prepare(index);
  uint64_t seen = 0;
  const std::function<void(int)>* work = nullptr;
  const auto wake = [this, &seen]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return ended_ || round_ != seen; };
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      --running_;
      mutex_.Await(absl::Condition(&wake));
      if (ended_) return;
      seen = round_;
      work = work_;
    }
    (*work)(index);
  }
}

}  // namespace lockstep
