#include "allreduce/local_peer.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

#include "allreduce/frame.h"

namespace lockstep::allreduce {
namespace {

// Packets: one byte to wake, or this byte and a text.
constexpr char kWake = 'w';
constexpr char kLastWord = 'g';

}  // namespace

LocalPeer::LocalPeer(int rank, size_t subtrees, FileDescriptor socket, RankMemory memory)
    : rank_(rank), subtrees_(subtrees), socket_(std::move(socket)), memory_(std::move(memory)) {}

void LocalPeer::Wake() {
  if (control().parked.load() == 0 || control().parked.exchange(0) == 0) return;
  // A full socket holds wake-ups enough, and a closed one shows when it is read.
  [[maybe_unused]] const ssize_t sent = send(socket_.get(), &kWake, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void LocalPeer::Pump() {
  std::array<char, 1 + kMaxGiveUpBytes> packet;
  while (!closed_) {
    const ssize_t received = recv(socket_.get(), packet.data(), packet.size(), MSG_DONTWAIT);
    if (received < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (received <= 0) {
      closed_ = true;
    } else if (packet[0] == kLastWord) {
      last_word_.assign(packet.data() + 1, static_cast<size_t>(received) - 1);
      closed_ = true;
    }
  }
}

void LocalPeer::GiveUp(const std::string& why) {
  if (!closed_) {
    const std::string packet = kLastWord + why.substr(0, kMaxGiveUpBytes);
    [[maybe_unused]] const ssize_t sent = send(socket_.get(), packet.data(), packet.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  closed_ = true;
  shutdown(socket_.get(), SHUT_RDWR);
}

}  // namespace lockstep::allreduce
