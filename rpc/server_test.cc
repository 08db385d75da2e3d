#include "rpc/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
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

absl::StatusOr<std::string> AskVersion(const std::string& address, const std::string& token) {
  const auto stub = v1::Lockstep::NewStub(MakeChannel(address, {.token = token}));
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
  EXPECT_EQ(*AskVersion((*server)->address(), "secret"), "7");
  for (const char* wrong : {"", "secre", "secret2", "Secret"}) {
    EXPECT_EQ(AskVersion((*server)->address(), wrong).status().code(), absl::StatusCode::kUnauthenticated) << wrong;
  }
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
