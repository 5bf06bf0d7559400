// Communicator: collectives over a group of ranks. One contract, tested on every implementation (tests/comm).
//
// Contract
// - Every rank of the group calls the same collectives in the same order with the same counts, also with zero
//   rows.
// - A call returns at once or after the exchange; buffers may be touched again after Work::wait(). A Work
// must
//   not outlive its communicator.
// - On a group of one, and on Device::meta, a collective moves what must be moved locally and sends nothing.
// - Counts are int64; an implementation chunks what exceeds its library's limits.
// - Wrong shapes or dtypes throw Error(argument) before anything is sent. A failed exchange throws
//   Error(communication). Both name the collective, its number and size, the group and the rank.
#pragma once

#include <cstddef>
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

// Handle of a collective under way. Waiting twice is allowed; the destructor waits, and a failure that only
// shows there is logged, not thrown: call wait() to learn of it.
class Work {
 public:
  Work() = default;  // already done
  explicit Work(std::function<void()> wait) : wait_(std::move(wait)) {}
  Work(Work&& other) noexcept : wait_(std::exchange(other.wait_, nullptr)) {}
  Work& operator=(Work&& other) noexcept;  // first waits for what it held
  ~Work();
  void wait();

 private:
  void wait_without_throwing() noexcept;
  std::function<void()> wait_;
};

// One collective as error messages and flight recorders name it.
struct Collective {
  int64_t sequence = 0;  // 1 for the first collective of this group
  const char* name = "none";
  int64_t bytes = 0;  // of this rank's input
  bool operator==(const Collective&) const = default;
};

// Bytes per message of a reduction: larger ones fall out of the L2 cache, and Open MPI's all-reduce of a
// large buffer runs at a third of the speed of one cut into 1 MiB pieces (measured, 64 MiB on 2 ranks).
inline constexpr int64_t kReduceChunkBytes = int64_t{1} << 20;

// The public calls check their arguments, handle groups of one and Device::meta, and number the collective;
// an implementation supplies the primitives at the end of the class.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& name() const { return name_; }
  const Collective& last_collective() const { return last_; }

  // Ranks with equal `color` (>= 0) form a group, ordered by (key, rank). Collective over this group.
  std::unique_ptr<Communicator> split(int color, int key, const std::string& name);

  void barrier();

  // Any dtype.
  Work broadcast(const Tensor& buffer, int root, Stream& stream);

  // buffer = op over ranks of buffer, in place: the same bits on every rank. f32, f64 or i32.
  Work all_reduce(const Tensor& buffer, ReduceOp op, ReduceOrder order, Stream& stream);

  // output [size * n, ...] = the inputs [n, ...] of rank 0, 1, ...; any dtype.
  // In place: input may be this rank's block of output.
  Work all_gather(const Tensor& input, const Tensor& output, Stream& stream);

  // output [n, ...] = this rank's rows of the sum over ranks of input [size * n, ...]. f32, f64 or i32.
  // Input is not changed, unless in place: output may be this rank's block of input.
  Work reduce_scatter(const Tensor& input, const Tensor& output, ReduceOrder order, Stream& stream);

  // input and output [size * n, ...]: rows of block r go to rank r. Any dtype. Not in place.
  Work all_to_all(const Tensor& input, const Tensor& output, Stream& stream);

  // As all_to_all with send_rows[r] rows of input for rank r, and recv_rows[r] rows from rank r, both in rank
  // order. Input and output may have more rows than their sums: the rest is neither read nor written.
  Work all_to_all_v(const Tensor& input, std::span<const int64_t> send_rows, const Tensor& output,
                    std::span<const int64_t> recv_rows, Stream& stream);

  // Strings of every rank, in rank order: for set-up, manifests and error reports, not for speed.
  std::vector<std::string> all_gather_text(const std::string& text);

 protected:
  using Bytes = std::span<std::byte>;
  using ConstBytes = std::span<const std::byte>;

  Communicator(std::string name, int rank, int size, int64_t reduce_chunk_bytes = kReduceChunkBytes);

  // "[all_reduce #12 of 4096 bytes on 'world', rank 1 of 4]", the collective under way.
  std::string where() const;
  int64_t reduce_chunk_bytes() const { return reduce_chunk_bytes_; }

  // Reductions of whole buffers, in pieces through the primitives below. An implementation with a faster way
  // goes it, and comes here for the rest.
  virtual void reduce_all(Bytes buffer, DType dtype, ReduceOp op, ReduceOrder order);
  // output = this rank's block of the sum; in the order of fixed_tree, if the group is a power of two.
  virtual void reduce_blocks(ConstBytes input, Bytes output, DType dtype);

 private:
  // Primitives: called on groups of two and more, on checked host memory. Bytes may be none, everywhere or
  // here.
  virtual std::unique_ptr<Communicator> do_split(int color, int key, const std::string& name) = 0;
  virtual void do_barrier() = 0;
  virtual void do_broadcast(Bytes buffer, int root) = 0;
  // Any order, the same bits on every rank; at most reduce_chunk_bytes.
  virtual void do_all_reduce(Bytes buffer, DType dtype, ReduceOp op) = 0;
  virtual void do_all_gather(ConstBytes input, Bytes output) = 0;  // input may be this rank's block of output
  // Counts in bytes per rank.
  virtual Work do_all_to_all_v(ConstBytes input, const std::vector<int64_t>& send, Bytes output,
                               const std::vector<int64_t>& receive) = 0;
  // Both ways with `partner`, who does the same; every rank of the group is in such a pair at this time.
  virtual void do_exchange(int partner, ConstBytes send, Bytes receive) = 0;

  bool begin(const char* name, const Tensor& input, const Tensor& output);
  void begin(const char* name, int64_t bytes) { last_ = {last_.sequence + 1, name, bytes}; }
  void check_reducible(const Tensor& buffer, ReduceOrder order) const;
  void tree_all_reduce(Bytes buffer, DType dtype);
  void tree_reduce_scatter(ConstBytes input, Bytes output, DType dtype);
  void gathered_reduce_scatter(ConstBytes input, Bytes output, DType dtype);
  Bytes scratch(int64_t bytes);

  std::string name_;
  int rank_, size_;
  int64_t reduce_chunk_bytes_;
  Collective last_;
  std::vector<std::byte> scratch_;
};

// A group of this process alone.
std::unique_ptr<Communicator> make_self_communicator();

// Claims to be `rank` of `size`, for planning a layout without its ranks: tensors on Device::meta pass, data
// throws Error(internal).
std::unique_ptr<Communicator> make_planning_communicator(const std::string& name, int rank, int size);

}  // namespace ziggurat
