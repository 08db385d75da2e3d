#include "rpc/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

TEST(HttpServer, TakesItsPortFirstAndAnswersOnceItServes) {
  const auto server = HttpServer::Bind("--http", "127.0.0.1:0");
  ASSERT_TRUE(server.ok()) << server.status();
  int asked = 0;
  ASSERT_TRUE((*server)
                  ->Serve({{"/page",
                            [&]() -> HttpServer::Answer {
                              return {503, "text/plain", absl::StrCat("page ", ++asked)};
                            }}})
                  .ok());
  httplib::Client client(absl::StrCat("http://", (*server)->address()));
  for (const char* body : {"page 1", "page 2"}) {
    const httplib::Result answer = client.Get("/page");
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->status, 503);
    EXPECT_EQ(answer->body, body) << "made anew each time";
  }
  EXPECT_EQ(client.Get("/other")->status, 404);
}

TEST(HttpServer, APortInUseOrNoneAtAllIsSaidSo) {
  const auto first = HttpServer::Bind("--metrics", "127.0.0.1:0");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = HttpServer::Bind("--metrics", (*first)->address());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr((*first)->address()));
  for (const char* wrong : {"", "7072", ":7072", "127.0.0.1:", "127.0.0.1:70720", "127.0.0.1:http"}) {
    EXPECT_EQ(HttpServer::Bind("--metrics", wrong).status().code(), absl::StatusCode::kInvalidArgument) << wrong;
  }
}

}  // namespace
}  // namespace lockstep
