// Collectives of ranks that share memory. Every ordered pair of ranks has a channel: a ring of slots that the
// sender fills and the receiver empties, so memory is bounded whatever the message, and pieces stay in cache.
//
// Reductions move least: of a piece that P ranks reduce, each owns a P-th. It gets the peers' values of its
// own part, adds them to its own where they lie, and hands the sums out. Sums are binary trees over ranks,
// ((0+1)+(2+3))+..., which is ReduceOrder::fixed_tree for powers of two and a fixed order for all others.
//
// Messages of a pair arrive in the order they were sent; so all ranks enter the same calls in the same order.
// A rank that waits spins shortly, then yields its core: there may be more ranks than cores.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "comm/steps.h"
#include <ziggurat/comm/communicator.h>

namespace ziggurat::comm {

class SharedChannels {
 public:
  using Bytes = std::span<std::byte>;
  using ConstBytes = std::span<const std::byte>;

  // The slots' size in a group: `wanted`, or what bounds a rank's memory to a few MiB.
  static int64_t slot_bytes(int ranks, int64_t wanted);
  // Memory that each of `ranks` ranks provides: zeros at first, 64-byte aligned.
  static int64_t segment_bytes(int ranks, int64_t slot_bytes);

  // segments[r]: rank r's memory as this rank sees it; it must outlive this object. `slot_bytes` is a
  // multiple of 64. `idle` is called now and then while this rank waits.
  SharedChannels(std::vector<std::byte*> segments, int rank, int64_t slot_bytes, std::function<void()> idle);

  // The calls throw Error(communication), which names `where`, if a peer sends another number of bytes than
  // this rank expects; the channels are of no use then.

  // buffer = op over ranks of buffer: equally long everywhere.
  void all_reduce(Bytes buffer, DType dtype, ReduceOp op, const std::string& where);
  // output = this rank's block of the sum of the inputs; output may be that block of input.
  void reduce_scatter(ConstBytes input, Bytes output, DType dtype, const std::string& where);
  // The same, which give way instead of waiting. Until they are done no other call may be made.
  Steps all_reduce_in_steps(Bytes buffer, DType dtype, ReduceOp op, std::string where);
  Steps reduce_scatter_in_steps(ConstBytes input, Bytes output, DType dtype, std::string where);
  Steps exchange_in_steps(std::vector<ConstBytes> send, std::vector<Bytes> receive, std::string where);
  void finish(Steps& steps) const;  // waits
  uint64_t messages() const;        // moved by this rank so far
  // send[r] goes to rank r, receive[r] comes from it. Empty entries, and this rank's own, move nothing.
  void exchange(const std::vector<ConstBytes>& send, const std::vector<Bytes>& receive,
                const std::string& where);

 private:
  struct Channel;  // control block of a pair, in shared memory

  int size() const { return static_cast<int>(segments_.size()); }
  Channel& channel(int from, int to) const;
  std::byte* slot(int from, int to, uint64_t message) const;
  bool can_push(int to) const;
  bool can_pull(int from) const;
  bool can_pull_from_all() const;
  void push(int to, ConstBytes data, int64_t total);
  ConstBytes front(int from, int64_t bytes, int64_t total, const std::string& where) const;
  void release(int from);
  template <class Ready>
  void wait_until(const Ready& ready) const;
  void reduce_fronts(ConstBytes mine, Bytes out, int64_t total, DType dtype, ReduceOp op,
                     const std::string& where);

  std::vector<std::byte*> segments_;
  int rank_;
  int64_t slot_bytes_;
  std::function<void()> idle_;
  std::vector<uint64_t> pushed_, pulled_;  // messages to and from each rank so far
};

}  // namespace ziggurat::comm
