#pragma once
// One rank's connection to a rank of another host. Frames go out in the order in which they are queued; those that come in go
// straight to where they belong: sums into one of two receive buffers, results into our own vector, verdicts aside. A frame
// whose place is still in use stays in the socket, and holds up the sender.
//
// Thread-safety: none; belongs to whoever drives the collective.

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allreduce/frame.h"
#include "allreduce/layout.h"
#include "allreduce/membership.h"
#include "allreduce/socket.h"

namespace lockstep::allreduce {

struct PostedVerdict {
  std::string bytes;
  bool with_gradients = false;
};

class RemotePeer {
 public:
  // Frames of sums that a peer may be ahead.
  static constexpr uint64_t kWindow = 2;

  // `vector`: our own first subtree's vector, into which results go. All references must outlive this object.
  RemotePeer(const Membership& membership, const Layout& layout, int rank, std::byte* vector, FileDescriptor socket);

  // Of the receive buffers for the sums of `subtrees` subtrees.
  static size_t ReceiveBytes(const Layout& layout, int ranks, size_t subtrees);

  // Queues a frame. What `pieces` point to must stay as it is until all_sent().
  void Send(FrameType type, uint64_t sequence, Pieces pieces);
  // Our part of bucket `sequence`: the subtrees' sums for the peer's chunk; or the results of our chunk.
  void SendSums(uint64_t sequence, const std::vector<std::byte*>& subtree_sums);
  void SendResult(uint64_t sequence);
  bool all_sent() const { return outgoing_.empty(); }

  // Sends and receives what goes without waiting. DataLoss: a damaged or senseless frame. FailedPrecondition: of another
  // generation. The peer's going away is no error here: see closed().
  absl::Status Pump();
  // For poll.
  int fd() const { return socket_.get(); }
  short events() const;
  void Notice(short events);

  // The peer's sums of our chunk of bucket `sequence`, for its subtree. REQUIRES: sums_received() > sequence >= sums_used.
  const std::byte* Sums(uint64_t sequence, size_t subtree) const;
  // Everything before bucket `sequence` was used.
  void UseSums(uint64_t sequence) { sums_used_ = sequence; }
  uint64_t sums_received() const { return sums_received_; }
  uint64_t results_received() const { return results_received_; }
  uint64_t verdicts_received() const { return verdicts_received_; }
  // REQUIRES: one was received and not taken.
  PostedVerdict TakeVerdict();

  // The next frame is here, but its place is in use: the peer waits for us.
  bool waits_for_place() const { return header_read_ == sizeof(header_) && payload_ == nullptr; }
  int rank() const { return rank_; }
  bool closed() const { return closed_; }
  // Why the peer gave up; empty if it did not say.
  const std::string& last_word() const { return last_word_; }
  // Ends the connection, with a last word if one fits between frames.
  void GiveUp(const std::string& why);

  uint64_t bytes_sent() const { return bytes_sent_; }
  uint64_t bytes_received() const { return bytes_received_; }

 private:
  struct Outgoing {
    FrameHeader header;
    Pieces pieces;
    size_t sent = 0;
  };

  size_t BucketOf(uint64_t sequence) const { return static_cast<size_t>(sequence % layout_.buckets.size()); }
  Segment MyChunk(uint64_t sequence) const;
  Segment PeerChunk(uint64_t sequence) const;
  std::byte* Buffer(uint64_t sequence) const;
  absl::Status SendSome();
  absl::Status ReceiveSome();
  // Bytes read now; 0 if there are none.
  size_t Read(std::byte* to, size_t most);
  absl::Status CheckExpected() const;
  // Where the payload of the frame at hand goes; null while its place is in use.
  std::byte* FindPlace();
  void Deliver();

  const uint64_t generation_;
  const Layout& layout_;
  const int rank_, my_rank_, ranks_;
  const size_t subtrees_;  // of the peer
  std::byte* const vector_;
  const FileDescriptor socket_;
  const std::unique_ptr<std::byte[]> buffers_;

  std::deque<Outgoing> outgoing_;
  FrameHeader header_;  // of the frame that is coming in
  size_t header_read_ = 0;
  std::byte* payload_ = nullptr;  // its place, once found
  size_t payload_read_ = 0;
  std::string text_;  // place of verdicts and last words
  uint64_t sums_sent_ = 0, sums_received_ = 0, sums_used_ = 0, results_received_ = 0, verdicts_received_ = 0;
  std::optional<PostedVerdict> verdict_;
  bool closed_ = false;
  bool link_down_ = false;  // in a drill: nothing comes through, and nobody says so
  std::string last_word_;
  uint64_t bytes_sent_ = 0, bytes_received_ = 0;
};

}  // namespace lockstep::allreduce
