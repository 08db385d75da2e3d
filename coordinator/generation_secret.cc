#include "coordinator/generation_secret.h"

#include <openssl/rand.h>

namespace lockstep {
namespace {

constexpr size_t kSecretBytes = 32;

}  // namespace

absl::StatusOr<std::string> MakeSecret() {
  std::string secret(kSecretBytes, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(secret.data()), static_cast<int>(secret.size())) != 1) {
    return absl::InternalError("no random bytes for a generation's secret");
  }
  return secret;
}

}  // namespace lockstep
