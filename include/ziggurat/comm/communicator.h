// Communicator: collectives over a group of ranks. One contract, tested on every implementation (tests/comm).
//
// Contract
// - Every rank of the group calls the same collectives in the same order with the same counts, also with zero
// rows.
// - A call returns at once or after the exchange; buffers may be touched again after Work::wait().
// - On a group of one, and on Device::meta, a collective moves what must be moved locally and sends nothing.
// - Counts are int64; an implementation chunks what exceeds its library's limits.
// - A failure throws Error(communication) naming the collective, its name and the group.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ziggurat/runtime/device.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

enum class ReduceOp { sum, max };

// The order in which the ranks' values of a sum are added.
//   any         the library's choice: same bits on every run of the same layout
//   fixed_tree  the binary tree over ranks ((0+1)+(2+3))+...: equals the local tree over the same values, so
//   the
//               bits do not depend on how many ranks hold them. Needs a power-of-two group.
enum class ReduceOrder { any, fixed_tree };

// Handle of a collective under way. Waiting twice is allowed; the destructor waits.
class Work {
 public:
  Work() = default;  // already done
  explicit Work(std::function<void()> wait) : wait_(std::move(wait)) {}
  Work(Work&& other) noexcept : wait_(std::exchange(other.wait_, nullptr)) {}
  Work& operator=(Work&& other) noexcept;
  ~Work();
  void wait();

 private:
  std::function<void()> wait_;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Ranks with equal `color` form a group, ordered by (key, rank). Collective over this group.
  virtual std::unique_ptr<Communicator> split(int color, int key, const std::string& name) = 0;

  virtual void barrier() = 0;

  virtual Work broadcast(const Tensor& buffer, int root, Stream& stream) = 0;

  // buffer = op over ranks of buffer, in place. f32, f64 or i32.
  virtual Work all_reduce(const Tensor& buffer, ReduceOp op, ReduceOrder order, Stream& stream) = 0;

  // output [size * n, ...] = the inputs [n, ...] of rank 0, 1, ...; any dtype.
  virtual Work all_gather(const Tensor& input, const Tensor& output, Stream& stream) = 0;

  // output [n, ...] = this rank's rows of the sum over ranks of input [size * n, ...]. f32 or f64.
  virtual Work reduce_scatter(const Tensor& input, const Tensor& output, ReduceOrder order,
                              Stream& stream) = 0;

  // input and output [size * n, ...]: rows of block r go to rank r. Any dtype.
  virtual Work all_to_all(const Tensor& input, const Tensor& output, Stream& stream) = 0;

  // As all_to_all with send_rows[r] rows of input for rank r, and recv_rows[r] rows from rank r, both in rank
  // order.
  virtual Work all_to_all_v(const Tensor& input, std::span<const int64_t> send_rows, const Tensor& output,
                            std::span<const int64_t> recv_rows, Stream& stream) = 0;

  // Strings of every rank, in rank order: for set-up, manifests and error reports, not for speed.
  virtual std::vector<std::string> all_gather_text(const std::string& text) = 0;
};

// A group of this process alone.
std::unique_ptr<Communicator> make_self_communicator();

}  // namespace ziggurat
