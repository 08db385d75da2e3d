#include "memory/requests.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/failpoint.h"
#include "base/logging.h"

namespace lockstep::memory {
namespace {

thread_local Requests* current_requests = nullptr;

// "96 bytes", "15.0 KiB", "30.1 MiB".
std::string Size(int64_t bytes) {
  if (bytes < 1 << 10) return absl::StrCat(bytes, " bytes");
  if (bytes < 1 << 20) return absl::StrFormat("%.1f KiB", static_cast<double>(bytes) / (1 << 10));
  if (bytes < 1 << 30) return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
  return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / (1 << 30));
}

struct Failing {
  absl::Mutex mutex;
  std::vector<FailingRequest> left ABSL_GUARDED_BY(mutex);
  bool in_process ABSL_GUARDED_BY(mutex) = false;
};

std::atomic<bool> any_fails{false};

Failing* Read() {
  auto* failing = new Failing;
  const char* text = std::getenv("LOCKSTEP_FAIL_ALLOCATION");
  if (text == nullptr) return failing;
  absl::MutexLock lock(&failing->mutex);
  for (const absl::string_view entry : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::vector<absl::string_view> parts = absl::StrSplit(entry, ':');
    FailingRequest request;
    if (parts.size() == 3 && absl::SimpleAtoi(parts[0], &request.rank) && absl::SimpleAtoi(parts[1], &request.step) &&
        absl::SimpleAtoi(parts[2], &request.request)) {
      failing->left.push_back(request);
    } else {
      LOG_WARNING("LOCKSTEP_FAIL_ALLOCATION=\"%s\" error=\"expected RANK:STEP:K\"", entry);
    }
  }
  any_fails = !failing->left.empty();
  return failing;
}

Failing& All() {
  static Failing* const failing = Read();  // never destroyed
  return *failing;
}

bool AnyFails() {
  static const bool read = (All(), true);
  return read && any_fails.load(std::memory_order_relaxed);
}

// Whether this one must fail, which nobody was told before.
bool Fires(int rank, uint64_t step, uint64_t request) {
  Failing& failing = All();
  absl::MutexLock lock(&failing.mutex);
  const auto found = std::find_if(failing.left.begin(), failing.left.end(), [&](const FailingRequest& one) {
    return one.rank == rank && one.step == step && one.request == request;
  });
  if (found == failing.left.end()) return false;
  failing.left.erase(found);
  any_fails = !failing.left.empty();
  return failing.in_process || ClaimFailpoint(absl::StrCat("allocation.", rank, ".", step, ".", request));
}

}  // namespace

std::string Refusal::Text() const {
  return absl::StrCat(place, " asked for ", Size(bytes), " of ", std::string(CategoryName(category)), " with ", Size(live.Total()),
                      " in use of ", limit_bytes > 0 ? Size(limit_bytes) : "what the machine has");
}

std::string Refusal::LiveText(size_t most_layers) const {
  std::vector<std::pair<int64_t, std::string_view>> categories;
  for (size_t i = 0; i < kCategories; ++i) {
    const auto one = static_cast<Category>(i);
    if (live[one] > 0) categories.emplace_back(live[one], CategoryName(one));
  }
  std::stable_sort(categories.begin(), categories.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<std::string> parts, names;
  for (const auto& [size, name] : categories) parts.push_back(absl::StrCat(std::string(name), " ", Size(size)));
  for (size_t i = 0; i < std::min(layers.size(), most_layers); ++i) {
    names.push_back(absl::StrCat(layers[i].first, " ", Size(layers[i].second)));
  }
  return absl::StrCat(absl::StrJoin(parts, ", "), names.empty() ? "" : "; largest layers: ", absl::StrJoin(names, ", "));
}

void Requests::Begin(int rank, uint64_t step) {
  rank_ = rank;
  step_ = step;
  count_ = 0;
}

Requests::Refused Requests::TakeRefused() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(refused_, {});
}

Requests* Requests::Current() { return current_requests; }

bool Requests::NextMustFail() {
  if (!AnyFails()) return false;
  const uint64_t number = count_.fetch_add(1, std::memory_order_relaxed) + 1;
  return Fires(rank_, step_, number);
}

void Requests::Add(Refusal refusal) {
  absl::MutexLock lock(&mutex_);
  ++refused_.count;
  if (!refused_.first) refused_.first = std::move(refusal);
}

ScopedRequests::ScopedRequests(Requests* requests) : previous_(current_requests) { current_requests = requests; }
ScopedRequests::~ScopedRequests() { current_requests = previous_; }

void SetFailingRequests(std::vector<FailingRequest> failing) {
  Failing& all = All();
  absl::MutexLock lock(&all.mutex);
  all.left = std::move(failing);
  all.in_process = true;
  any_fails = !all.left.empty();
}

size_t FailingRequestsLeft() {
  Failing& all = All();
  absl::MutexLock lock(&all.mutex);
  return all.left.size();
}

}  // namespace lockstep::memory
