#include "coordinator/job_id.h"

#include <string_view>

namespace lockstep {
namespace {

constexpr std::string_view kDigits = "0123456789abcdefghjkmnpqrstvwxyz";
constexpr int kLength = 7;

}  // namespace

std::string JobIdOf(int64_t number) {
  std::string id(kLength + 1, 'j');
  for (int i = kLength; i > 0; --i) {
    id[static_cast<size_t>(i)] = kDigits[static_cast<size_t>(number % 32)];
    number /= 32;
  }
  return id;
}

int64_t NumberOfJobId(const std::string& id) {
  if (id.size() != kLength + 1 || id.front() != 'j') return -1;
  int64_t number = 0;
  for (const char c : id.substr(1)) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) return -1;
    number = number * 32 + static_cast<int64_t>(digit);
  }
  return number;
}

}  // namespace lockstep
