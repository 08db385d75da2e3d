#include "rpc/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/test_folder.h"
#include "proto/lockstep.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

class VersionService final : public v1::Lockstep::Service {
 public:
  grpc::Status Version(grpc::ServerContext* context, const v1::VersionRequest*, v1::VersionResponse* response) override {
    if (const grpc::Status allowed = Authorize(*context, "secret"); !allowed.ok()) return allowed;
    response->set_version("7");
    return grpc::Status::OK;
  }
};

absl::StatusOr<std::string> AskVersion(const std::string& address, const ChannelOptions& options) {
  const auto stub = v1::Lockstep::NewStub(MakeChannel(address, options));
  grpc::ClientContext context;
  SetDeadline(&context, absl::Seconds(10));
  v1::VersionResponse response;
  const grpc::Status status = stub->Version(&context, {}, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response.version();
}

TEST(RpcServer, AnswersOnlyWhoHasTheToken) {
  VersionService service;
  const auto server = RpcServer::Start({.listen = "127.0.0.1:0", .token = "secret"}, {&service});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(*AskVersion((*server)->address(), {.token = "secret"}), "7");
  for (const char* wrong : {"", "secre", "secret2", "Secret"}) {
    EXPECT_EQ(AskVersion((*server)->address(), {.token = wrong}).status().code(), absl::StatusCode::kUnauthenticated) << wrong;
  }
}

// A certificate for localhost, and its key.
std::pair<std::string, std::string> MakeCertificate(const std::string& name) {
  const TestFolder folder;
  const std::string path = folder / name;
  const std::string command =
      absl::StrCat("openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout ",
                   path, ".key -out ", path, ".crt 2> /dev/null");
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  return {ReadFile(path + ".crt").value_or(""), ReadFile(path + ".key").value_or("")};
}

TEST(RpcServer, OverTlsAnswersOnlyWhoTrustsItsCertificate) {
  const auto [certificate, key] = MakeCertificate("own");
  VersionService service;
  const auto server =
      RpcServer::Start({.listen = "127.0.0.1:0", .token = "secret", .tls_certificate = certificate, .tls_key = key}, {&service});
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string address = (*server)->address();
  const auto ask = [&](const ChannelOptions& options) { return AskVersion(address, options); };
  EXPECT_EQ(*ask({.token = "secret", .ca_certificate = certificate, .server_name = "localhost"}), "7");
  EXPECT_EQ(ask({.token = "wrong", .ca_certificate = certificate, .server_name = "localhost"}).status().code(),
            absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(ask({.token = "secret"}).status().code(), absl::StatusCode::kUnavailable) << "plain text to a TLS server";
  const std::string stranger = MakeCertificate("stranger").first;
  EXPECT_EQ(ask({.token = "secret", .ca_certificate = stranger, .server_name = "localhost"}).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(RpcServer::Start({.listen = "127.0.0.1:0", .tls_certificate = certificate}, {}).status().code(),
            absl::StatusCode::kInvalidArgument)
      << "a certificate without its key";
}

TEST(RpcServer, APortInUseIsSaidSo) {
  VersionService service;
  const auto first = RpcServer::Start({.listen = "127.0.0.1:0", .token = "secret"}, {&service});
  ASSERT_TRUE(first.ok());
  VersionService other;
  const auto second = RpcServer::Start({.listen = (*first)->address(), .token = "secret"}, {&other});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr("Address already in use"));
}

TEST(RpcServer, BeyondLoopbackTakesTokenAndTlsOrAWord) {
  VersionService service;
  const auto bare = RpcServer::Start({.listen = "0.0.0.0:0", .token = "secret"}, {&service});
  EXPECT_EQ(bare.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(bare.status().message(), HasSubstr("--insecure"));
  EXPECT_TRUE(RpcServer::Start({.listen = "0.0.0.0:0", .token = "secret", .insecure = true}, {&service}).ok());
  EXPECT_EQ(RpcServer::Start({.listen = "nonsense"}, {&service}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lockstep
