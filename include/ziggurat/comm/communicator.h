// Communicator: collectives over a group of ranks. One contract, tested on every implementation (tests/comm).
//
// Contract
// - Every rank of the group calls the same collectives in the same order with the same counts, also with zero
//   rows.
// - A call returns at once or after the exchange; buffers may be touched again after Work::wait(). A Work
// must
//   not outlive its communicator.
// - On a group of one, and on a meta device, a collective moves what must be moved locally and sends nothing.
// - Tensors lie on the host or on a device. On a device the collective comes after what the stream, one of
//   that device, was given before, and what it is given later finds the results; another stream, or the host,
//   has to wait for it. After use_devices() the devices exchange by themselves, and nobody waits. Before, and
//   in the order fixed_tree, which no library of theirs promises, the tensors of groups of two and more pass
//   through pinned memory of the host, which waits for the stream.
// - Counts are int64; an implementation chunks what exceeds its library's limits.
// - Wrong shapes or dtypes throw Error(argument) before anything is sent. A failed exchange throws
//   Error(communication). Both name the collective, its number and size, the group and the rank.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ziggurat/runtime/backend.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/device_group.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

enum class ReduceOp { sum, max };

// The order in which the ranks' values of a sum are added.
//   any         the library's choice: same bits on every run of the same layout
//   fixed_tree  the binary tree over ranks ((0+1)+(2+3))+...: equals the local tree over the same values, so
//   the
//               bits do not depend on how many ranks hold them. Needs a power-of-two group.
enum class ReduceOrder { any, fixed_tree };

// How an all-to-all of P ranks on nodes of G goes: to every rank at once, in P - 1 messages a rank, or inside
// the node first and then between nodes, in 2 (G - 1) + P / G - 1 messages, which move every byte twice
// (arXiv 2201.05596, section 5). Automatic: by nodes where blocks are so small that messages cost more than
// bytes. The result is the same to the bit.
enum class AllToAll { automatic, flat, hierarchical };

// Where a rank runs, and how its groups make use of it: all but `node` is the same on every rank.
struct NodeOptions {
  int node = 0;  // any number >= 0: ranks with the same one exchange faster than others
  AllToAll all_to_all = AllToAll::automatic;
  // Sums and gathers of so many bytes and more go by nodes too; less has more to lose by three collectives'
  // latency than to gain.
  int64_t sums_from = int64_t{1} << 16;
};

// What a rank sent to others in all-to-alls. A message is a block that is not empty, or a stage's.
struct Traffic {
  int64_t messages = 0, bytes = 0;
  bool operator==(const Traffic&) const = default;
};
struct TrafficByLevel {
  Traffic inside, between;  // nodes; all of it is inside where nobody told of nodes
  bool operator==(const TrafficByLevel&) const = default;
};

// Handle of a collective under way. Waiting twice is allowed; the destructor waits, and a failure that only
// shows there is logged, not thrown: call wait() to learn of it. While an error unwinds, nobody waits for
// peers that may never come: what has begun in memory is given up, and its communicator of no more use.
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

// What this rank's collectives of one name and group have taken so far.
struct CollectiveTime {
  int64_t calls = 0, bytes = 0;    // of this rank's input
  double exposed = 0, hidden = 0;  // seconds: of the thread that computes; and beside it
};
// By "all_reduce on dp".
using CollectiveTimes = std::map<std::string, CollectiveTime>;

class BegunCollective;
namespace comm {
class Background;
enum class Moved : uint8_t;
}  // namespace comm

// The public calls check their arguments, handle groups of one, meta devices and the memory of others, and
// number the collective; an implementation supplies the primitives at the end of the class.
class Communicator {
 public:
  virtual ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& name() const { return name_; }
  const Collective& last_collective() const { return last_; }

  // Ranks with equal `color` (>= 0) form a group, ordered by (key, rank). Collective over this group.
  std::unique_ptr<Communicator> split(int color, int key, const std::string& name);

  // From now on tensors of devices go from device to device, here and in groups that are split from this one
  // later. Collective, and each rank has chosen its device. Returns "", or why all stays as it was: ranks
  // share a device, or a rank's build has no library for it.
  std::string use_devices();

  bool devices_exchange() const { return devices_ != nullptr; }

  // From now on collectives on the host's memory may go by nodes, here and in groups that are split from this
  // one later, if every node holds equally many ranks of the group, and at least two; others stay flat, which
  // the log says. Devices that exchange by themselves find their nodes by themselves. Collective. Throws
  // Error(communication) if the ranks' options differ.
  void use_nodes(const NodeOptions& options);

  int nodes() const { return nodes_; }  // that this group goes by; 1: all is flat
  const TrafficByLevel& traffic() const { return traffic_; }

  // Before the host waits for the stream, or copies from it what devices exchanged: returns when its work is
  // done, or at once where devices exchange nothing. A collective that failed on the devices, of any group
  // that goes back to the same use_devices(), is Error(communication), where its stream would be waited for
  // for ever. After that no device tensor can be exchanged.
  void watch(Stream& stream);

  // Of this communicator and all that are split from it, or share its origin.
  CollectiveTimes& times() { return *times_; }

  void barrier();

  // Any dtype.
  Work broadcast(const Tensor& buffer, int root, Stream& stream);

  // The same of the host's memory, for what may be long in coming: who waits for it gives its core to others
  // after a millisecond, and hears of it a millisecond late at most.
  void await_broadcast(const Tensor& buffer, int root, Stream& stream);

  // buffer = op over ranks of buffer, in place: the same bits on every rank. f32, f64 or i32.
  Work all_reduce(const Tensor& buffer, ReduceOp op, ReduceOrder order, Stream& stream);

  // output [size * n, ...] = the inputs [n, ...] of rank 0, 1, ...; any dtype.
  // In place: input may be this rank's block of output.
  Work all_gather(const Tensor& input, const Tensor& output, Stream& stream);

  // output [n, ...] = this rank's rows of the sum over ranks of input [size * n, ...]. f32, f64 or i32.
  // Input is not changed, unless in place: output may be this rank's block of input.
  Work reduce_scatter(const Tensor& input, const Tensor& output, ReduceOrder order, Stream& stream);

  // all_reduce (of sums), reduce_scatter and all_gather that only begin, where ranks share memory or MPI goes
  // on by itself; else they are done at once. In shared memory a communication thread moves them on until
  // their Work is waited for, MPI's move in progress(). The buffers are not to be touched before. Any other
  // call on this communicator first waits for all that have begun, but small ones that go another way.
  // Sums between devices that exchange by themselves go on beside `stream`, on one of their own; waiting for
  // the Work holds what `stream` is given after that, and not the host. The stream outlives it.
  Work begin_all_reduce(const Tensor& buffer, ReduceOrder order, Stream& stream);
  Work begin_reduce_scatter(const Tensor& input, const Tensor& output, ReduceOrder order, Stream& stream);
  Work begin_all_gather(const Tensor& input, const Tensor& output, Stream& stream);
  // Moves what has begun as far as it goes without waiting for anybody.
  void progress();

  // input and output [size * n, ...]: rows of block r go to rank r. Any dtype. Not in place.
  Work all_to_all(const Tensor& input, const Tensor& output, Stream& stream);

  // As all_to_all with send_rows[r] rows of input for rank r, and recv_rows[r] rows from rank r, both in rank
  // order. Input and output may have more rows than their sums: the rest is neither read nor written.
  Work all_to_all_v(const Tensor& input, std::span<const int64_t> send_rows, const Tensor& output,
                    std::span<const int64_t> recv_rows, Stream& stream);
  // The same, begun: on devices as begin_all_reduce, on the host as far as the implementation goes by itself.
  Work begin_all_to_all_v(const Tensor& input, std::span<const int64_t> send_rows, const Tensor& output,
                          std::span<const int64_t> recv_rows, Stream& stream);

  // Strings of every rank, in rank order: for set-up, manifests and error reports, not for speed.
  std::vector<std::string> all_gather_text(const std::string& text);

 protected:
  using Bytes = std::span<std::byte>;
  using ConstBytes = std::span<const std::byte>;

  Communicator(std::string name, int rank, int size, int64_t reduce_chunk_bytes = kReduceChunkBytes);
  void use_background();  // here and in groups that are split from this one later

  // "[all_reduce #12 of 4096 bytes on 'world', rank 1 of 4]", the collective under way.
  std::string where() const;
  int64_t reduce_chunk_bytes() const { return reduce_chunk_bytes_; }

  // Reductions of whole buffers, in pieces through the primitives below. An implementation with a faster way
  // goes it, and comes here for the rest.
  virtual void reduce_all(Bytes buffer, DType dtype, ReduceOp op, ReduceOrder order);
  // output = this rank's block of the sum; in the order of fixed_tree, if the group is a power of two.
  virtual void reduce_blocks(ConstBytes input, Bytes output, DType dtype);
  // The same, begun; null: there is no such way here.
  virtual std::unique_ptr<BegunCollective> begin_reduce_all(Bytes buffer, DType dtype, ReduceOrder order);
  virtual std::unique_ptr<BegunCollective> begin_reduce_blocks(ConstBytes input, Bytes output, DType dtype,
                                                               ReduceOrder order);
  virtual std::unique_ptr<BegunCollective> begin_gather(ConstBytes input, Bytes output);
  // Whether collectives of so many bytes on every rank go another way than those that any thread moves.
  virtual bool passes_begun(int64_t) const { return false; }
  // From now on nobody moves anything on: for the destructors of implementations.
  void leave_background();

 private:
  // Primitives: called on groups of two and more, on checked host memory. Bytes may be none, everywhere or
  // here.
  virtual std::unique_ptr<Communicator> do_split(int color, int key, const std::string& name) = 0;
  virtual void do_barrier() = 0;
  virtual void do_broadcast(Bytes buffer, int root) = 0;
  virtual void do_await_broadcast(Bytes buffer, int root) { do_broadcast(buffer, root); }
  // Any order, the same bits on every rank; at most reduce_chunk_bytes.
  virtual void do_all_reduce(Bytes buffer, DType dtype, ReduceOp op) = 0;
  virtual void do_all_gather(ConstBytes input, Bytes output) = 0;  // input may be this rank's block of output
  // Counts in bytes per rank; one and the same vector where all blocks are equal, on every rank.
  virtual Work do_all_to_all_v(ConstBytes input, const std::vector<int64_t>& send, Bytes output,
                               const std::vector<int64_t>& receive) = 0;
  // Both ways with `partner`, who does the same; every rank of the group is in such a pair at this time.
  virtual void do_exchange(int partner, ConstBytes send, Bytes receive) = 0;

  // alike: all ranks' inputs have as many bytes.
  bool begin(const char* name, const Tensor& input, const Tensor& output, const Stream& stream,
             bool alike = false);
  void begin(const char* name, int64_t bytes, bool alike = false) {
    if (!begun_.empty() && !(alike && passes_all_begun(bytes))) {
      finish_begun(begun_before_ + static_cast<int64_t>(begun_.size()));
    }
    last_ = {last_.sequence + 1, name, bytes};
  }
  struct Begun;
  class Turn;
  CollectiveTime& time();  // of the collective under way
  Work keep_begun(std::unique_ptr<BegunCollective> collective);
  void finish_begun(int64_t until);
  void end_first_begun();
  Begun* first_to_move();
  bool passes_all_begun(int64_t bytes) const;
  comm::Moved move_in_background();
  void check_reducible(const Tensor& buffer, ReduceOrder order) const;
  void check_scatter(const Tensor& input, const Tensor& output, ReduceOrder order) const;
  void check_alike(const Tensor& input, const Tensor& output) const;
  void check_gather(const Tensor& input, const Tensor& output) const;
  void tree_all_reduce(Bytes buffer, DType dtype);
  void tree_reduce_scatter(ConstBytes input, Bytes output, DType dtype);
  void gathered_reduce_scatter(ConstBytes input, Bytes output, DType dtype);
  Bytes scratch(int64_t bytes);
  Work exchange_rows(const Tensor& input, std::span<const int64_t> send_rows, const Tensor& output,
                     std::span<const int64_t> recv_rows, Stream& stream, bool begin_only);
  Work exchange_blocks(const Tensor& input, const std::vector<int64_t>& send, const Tensor& output,
                       const std::vector<int64_t>& receive, Stream& stream, bool begin_only = false);
  // The primitives on the host's memory, flat or by nodes.
  void reduce_on_host(Bytes buffer, DType dtype, ReduceOp op, ReduceOrder order);
  void reduce_blocks_on_host(ConstBytes input, Bytes output, DType dtype, ReduceOrder order);
  void gather_on_host(ConstBytes input, Bytes output);
  Work exchange_on_host(ConstBytes input, const std::vector<int64_t>& send, Bytes output,
                        const std::vector<int64_t>& receive);
  void count_flat(const std::vector<int64_t>& send);
  // By nodes (levels.cpp).
  struct Levels;
  void make_levels(const NodeOptions& options);
  bool sums_by_nodes(int64_t bytes, ReduceOrder order) const;
  bool exchanges_by_nodes(const std::vector<int64_t>& send, bool even);
  void begin_stage(Communicator& level, int64_t bytes) const;
  void exchange_stage(Communicator& level, Traffic& traffic, ConstBytes input,
                      const std::vector<int64_t>& send, Bytes output, const std::vector<int64_t>& receive);
  void levels_all_reduce(Bytes buffer, DType dtype, ReduceOrder order);
  void levels_reduce_scatter(ConstBytes input, Bytes output, DType dtype);
  void levels_all_gather(ConstBytes input, Bytes output);
  void levels_all_to_all_v(ConstBytes input, const std::vector<int64_t>& send, Bytes output,
                           const std::vector<int64_t>& receive);
  // The same as the public calls, for tensors of a device (staged_tensors.cpp).
  void staged_broadcast(const Tensor& buffer, int root, Stream& stream);
  void staged_all_reduce(const Tensor& buffer, ReduceOp op, ReduceOrder order, Stream& stream);
  void staged_all_gather(const Tensor& input, const Tensor& output, Stream& stream);
  void staged_reduce_scatter(const Tensor& input, const Tensor& output, ReduceOrder order, Stream& stream);
  void staged_all_to_all_v(const Tensor& input, const std::vector<int64_t>& send, const Tensor& output,
                           const std::vector<int64_t>& receive, Stream& stream);
  Bytes staging(Device device, int64_t bytes);
  // The same by the devices (device_tensors.cpp).
  bool goes_between_devices(ReduceOrder order = ReduceOrder::any, ReduceOp op = ReduceOp::sum) const;
  template <class Call>
  void between_devices(const Call& call);
  // The stream for a collective that goes on beside the one given, after what that has now; and what holds
  // the latter until it is done. What somebody is about to wait for is not queued behind sums of gradients.
  enum class Beside : uint8_t { sums, exchanges };
  Stream& beside(Stream& stream, Beside kind);
  Work done_beside(Stream& beside, Stream& stream);
  void leave_devices();
  void device_broadcast(const Tensor& buffer, int root, Stream& stream);
  void device_all_reduce(const Tensor& buffer, ReduceOp op, Stream& stream);
  void device_all_gather(const Tensor& input, const Tensor& output, Stream& stream);
  void device_reduce_scatter(const Tensor& input, const Tensor& output, Stream& stream);
  void device_all_to_all_v(const Tensor& input, const std::vector<int64_t>& send, const Tensor& output,
                           const std::vector<int64_t>& receive, Stream& stream);
  void make_device_group();

  std::string name_;
  int rank_, size_;
  std::shared_ptr<CollectiveTimes> times_ = std::make_shared<CollectiveTimes>();
  std::vector<std::pair<const char*, CollectiveTime*>> time_of_;  // by the collective's name
  // In their order: put in and taken out by the thread that computes alone. Who has the turn moves the first
  // that is not done.
  std::deque<std::unique_ptr<Begun>> begun_;
  int64_t begun_before_ = 0;                      // that have ended
  std::mutex list_, turn_;                        // of begun_; of what it holds
  std::atomic<bool> wants_turn_ = false;          // the thread that computes
  std::shared_ptr<comm::Background> background_;  // of all groups that share an origin
  int64_t reduce_chunk_bytes_;
  Collective last_;
  std::vector<std::byte> scratch_;
  std::unique_ptr<HostMemory> staging_;              // grows to the largest collective on a device's tensors
  std::vector<int64_t> send_bytes_, receive_bytes_;  // of the all-to-all that begins
  TrafficByLevel traffic_;
  std::optional<NodeOptions> node_options_;  // for groups split from here
  std::vector<int> node_of_;                 // 0, 1, ... by rank; empty: nobody told
  int nodes_ = 1;
  std::unique_ptr<Levels> levels_;  // null: all is flat
  struct Devices;
  std::shared_ptr<Devices> devices_;  // of all groups that go back to one use_devices(); null: not in use
  std::unique_ptr<DeviceGroup> device_group_;  // made when the first device tensor comes
};

// A group of this process alone.
std::unique_ptr<Communicator> make_self_communicator();

// Claims to be `rank` of `size`, for planning a layout without its ranks: tensors on meta devices pass, data
// throws Error(internal).
std::unique_ptr<Communicator> make_planning_communicator(const std::string& name, int rank, int size);

}  // namespace ziggurat
