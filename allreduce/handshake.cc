#include "allreduce/handshake.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lockstep::allreduce {
namespace {

static_assert(std::endian::native == std::endian::little, "structures travel as they lie in memory");

constexpr uint32_t kMagic = 0x5241534c;  // "LSAR"
constexpr uint32_t kVersion = 1;

using Nonce = std::array<unsigned char, 16>;
using Proof = std::array<unsigned char, 32>;

struct Hello {
  uint32_t magic = kMagic;
  uint32_t version = kVersion;
  uint64_t generation = 0;
  uint64_t fingerprint = 0;
  uint32_t rank = 0;
  uint32_t ranks = 0;
  Nonce nonce{};
};
static_assert(sizeof(Hello) == 48);

// Answers a Hello, and then the connecting end's Proof.
struct Answer {
  uint32_t code = 0;  // absl::StatusCode; 0: go on
  uint32_t rank = 0;
  Nonce nonce{};
  Proof proof{};
  std::array<char, 168> reason{};  // ends with zeros
};
static_assert(sizeof(Answer) == 224);

template <typename T>
std::span<std::byte> BytesOf(T& message) {
  return std::as_writable_bytes(std::span(&message, 1));
}
template <typename T>
std::span<const std::byte> BytesOf(const T& message) {
  return std::as_bytes(std::span(&message, 1));
}

absl::StatusOr<Nonce> MakeNonce() {
  Nonce nonce;
  if (RAND_bytes(nonce.data(), nonce.size()) != 1) return absl::InternalError("no random bytes");
  return nonce;
}

// `side` tells the two ends' proofs apart, so that neither can be sent back as the other.
Proof Prove(const std::string& token, std::string_view side, const Hello& hello, const Answer& answer) {
  std::string said(side);
  said.append(reinterpret_cast<const char*>(&hello), sizeof(hello));
  said.append(reinterpret_cast<const char*>(&answer.rank), sizeof(answer.rank));
  said.append(reinterpret_cast<const char*>(answer.nonce.data()), answer.nonce.size());
  Proof proof{};
  unsigned int size = 0;
  HMAC(EVP_sha256(), token.data(), static_cast<int>(token.size()), reinterpret_cast<const unsigned char*>(said.data()), said.size(),
       proof.data(), &size);
  return proof;
}

bool Equal(const Proof& a, const Proof& b) { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

absl::Status WrongToken(int rank) {
  return absl::PermissionDeniedError(absl::StrCat("rank ", rank, " has another token than this rank's"));
}

absl::Status ToStatus(const Answer& answer, int peer) {
  if (answer.code == 0) return absl::OkStatus();
  const std::string reason(answer.reason.begin(), std::find(answer.reason.begin(), answer.reason.end(), '\0'));
  return absl::Status(static_cast<absl::StatusCode>(answer.code), absl::StrCat("rank ", peer, " refused the connection: ", reason));
}

Answer AnswerOf(const absl::Status& status, int rank) {
  Answer answer;
  answer.code = static_cast<uint32_t>(status.code());
  answer.rank = static_cast<uint32_t>(rank);
  const std::string_view message(status.message().data(), status.message().size());
  message.copy(answer.reason.data(), answer.reason.size() - 1);
  return answer;
}

absl::Status Review(const Hello& hello, const Identity& mine, absl::FunctionRef<bool(int)> awaited) {
  if (hello.version != kVersion) {
    return absl::FailedPreconditionError(absl::StrCat("protocol ", hello.version, " instead of ", kVersion));
  }
  if (hello.generation != mine.generation) {
    return absl::FailedPreconditionError(absl::StrCat("generation ", hello.generation, ", but this is generation ", mine.generation));
  }
  if (hello.ranks != static_cast<uint32_t>(mine.ranks) || hello.fingerprint != mine.fingerprint) {
    return absl::InvalidArgumentError("the ranks differ in membership or layout");
  }
  if (!awaited(static_cast<int>(hello.rank))) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", hello.rank, " is not expected to connect, or not in this way"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Introduce(const FileDescriptor& socket, const Identity& mine, int peer, const std::string& token, absl::Time deadline) {
  Hello hello;
  hello.generation = mine.generation;
  hello.fingerprint = mine.fingerprint;
  hello.rank = static_cast<uint32_t>(mine.rank);
  hello.ranks = static_cast<uint32_t>(mine.ranks);
  ASSIGN_OR_RETURN(hello.nonce, MakeNonce());
  RETURN_IF_ERROR(SendAll(socket, BytesOf(hello), deadline));
  Answer answer;
  RETURN_IF_ERROR(ReceiveAll(socket, BytesOf(answer), deadline));
  RETURN_IF_ERROR(ToStatus(answer, peer));
  if (answer.rank != static_cast<uint32_t>(peer)) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", answer.rank, " answers at the endpoint of rank ", peer));
  }
  // Sent even to one whose own proof is wrong, so that it can say so too.
  RETURN_IF_ERROR(SendAll(socket, BytesOf(Prove(token, "connecting", hello, answer)), deadline));
  if (!Equal(answer.proof, Prove(token, "accepting", hello, answer))) return WrongToken(peer);
  Answer last;
  RETURN_IF_ERROR(ReceiveAll(socket, BytesOf(last), deadline));
  return ToStatus(last, peer);
}

absl::StatusOr<int> Welcome(const FileDescriptor& socket, const Identity& mine, const std::string& token,
                            absl::FunctionRef<bool(int rank)> awaited, absl::Time deadline) {
  Hello hello;
  RETURN_IF_ERROR(ReceiveAll(socket, BytesOf(hello), deadline));
  if (hello.magic != kMagic) return absl::DataLossError("a stranger connected, who does not speak this protocol");
  if (const absl::Status review = Review(hello, mine, awaited); !review.ok()) {
    SendAll(socket, BytesOf(AnswerOf(review, mine.rank)), deadline).IgnoreError();
    return review;
  }
  const int peer = static_cast<int>(hello.rank);
  Answer answer;
  answer.rank = static_cast<uint32_t>(mine.rank);
  ASSIGN_OR_RETURN(answer.nonce, MakeNonce());
  answer.proof = Prove(token, "accepting", hello, answer);
  RETURN_IF_ERROR(SendAll(socket, BytesOf(answer), deadline));
  Proof proof{};
  RETURN_IF_ERROR(ReceiveAll(socket, BytesOf(proof), deadline));
  const absl::Status proven = Equal(proof, Prove(token, "connecting", hello, answer)) ? absl::OkStatus() : WrongToken(peer);
  const absl::Status told = SendAll(socket, BytesOf(AnswerOf(proven, mine.rank)), deadline);
  RETURN_IF_ERROR(proven);
  RETURN_IF_ERROR(told);
  return peer;
}

}  // namespace lockstep::allreduce
