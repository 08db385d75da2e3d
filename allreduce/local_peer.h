#pragma once
// One rank's connection to a rank of the same host: the peer's memory, mapped, and a socket that says three things: wake up
// (its words changed while we slept), I give up because …, and, by closing, I am gone.
//
// Thread-safety: Wake from any thread; the rest belongs to whoever drives the collective.

#include <cstdint>
#include <string>

#include "allreduce/rank_memory.h"
#include "allreduce/socket.h"

namespace lockstep::allreduce {

class LocalPeer {
 public:
  LocalPeer(int rank, size_t subtrees, FileDescriptor socket, RankMemory memory);

  int rank() const { return rank_; }
  size_t subtrees() const { return subtrees_; }
  const RankMemory& memory() const { return memory_; }
  ControlBlock& control() const { return memory_.control(); }

  // If the peer sleeps. Call after changing our own words.
  void Wake();
  // Reads what came over the socket, without waiting.
  void Pump();
  int fd() const { return socket_.get(); }

  bool closed() const { return closed_; }
  const std::string& last_word() const { return last_word_; }
  void GiveUp(const std::string& why);

 private:
  const int rank_;
  const size_t subtrees_;
  const FileDescriptor socket_;
  const RankMemory memory_;
  bool closed_ = false;
  std::string last_word_;
};

}  // namespace lockstep::allreduce
