#include "comm/shared_channels.h"

#include <algorithm>
#include <numeric>

#include <immintrin.h>
#include <sched.h>

#include "comm/host_bytes.h"

namespace ziggurat::comm {

namespace {

constexpr int64_t kLine = 64;  // bytes of a cache line
// Of a channel. Two would keep the sender from waiting for the receiver; an all-reduce sends two messages a
// round and looks one round ahead.
constexpr uint64_t kSlots = 4;
constexpr int64_t kSegmentBytes = int64_t{1} << 22;  // of a rank, at most
constexpr int kSpins = 200;        // some microseconds: what a peer on another core needs to answer
constexpr int kYieldsPerIdle = 8;  // idle() costs more than a yield

int64_t piece_of(int64_t bytes, int ranks) { return (bytes + ranks * kLine - 1) / (ranks * kLine) * kLine; }

// Rank r's part of a segment of `bytes` shared evenly, in whole cache lines: {begin, length}.
std::pair<int64_t, int64_t> part(int64_t bytes, int ranks, int r) {
  const int64_t piece = piece_of(bytes, ranks);
  const int64_t begin = std::min(r * piece, bytes);
  return {begin, std::min(piece, bytes - begin)};
}

// Of a channel in its sender's segment: there is none to the sender itself.
int place(int from, int to) { return to < from ? to : to - 1; }

}  // namespace

// `written` and `read` count messages; message m lies in slot m % kSlots.
struct SharedChannels::Channel {
  alignas(kLine) std::atomic<uint64_t> written;
  int64_t totals[kSlots];  // bytes of the whole transfer that the slot's piece belongs to
  alignas(kLine) std::atomic<uint64_t> read;
};

int64_t SharedChannels::slot_bytes(int ranks, int64_t wanted) {
  const int64_t bound = kSegmentBytes / ((ranks - 1) * static_cast<int64_t>(kSlots)) / kLine * kLine;
  return std::min(wanted, std::max(bound, kLine));
}

int64_t SharedChannels::segment_bytes(int ranks, int64_t slot_bytes) {
  return (ranks - 1) * (static_cast<int64_t>(sizeof(Channel)) + static_cast<int64_t>(kSlots) * slot_bytes);
}

SharedChannels::SharedChannels(std::vector<std::byte*> segments, int rank, int64_t slot_bytes,
                               std::function<void()> idle)
    : segments_(std::move(segments)),
      rank_(rank),
      slot_bytes_(slot_bytes),
      idle_(std::move(idle)),
      pushed_(segments_.size(), 0),
      pulled_(segments_.size(), 0) {
  static_assert(std::atomic<uint64_t>::is_always_lock_free);
  check(slot_bytes > 0 && slot_bytes % kLine == 0, ErrorKind::internal,
        "[shared channels] a slot must be a positive multiple of {} bytes, got {}", kLine, slot_bytes);
}

SharedChannels::Channel& SharedChannels::channel(int from, int to) const {
  return reinterpret_cast<Channel*>(segments_[static_cast<size_t>(from)])[place(from, to)];
}

std::byte* SharedChannels::slot(int from, int to, uint64_t message) const {
  const auto slots = static_cast<int64_t>(kSlots);
  return segments_[static_cast<size_t>(from)] + (size() - 1) * static_cast<int64_t>(sizeof(Channel)) +
         (place(from, to) * slots + static_cast<int64_t>(message % kSlots)) * slot_bytes_;
}

bool SharedChannels::can_push(int to) const {
  return pushed_[static_cast<size_t>(to)] - channel(rank_, to).read.load(std::memory_order_acquire) < kSlots;
}

bool SharedChannels::can_pull(int from) const {
  return channel(from, rank_).written.load(std::memory_order_acquire) > pulled_[static_cast<size_t>(from)];
}

bool SharedChannels::can_pull_from_all() const {
  for (int r = 0; r < size(); ++r) {
    if (r != rank_ && !can_pull(r)) return false;
  }
  return true;
}

uint64_t SharedChannels::messages() const {
  return std::accumulate(pushed_.begin(), pushed_.end(), uint64_t{0}) +
         std::accumulate(pulled_.begin(), pulled_.end(), uint64_t{0});
}

template <class Ready>
void SharedChannels::wait_until(const Ready& ready) const {
  for (int i = 0; i < kSpins; ++i) {
    if (ready()) return;
    _mm_pause();
  }
  for (int i = 0; !ready(); ++i) {
    if (i % kYieldsPerIdle == 0) idle_();
    sched_yield();
  }
}

void SharedChannels::push(int to, ConstBytes data, int64_t total) {
  wait_until([&] { return can_push(to); });
  uint64_t& message = pushed_[static_cast<size_t>(to)];
  std::memcpy(slot(rank_, to, message), data.data(), data.size());
  Channel& c = channel(rank_, to);
  c.totals[message % kSlots] = total;
  c.written.store(++message, std::memory_order_release);
}

// The oldest message from a rank, where it lies.
SharedChannels::ConstBytes SharedChannels::front(int from, int64_t bytes, int64_t total,
                                                 const std::string& where) const {
  wait_until([&] { return can_pull(from); });
  const uint64_t message = pulled_[static_cast<size_t>(from)];
  const int64_t sent = channel(from, rank_).totals[message % kSlots];
  check(sent == total, ErrorKind::communication, "{} expects {} bytes from rank {}, which sends {}", where,
        total, from, sent);
  return {slot(from, rank_, message), static_cast<size_t>(bytes)};
}

void SharedChannels::release(int from) {
  channel(from, rank_).read.store(++pulled_[static_cast<size_t>(from)], std::memory_order_release);
}

// out = op over ranks of their oldest messages and of `mine`, in this rank's place.
void SharedChannels::reduce_fronts(ConstBytes mine, Bytes out, int64_t total, DType dtype, ReduceOp op,
                                   const std::string& where) {
  std::vector<ConstBytes> values;
  for (int r = 0; r < size(); ++r) {
    values.push_back(r == rank_ ? mine : front(r, static_cast<int64_t>(out.size()), total, where));
  }
  reduce_tree(out, values, dtype, op);
  for (int r = 0; r < size(); ++r) {
    if (r != rank_) release(r);
  }
}

// In rounds of a slot per rank. A round's sums are handed out one round later, after the next round's values:
// so nobody waits for sums that a peer is just computing.
Steps SharedChannels::all_reduce_in_steps(Bytes buffer, DType dtype, ReduceOp op, std::string where) {
  const auto total = static_cast<int64_t>(buffer.size());
  const int64_t round_bytes = size() * slot_bytes_, rounds = (total + round_bytes - 1) / round_bytes;
  const auto part_of = [&](int64_t round, int r) {
    const int64_t begin = round * round_bytes, length = std::min(round_bytes, total - begin);
    const auto [at, n] = part(length, size(), r);
    return slice(buffer, begin + at, n);
  };
  const auto peer = [&](int i) { return (rank_ + i) % size(); };  // starting with the right neighbour
  for (int64_t round = 0; round <= rounds; ++round) {
    for (int i = 1; i < size() && round < rounds; ++i) {
      const Bytes values = part_of(round, peer(i));
      if (values.empty()) continue;
      while (!can_push(peer(i))) co_await Steps::give_way();
      push(peer(i), values, total);
    }
    const Bytes sums = round > 0 ? part_of(round - 1, rank_) : Bytes();
    for (int i = 1; i < size() && !sums.empty(); ++i) {
      while (!can_push(peer(i))) co_await Steps::give_way();
      push(peer(i), sums, total);
    }
    if (round < rounds) {
      const Bytes mine = part_of(round, rank_);
      while (!mine.empty() && !can_pull_from_all()) co_await Steps::give_way();
      if (!mine.empty()) reduce_fronts(mine, mine, total, dtype, op, where);
    }
    for (int i = 1; i < size() && round > 0; ++i) {
      const Bytes theirs = part_of(round - 1, peer(i));
      if (theirs.empty()) continue;
      while (!can_pull(peer(i))) co_await Steps::give_way();
      copy_bytes(front(peer(i), static_cast<int64_t>(theirs.size()), total, where), theirs);
      release(peer(i));
    }
  }
}

// Values are sent one chunk ahead of the sums.
Steps SharedChannels::reduce_scatter_in_steps(ConstBytes input, Bytes output, DType dtype,
                                              std::string where) {
  const auto block_bytes = static_cast<int64_t>(output.size());
  int64_t sent = 0;
  for (int64_t begin = 0; begin < block_bytes; begin += slot_bytes_) {
    const int64_t ahead = std::min(begin + 2 * slot_bytes_, block_bytes);
    for (; sent < ahead; sent += slot_bytes_) {
      const int64_t n = std::min(slot_bytes_, block_bytes - sent);
      for (int i = 1; i < size(); ++i) {
        const int r = (rank_ + i) % size();
        while (!can_push(r)) co_await Steps::give_way();
        push(r, slice(input, r * block_bytes + sent, n), block_bytes);
      }
    }
    const int64_t n = std::min(slot_bytes_, block_bytes - begin);
    while (!can_pull_from_all()) co_await Steps::give_way();
    reduce_fronts(slice(input, rank_ * block_bytes + begin, n), slice(output, begin, n), block_bytes, dtype,
                  ReduceOp::sum, where);
  }
}

// Spins anew whenever something has moved.
void SharedChannels::finish(Steps& steps) const {
  for (bool done = false; !done;) {
    const uint64_t before = messages();
    wait_until([&] { return (done = steps.advance()) || messages() != before; });
  }
}

void SharedChannels::all_reduce(Bytes buffer, DType dtype, ReduceOp op, const std::string& where) {
  Steps steps = all_reduce_in_steps(buffer, dtype, op, where);
  finish(steps);
}

void SharedChannels::reduce_scatter(ConstBytes input, Bytes output, DType dtype, const std::string& where) {
  Steps steps = reduce_scatter_in_steps(input, output, dtype, where);
  finish(steps);
}

Steps SharedChannels::exchange_in_steps(std::vector<ConstBytes> send, std::vector<Bytes> receive,
                                        std::string where) {
  std::vector<int64_t> sent(segments_.size(), 0), received(segments_.size(), 0);
  for (bool done = false; !done;) {
    done = true;
    bool moved = false;
    for (int i = 1; i < size(); ++i) {
      const int to = (rank_ + i) % size(), from = (rank_ + size() - i) % size();
      const ConstBytes out = send[static_cast<size_t>(to)];
      int64_t& out_at = sent[static_cast<size_t>(to)];
      const auto out_bytes = static_cast<int64_t>(out.size());
      if (out_at < out_bytes && can_push(to)) {
        const int64_t n = std::min(slot_bytes_, out_bytes - out_at);
        push(to, slice(out, out_at, n), out_bytes);
        out_at += n, moved = true;
      }
      const Bytes in = receive[static_cast<size_t>(from)];
      int64_t& in_at = received[static_cast<size_t>(from)];
      const auto in_bytes = static_cast<int64_t>(in.size());
      if (in_at < in_bytes && can_pull(from)) {
        const int64_t n = std::min(slot_bytes_, in_bytes - in_at);
        copy_bytes(front(from, n, in_bytes, where), slice(in, in_at, n));
        release(from);
        in_at += n, moved = true;
      }
      if (out_at < out_bytes || in_at < in_bytes) done = false;
    }
    if (!done && !moved) co_await Steps::give_way();
  }
}

void SharedChannels::exchange(const std::vector<ConstBytes>& send, const std::vector<Bytes>& receive,
                              const std::string& where) {
  Steps steps = exchange_in_steps(send, receive, where);
  finish(steps);
}

}  // namespace ziggurat::comm
