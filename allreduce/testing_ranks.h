#pragma once
// For tests: the ranks of a generation as threads of one process.

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "allreduce/ordered_allreduce.h"

namespace lockstep::allreduce {

struct RanksOptions {
  uint64_t generation = 1;
  std::vector<LeafRange> runs;
  Layout layout;
  // Ranks of one host share memory. Empty: all on one.
  std::function<std::string(int rank)> host_of = {};
  Timeouts timeouts = {};
};

inline std::vector<std::unique_ptr<Listener>> MakeListeners(const RanksOptions& options) {
  std::vector<std::unique_ptr<Listener>> listeners;
  for (int rank = 0; rank < static_cast<int>(options.runs.size()); ++rank) {
    auto listener = Listener::Create({.host_id = options.host_of ? options.host_of(rank) : "host", .bind_address = "127.0.0.1"});
    EXPECT_TRUE(listener.ok()) << listener.status();
    listeners.push_back(*std::move(listener));
  }
  return listeners;
}

inline std::vector<Endpoint> EndpointsOf(const std::vector<std::unique_ptr<Listener>>& listeners) {
  std::vector<Endpoint> endpoints;
  for (const auto& listener : listeners) endpoints.push_back(listener->endpoint());
  return endpoints;
}

inline Options OptionsOf(const RanksOptions& options, int rank) {
  return {{options.generation, options.runs.back().end, options.runs, rank}, options.layout, "token", options.timeouts};
}

// Connects them all, and runs `body` for each on a thread of its own.
inline void RunRanks(const RanksOptions& options, const std::function<void(OrderedAllReduce& all_reduce, int rank)>& body) {
  std::vector<std::unique_ptr<Listener>> listeners = MakeListeners(options);
  const std::vector<Endpoint> endpoints = EndpointsOf(listeners);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < static_cast<int>(options.runs.size()); ++rank) {
    threads.emplace_back([&, rank] {
      auto all_reduce = OrderedAllReduce::Connect(OptionsOf(options, rank), std::move(listeners[static_cast<size_t>(rank)]), endpoints);
      ASSERT_TRUE(all_reduce.ok()) << all_reduce.status();
      body(**all_reduce, rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace lockstep::allreduce
