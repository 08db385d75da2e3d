// Tells ThreadSanitizer what absl::Mutex does. The distribution's Abseil is not built with it, and synchronises by its own means, so that
// everything a Mutex guards would be reported as a race. These definitions come before the library's, call them, and say what happened
// before what. Linked into programs and tests of the tsan preset only.
//
// A condition is evaluated by whichever thread gives the lock up, within its call: hence the note of which lock that is.

#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdlib>
#include <string>
#include <type_traits>

#include "absl/synchronization/mutex.h"

namespace {

#define LOCKSTEP_NAME_OF_INNER(name) #name
#define LOCKSTEP_NAME_OF(name) LOCKSTEP_NAME_OF_INNER(name)
constexpr char kInline[] = LOCKSTEP_NAME_OF(ABSL_OPTION_INLINE_NAMESPACE_NAME);

thread_local void* within = nullptr;  // the lock of this thread's call

// The library's own function, by its name in the Itanium C++ ABI (5.1): "_ZN" or "_ZNK", absl and its inline namespace, then `rest`.
void* Real(const std::string& prefix, const std::string& rest) {
  const std::string name = prefix + "4absl" + std::to_string(sizeof(kInline) - 1) + kInline + rest;
  void* function = dlsym(RTLD_NEXT, name.c_str());
  if (function == nullptr) std::abort();
  return function;
}
template <typename Function>
Function RealMutex(const std::string& rest) {
  return reinterpret_cast<Function>(Real("_ZN", "5Mutex" + rest));
}

// Around a call that gives the lock up, for a while or for good.
template <typename Call>
auto GivingUp(void* mutex, const Call& call) {
  void* const outer = within;
  within = mutex;
  __tsan_release(mutex);
  if constexpr (std::is_void_v<decltype(call())>) {
    call();
    within = outer;
  } else {
    const auto result = call();
    within = outer;
    return result;
  }
}

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

void Mutex::Lock() {
  static const auto real = RealMutex<void (*)(Mutex*)>("4LockEv");
  real(this);
  __tsan_acquire(this);
}

bool Mutex::TryLock() {
  static const auto real = RealMutex<bool (*)(Mutex*)>("7TryLockEv");
  if (!real(this)) return false;
  __tsan_acquire(this);
  return true;
}

void Mutex::Unlock() {
  static const auto real = RealMutex<void (*)(Mutex*)>("6UnlockEv");
  GivingUp(this, [this] { real(this); });
}

void Mutex::ReaderLock() {
  static const auto real = RealMutex<void (*)(Mutex*)>("10ReaderLockEv");
  real(this);
  __tsan_acquire(this);
}

void Mutex::ReaderUnlock() {
  static const auto real = RealMutex<void (*)(Mutex*)>("12ReaderUnlockEv");
  GivingUp(this, [this] { real(this); });
}

void Mutex::Await(const Condition& condition) {
  static const auto real = RealMutex<void (*)(Mutex*, const Condition&)>("5AwaitERKNS0_9ConditionE");
  GivingUp(this, [&] { real(this, condition); });
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static const auto real = RealMutex<bool (*)(Mutex*, const Condition&, Duration)>("16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  const bool met = GivingUp(this, [&] { return real(this, condition, timeout); });
  __tsan_acquire(this);
  return met;
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static const auto real = RealMutex<bool (*)(Mutex*, const Condition&, Time)>("17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  const bool met = GivingUp(this, [&] { return real(this, condition, deadline); });
  __tsan_acquire(this);
  return met;
}

void Mutex::LockWhen(const Condition& condition) {
  static const auto real = RealMutex<void (*)(Mutex*, const Condition&)>("8LockWhenERKNS0_9ConditionE");
  GivingUp(this, [&] { real(this, condition); });
  __tsan_acquire(this);
}

bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  static const auto real = RealMutex<bool (*)(Mutex*, const Condition&, Duration)>("19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  const bool met = GivingUp(this, [&] { return real(this, condition, timeout); });
  __tsan_acquire(this);
  return met;
}

bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  static const auto real = RealMutex<bool (*)(Mutex*, const Condition&, Time)>("20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  const bool met = GivingUp(this, [&] { return real(this, condition, deadline); });
  __tsan_acquire(this);
  return met;
}

bool Condition::Eval() const {
  static const auto real = reinterpret_cast<bool (*)(const Condition*)>(Real("_ZNK", "9Condition4EvalEv"));
  if (within == nullptr) return real(this);
  __tsan_acquire(within);
  const bool met = real(this);
  __tsan_release(within);
  return met;
}

ABSL_NAMESPACE_END
}  // namespace absl
