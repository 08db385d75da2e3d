#include "allreduce/remote_peer.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allreduce/rank_memory.h"
#include "base/failpoint.h"
#include "base/status_macros.h"

namespace lockstep::allreduce {
namespace {

constexpr size_t kMostVectors = 16;

// The peer is gone: what it still owes decides whether that matters.
bool IsGone(int error) { return error == ECONNRESET || error == EPIPE || error == ENOTCONN || error == ETIMEDOUT || error == EHOSTUNREACH; }
bool Again(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

}  // namespace

RemotePeer::RemotePeer(const Membership& membership, const Layout& layout, int rank, std::byte* vector, FileDescriptor socket)
    : generation_(membership.generation),
      layout_(layout),
      rank_(rank),
      my_rank_(membership.rank),
      ranks_(membership.ranks()),
      subtrees_(membership.SubtreesOf(rank).size()),
      vector_(vector),
      socket_(std::move(socket)),
      buffers_(std::make_unique_for_overwrite<std::byte[]>(ReceiveBytes(layout, ranks_, subtrees_))) {}

size_t RemotePeer::ReceiveBytes(const Layout& layout, int ranks, size_t subtrees) {
  return kWindow * subtrees * LargestChunk(layout, ranks) * SizeOf(layout.element);
}

Segment RemotePeer::MyChunk(uint64_t sequence) const { return ChunkOf(layout_, layout_.buckets[BucketOf(sequence)], ranks_, my_rank_); }
Segment RemotePeer::PeerChunk(uint64_t sequence) const { return ChunkOf(layout_, layout_.buckets[BucketOf(sequence)], ranks_, rank_); }

std::byte* RemotePeer::Buffer(uint64_t sequence) const {
  return buffers_.get() + (sequence % kWindow) * ReceiveBytes(layout_, ranks_, subtrees_) / kWindow;
}

void RemotePeer::Send(FrameType type, uint64_t sequence, Pieces pieces) {
  if (closed_) return;
  Outgoing frame;
  frame.header = MakeFrameHeader(type, generation_, sequence, pieces);
  if (LOCKSTEP_FAILPOINT("allreduce.corrupt_frame")) frame.header.payload_checksum ^= 1;
  frame.pieces = std::move(pieces);
  outgoing_.push_back(std::move(frame));
}

void RemotePeer::SendSums(uint64_t sequence, const std::vector<std::byte*>& subtree_sums) {
  const size_t element = SizeOf(layout_.element);
  const Segment chunk = PeerChunk(sequence);
  Pieces pieces;
  for (const std::byte* sums : subtree_sums) pieces.emplace_back(sums + chunk.offset * element, chunk.count * element);
  Send(FrameType::kSums, sequence, std::move(pieces));
  sums_sent_ = sequence + 1;
}

void RemotePeer::SendResult(uint64_t sequence) {
  const size_t element = SizeOf(layout_.element);
  const Segment chunk = MyChunk(sequence);
  Send(FrameType::kResult, sequence, {{vector_ + chunk.offset * element, chunk.count * element}});
}

short RemotePeer::events() const {
  if (link_down_) return 0;
  return static_cast<short>((waits_for_place() ? POLLRDHUP : POLLIN) | (outgoing_.empty() ? 0 : POLLOUT));
}

// Whoever leaves while we have yet to use what it sent before has not finished the exchange.
void RemotePeer::Notice(short events) {
  if (waits_for_place() && (events & (POLLRDHUP | POLLHUP | POLLERR)) != 0) {
    closed_ = true;
    outgoing_.clear();
  }
}

const std::byte* RemotePeer::Sums(uint64_t sequence, size_t subtree) const {
  return Buffer(sequence) + subtree * MyChunk(sequence).count * SizeOf(layout_.element);
}

PostedVerdict RemotePeer::TakeVerdict() {
  PostedVerdict verdict = *std::move(verdict_);
  verdict_.reset();
  return verdict;
}

absl::Status RemotePeer::Pump() {
  if (LOCKSTEP_FAILPOINT("allreduce.link_down")) link_down_ = true;
  if (link_down_) return absl::OkStatus();
  if (closed_) return absl::OkStatus();
  RETURN_IF_ERROR(SendSome());
  return ReceiveSome();
}

absl::Status RemotePeer::SendSome() {
  while (!outgoing_.empty()) {
    Outgoing& frame = outgoing_.front();
    std::array<iovec, kMostVectors> vectors;
    size_t used = 0, skip = frame.sent, total = sizeof(frame.header) + frame.header.payload_bytes;
    const auto add = [&](const std::byte* data, size_t size) {
      const size_t skipped = std::min(skip, size);
      skip -= skipped;
      if (size > skipped && used < vectors.size()) vectors[used++] = {const_cast<std::byte*>(data + skipped), size - skipped};
    };
    add(reinterpret_cast<const std::byte*>(&frame.header), sizeof(frame.header));
    for (const auto piece : frame.pieces) add(piece.data(), piece.size());
    msghdr message{};
    message.msg_iov = vectors.data();
    message.msg_iovlen = used;
    const ssize_t sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (Again(errno)) return absl::OkStatus();
      // What it said before it went is still to be read.
      if (IsGone(errno)) return outgoing_.clear(), absl::OkStatus();
      return SocketError(errno, absl::StrCat("send to rank ", rank_));
    }
    bytes_sent_ += static_cast<uint64_t>(sent);
    frame.sent += static_cast<size_t>(sent);
    if (frame.sent == total) outgoing_.pop_front();
  }
  return absl::OkStatus();
}

size_t RemotePeer::Read(std::byte* to, size_t most) {
  const ssize_t received = recv(socket_.get(), to, most, MSG_DONTWAIT);
  if (received > 0) {
    bytes_received_ += static_cast<uint64_t>(received);
    return static_cast<size_t>(received);
  }
  if (received == 0 || !Again(errno)) {
    closed_ = true;
    outgoing_.clear();
  }
  return 0;
}

absl::Status RemotePeer::ReceiveSome() {
  while (!closed_) {
    if (header_read_ < sizeof(header_)) {
      const size_t read = Read(reinterpret_cast<std::byte*>(&header_) + header_read_, sizeof(header_) - header_read_);
      if (read == 0) return absl::OkStatus();
      header_read_ += read;
      if (header_read_ < sizeof(header_)) continue;
      RETURN_IF_ERROR(Annotate(CheckHeader(header_, generation_), absl::StrCat("from rank ", rank_)));
      RETURN_IF_ERROR(CheckExpected());
    }
    if (payload_ == nullptr) payload_ = FindPlace();
    if (payload_ == nullptr) return absl::OkStatus();
    if (payload_read_ < header_.payload_bytes) {
      const size_t read = Read(payload_ + payload_read_, header_.payload_bytes - payload_read_);
      if (read == 0) return absl::OkStatus();
      payload_read_ += read;
      if (payload_read_ < header_.payload_bytes) continue;
    }
    RETURN_IF_ERROR(Annotate(CheckPayload(header_, {payload_, payload_read_}), absl::StrCat("from rank ", rank_)));
    Deliver();
    header_read_ = payload_read_ = 0;
    payload_ = nullptr;
  }
  return absl::OkStatus();
}

absl::Status RemotePeer::CheckExpected() const {
  const size_t element = SizeOf(layout_.element);
  bool expected = false;
  switch (header_.type) {
    case FrameType::kSums:
      expected = header_.sequence == sums_received_ && header_.payload_bytes == subtrees_ * MyChunk(header_.sequence).count * element;
      break;
    case FrameType::kResult:
      expected = header_.sequence == results_received_ && header_.sequence < sums_sent_ &&
                 header_.payload_bytes == PeerChunk(header_.sequence).count * element;
      break;
    case FrameType::kVerdict:
    case FrameType::kVerdictOnly: expected = header_.sequence == verdicts_received_ && header_.payload_bytes <= kMaxVerdictBytes; break;
    case FrameType::kGiveUp: expected = header_.payload_bytes <= kMaxGiveUpBytes; break;
    case FrameType::kAlive: expected = header_.payload_bytes == 0; break;
  }
  if (expected) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("from rank ", rank_, ": ", Describe(header_), " is not what comes next"));
}

std::byte* RemotePeer::FindPlace() {
  switch (header_.type) {
    case FrameType::kSums: return header_.sequence < sums_used_ + kWindow ? Buffer(header_.sequence) : nullptr;
    case FrameType::kResult: return vector_ + PeerChunk(header_.sequence).offset * SizeOf(layout_.element);
    case FrameType::kVerdict:
    case FrameType::kVerdictOnly:
      if (verdict_.has_value()) return nullptr;
      break;
    case FrameType::kGiveUp:
    case FrameType::kAlive: break;
  }
  text_.resize(std::max<size_t>(header_.payload_bytes, 1));
  return reinterpret_cast<std::byte*>(text_.data());
}

void RemotePeer::Deliver() {
  switch (header_.type) {
    case FrameType::kSums: ++sums_received_; break;
    case FrameType::kResult: ++results_received_; break;
    case FrameType::kVerdict:
    case FrameType::kVerdictOnly:
      verdict_ = PostedVerdict{text_.substr(0, header_.payload_bytes), header_.type == FrameType::kVerdict};
      ++verdicts_received_;
      break;
    case FrameType::kGiveUp:
      last_word_ = text_.substr(0, header_.payload_bytes);
      closed_ = true;
      outgoing_.clear();
      break;
    case FrameType::kAlive: break;
  }
}

void RemotePeer::GiveUp(const std::string& why) {
  const bool between_frames = outgoing_.empty() || outgoing_.front().sent == 0;
  if (!closed_ && between_frames) {
    outgoing_.clear();
    const std::string text = why.substr(0, kMaxGiveUpBytes);
    Send(FrameType::kGiveUp, 0, {std::as_bytes(std::span(text))});
    SendSome().IgnoreError();
  }
  outgoing_.clear();
  closed_ = true;
  shutdown(socket_.get(), SHUT_RDWR);
}

}  // namespace lockstep::allreduce
