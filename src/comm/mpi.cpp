#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <thread>

#include <mpi.h>

#include "comm/begun.h"
#include "comm/host_bytes.h"
#include "comm/shared_channels.h"
#include "comm/shared_window.h"
#include <ziggurat/comm/mpi.h>

namespace ziggurat {
namespace {

using comm::copy_bytes;
using comm::for_each_chunk;
using comm::slice;

constexpr int kTag = 0;  // messages of one pair stay in order, and so do the collectives that send them

void check_mpi(int code, const std::string& where, const char* function) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  fail(ErrorKind::communication, "{} {}: {}", where, function, text.data());
}

MPI_Datatype mpi_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return MPI_FLOAT;
    case DType::f64:
      return MPI_DOUBLE;
    case DType::i32:
      return MPI_INT32_T;
    case DType::bf16:
      break;
  }
  fail(ErrorKind::internal, "[mpi] no reduction for {}", to_string(dtype));
}

struct Identity {
  int rank = 0, size = 0;
};

Identity identity_of(MPI_Comm comm) {
  Identity id;
  check_mpi(MPI_Comm_rank(comm, &id.rank), "[mpi]", "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm, &id.size), "[mpi]", "MPI_Comm_size");
  return id;
}

// A buffer's consecutive blocks, one of each rank.
template <class AnyBytes>
std::vector<AnyBytes> cut(AnyBytes buffer, const std::vector<int64_t>& sizes) {
  std::vector<AnyBytes> blocks;
  int64_t at = 0;
  for (const int64_t n : sizes) {
    blocks.push_back(slice(buffer, at, n));
    at += n;
  }
  return blocks;
}

class BegunInSharedMemory final : public BegunCollective {
 public:
  BegunInSharedMemory(const comm::SharedChannels& channels, comm::Steps steps)
      : channels_(channels), steps_(std::move(steps)) {}
  bool advance() override { return steps_.advance(); }
  void finish() override { channels_.finish(steps_); }
  bool by_any_thread() const override { return true; }  // its steps call nothing of MPI
  uint64_t messages() const override { return channels_.messages(); }

 private:
  const comm::SharedChannels& channels_;
  comm::Steps steps_;
};

// MPI moves it on in its own calls. What it computes lies in `result` if that is not empty, and goes to
// `output` in the end.
class BegunInMpi final : public BegunCollective {
 public:
  BegunInMpi(std::string where, std::vector<std::byte> result, std::span<std::byte> output)
      : where_(std::move(where)), result_(std::move(result)), output_(output) {}
  ~BegunInMpi() override = default;
  MPI_Request* request() { return &request_; }
  std::byte* result() { return result_.data(); }

  bool advance() override {
    int done = 0;
    check_mpi(MPI_Test(&request_, &done, MPI_STATUS_IGNORE), where_, "MPI_Test");
    if (done != 0) take_result();
    return done != 0;
  }
  void finish() override {
    check_mpi(MPI_Wait(&request_, MPI_STATUS_IGNORE), where_, "MPI_Wait");
    take_result();
  }

 private:
  void take_result() {
    if (!result_.empty()) copy_bytes(result_, output_);
  }
  std::string where_;
  std::vector<std::byte> result_;
  std::span<std::byte> output_;
  MPI_Request request_ = MPI_REQUEST_NULL;
};

class MpiCommunicator final : public Communicator {
 public:
  // Takes ownership of `comm`.
  MpiCommunicator(const std::string& group_name, MPI_Comm comm, Identity id, const MpiLimits& limits)
      : Communicator(group_name, id.rank, id.size, limits.reduce_bytes), comm_(comm), limits_(limits) {
    use_background();  // but groups that are split from others use theirs
    if (limits.shared_from == MpiLimits::kNever || size() == 1) return;
    const int64_t slot_bytes = comm::SharedChannels::slot_bytes(size(), limits.slot_bytes);
    window_ = comm::SharedWindow::create(comm_, comm::SharedChannels::segment_bytes(size(), slot_bytes));
    if (window_ == nullptr) return;
    channels_ = std::make_unique<comm::SharedChannels>(window_->segments(), rank(), slot_bytes,
                                                       [this] { let_mpi_progress(); });
  }

  ~MpiCommunicator() override {
    leave_background();
    window_.reset();
    int finalized = 0;
    MPI_Finalized(&finalized);
    // Freeing is collective: while an error unwinds, the peers may never come.
    if (finalized == 0 && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
  }

 private:
  struct Requests {
    std::vector<MPI_Request> handles;
    MPI_Request* add() { return &handles.emplace_back(MPI_REQUEST_NULL); }
  };

  void check_call(int code, const char* function) const {
    if (code != MPI_SUCCESS) check_mpi(code, where(), function);
  }

  // A peer may wait for a message that MPI cut into pieces, which only go out while we are in a call.
  void let_mpi_progress() const {
    int found = 0;
    check_call(MPI_Iprobe(MPI_ANY_SOURCE, kTag, comm_, &found, MPI_STATUS_IGNORE), "MPI_Iprobe");
  }

  bool through_shared_memory(int64_t bytes) const {
    return channels_ != nullptr && bytes >= limits_.shared_from;
  }
  bool moves_through_shared_memory(int64_t bytes) const {
    return through_shared_memory(bytes) && bytes < limits_.shared_moves_below;
  }

  void reduce_all(Bytes buffer, DType dtype, ReduceOp op, ReduceOrder order) override {
    if (!through_shared_memory(static_cast<int64_t>(buffer.size()))) {
      return Communicator::reduce_all(buffer, dtype, op, order);
    }
    channels_->all_reduce(buffer, dtype, op, where());
  }

  void reduce_blocks(ConstBytes input, Bytes output, DType dtype) override {
    if (!through_shared_memory(static_cast<int64_t>(input.size()))) {
      return Communicator::reduce_blocks(input, output, dtype);
    }
    channels_->reduce_scatter(input, output, dtype, where());
  }

  std::unique_ptr<BegunCollective> begin_reduce_all(Bytes buffer, DType dtype, ReduceOrder order) override {
    const auto bytes = static_cast<int64_t>(buffer.size());
    if (through_shared_memory(bytes)) {
      return std::make_unique<BegunInSharedMemory>(
          *channels_, channels_->all_reduce_in_steps(buffer, dtype, ReduceOp::sum, where()));
    }
    if (order == ReduceOrder::fixed_tree || bytes > limits_.message_bytes) return nullptr;
    auto begun = std::make_unique<BegunInMpi>(where(), std::vector<std::byte>(), Bytes());
    check_call(MPI_Iallreduce(MPI_IN_PLACE, buffer.data(), static_cast<int>(bytes / size_of(dtype)),
                              mpi_type(dtype), MPI_SUM, comm_, begun->request()),
               "MPI_Iallreduce");
    return begun;
  }

  // The library's output must not lie in its input, as this rank's block does.
  std::unique_ptr<BegunCollective> begin_reduce_blocks(ConstBytes input, Bytes output, DType dtype,
                                                       ReduceOrder order) override {
    const auto bytes = static_cast<int64_t>(input.size()), block = static_cast<int64_t>(output.size());
    if (through_shared_memory(bytes)) {
      return std::make_unique<BegunInSharedMemory>(
          *channels_, channels_->reduce_scatter_in_steps(input, output, dtype, where()));
    }
    if (order == ReduceOrder::fixed_tree || bytes > limits_.message_bytes) return nullptr;
    auto begun =
        std::make_unique<BegunInMpi>(where(), std::vector<std::byte>(static_cast<size_t>(block)), output);
    check_call(
        MPI_Ireduce_scatter_block(input.data(), begun->result(), static_cast<int>(block / size_of(dtype)),
                                  mpi_type(dtype), MPI_SUM, comm_, begun->request()),
        "MPI_Ireduce_scatter_block");
    return begun;
  }

  std::unique_ptr<BegunCollective> begin_gather(ConstBytes input, Bytes output) override {
    const auto bytes = static_cast<int64_t>(input.size());
    const std::vector<Bytes> blocks = cut(output, std::vector<int64_t>(static_cast<size_t>(size()), bytes));
    const bool in_place = input.data() == blocks[static_cast<size_t>(rank())].data();
    if (through_shared_memory(bytes)) {
      copy_bytes(input, blocks[static_cast<size_t>(rank())]);
      return std::make_unique<BegunInSharedMemory>(
          *channels_, channels_->exchange_in_steps(
                          std::vector<ConstBytes>(static_cast<size_t>(size()), input), blocks, where()));
    }
    if (bytes > limits_.message_bytes) return nullptr;
    const int count = static_cast<int>(bytes);
    auto begun = std::make_unique<BegunInMpi>(where(), std::vector<std::byte>(), Bytes());
    check_call(MPI_Iallgather(in_place ? MPI_IN_PLACE : input.data(), count, MPI_BYTE, output.data(), count,
                              MPI_BYTE, comm_, begun->request()),
               "MPI_Iallgather");
    return begun;
  }

  // What is not sent through shared memory leaves the channels alone.
  bool passes_begun(int64_t bytes) const override { return !through_shared_memory(bytes); }

  std::unique_ptr<Communicator> do_split(int color, int key, const std::string& group_name) override {
    MPI_Comm group = MPI_COMM_NULL;
    check_call(MPI_Comm_split(comm_, color, key, &group), "MPI_Comm_split");
    return std::make_unique<MpiCommunicator>(group_name, group, identity_of(group), limits_);
  }

  void do_barrier() override { check_call(MPI_Barrier(comm_), "MPI_Barrier"); }

  void do_broadcast(Bytes buffer, int root) override {
    for_each_chunk(static_cast<int64_t>(buffer.size()), limits_.message_bytes, [&](int64_t begin, int64_t n) {
      check_call(MPI_Bcast(buffer.data() + begin, static_cast<int>(n), MPI_BYTE, root, comm_), "MPI_Bcast");
    });
  }

  // Blocking calls of MPI never let go of their core.
  void do_await_broadcast(Bytes buffer, int root) override {
    constexpr auto kBusy = std::chrono::milliseconds(1), kLongestSleep = std::chrono::milliseconds(1);
    for_each_chunk(static_cast<int64_t>(buffer.size()), limits_.message_bytes, [&](int64_t begin, int64_t n) {
      MPI_Request request;
      check_call(MPI_Ibcast(buffer.data() + begin, static_cast<int>(n), MPI_BYTE, root, comm_, &request),
                 "MPI_Ibcast");
      const auto began = std::chrono::steady_clock::now();
      std::chrono::microseconds sleep(20);
      for (int done = 0;;) {
        check_call(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
        if (done != 0) return;
        if (std::chrono::steady_clock::now() - began < kBusy) continue;
        std::this_thread::sleep_for(sleep);
        sleep = std::min<std::chrono::microseconds>(2 * sleep, kLongestSleep);
      }
    });
  }

  void do_all_reduce(Bytes buffer, DType dtype, ReduceOp op) override {
    const int count = static_cast<int>(buffer.size() / static_cast<size_t>(size_of(dtype)));
    const MPI_Op mpi_op = op == ReduceOp::sum ? MPI_SUM : MPI_MAX;
    check_call(MPI_Allreduce(MPI_IN_PLACE, buffer.data(), count, mpi_type(dtype), mpi_op, comm_),
               "MPI_Allreduce");
  }

  void do_all_gather(ConstBytes input, Bytes output) override {
    const auto bytes = static_cast<int64_t>(input.size());
    const bool in_place = input.data() == output.data() + rank() * bytes;
    const std::vector<Bytes> blocks = cut(output, std::vector<int64_t>(static_cast<size_t>(size()), bytes));
    if (moves_through_shared_memory(bytes)) {
      channels_->exchange(std::vector<ConstBytes>(static_cast<size_t>(size()), input), blocks, where());
      return copy_bytes(input, blocks[static_cast<size_t>(rank())]);
    }
    if (bytes <= limits_.message_bytes) {
      const int count = static_cast<int>(bytes);
      check_call(MPI_Allgather(in_place ? MPI_IN_PLACE : input.data(), count, MPI_BYTE, output.data(), count,
                               MPI_BYTE, comm_),
                 "MPI_Allgather");
      return;
    }
    // Chunks of one block are not contiguous over ranks, so the large case is sent pair by pair.
    Requests requests;
    for (int r = 0; r < size(); ++r) {
      if (r != rank()) post_receive(requests, blocks[static_cast<size_t>(r)], r);
    }
    for (int r = 0; r < size(); ++r) {
      if (r != rank()) post_send(requests, input, r);
    }
    wait_all(requests, where());
    copy_bytes(input, blocks[static_cast<size_t>(rank())]);
  }

  Work do_all_to_all_v(ConstBytes input, const std::vector<int64_t>& send, Bytes output,
                       const std::vector<int64_t>& receive) override {
    std::vector<ConstBytes> leaving = cut(input, send);
    std::vector<Bytes> arriving = cut(output, receive);
    copy_bytes(leaving[static_cast<size_t>(rank())], arriving[static_cast<size_t>(rank())]);
    // Each pair knows its size, and so which way its block goes.
    auto requests = std::make_shared<Requests>();
    const auto taken_by_mpi = [&](auto& block) {
      return !moves_through_shared_memory(static_cast<int64_t>(block.size()));
    };
    // Each rank starts with its right neighbour, so that not everybody sends to rank 0 first.
    for (int i = 1; i < size(); ++i) {
      const int from = (rank() + size() - i) % size();
      Bytes& block = arriving[static_cast<size_t>(from)];
      if (taken_by_mpi(block)) post_receive(*requests, std::exchange(block, {}), from);
    }
    for (int i = 1; i < size(); ++i) {
      const int to = (rank() + i) % size();
      ConstBytes& block = leaving[static_cast<size_t>(to)];
      if (taken_by_mpi(block)) post_send(*requests, std::exchange(block, {}), to);
    }
    if (channels_ != nullptr) channels_->exchange(leaving, arriving, where());
    return Work([requests, description = where()] { wait_all(*requests, description); });
  }

  void do_exchange(int partner, ConstBytes send, Bytes receive) override {
    for_each_chunk(static_cast<int64_t>(send.size()), limits_.message_bytes, [&](int64_t begin, int64_t n) {
      const int count = static_cast<int>(n);
      check_call(MPI_Sendrecv(send.data() + begin, count, MPI_BYTE, partner, kTag, receive.data() + begin,
                              count, MPI_BYTE, partner, kTag, comm_, MPI_STATUS_IGNORE),
                 "MPI_Sendrecv");
    });
  }

  void post_receive(Requests& requests, Bytes block, int from) const {
    for_each_chunk(static_cast<int64_t>(block.size()), limits_.message_bytes, [&](int64_t begin, int64_t n) {
      check_call(
          MPI_Irecv(block.data() + begin, static_cast<int>(n), MPI_BYTE, from, kTag, comm_, requests.add()),
          "MPI_Irecv");
    });
  }

  void post_send(Requests& requests, ConstBytes block, int to) const {
    for_each_chunk(static_cast<int64_t>(block.size()), limits_.message_bytes, [&](int64_t begin, int64_t n) {
      check_call(
          MPI_Isend(block.data() + begin, static_cast<int>(n), MPI_BYTE, to, kTag, comm_, requests.add()),
          "MPI_Isend");
    });
  }

  // One by one: Open MPI 4.1's MPI_Waitall can hang when one of its receives fails.
  static void wait_all(Requests& requests, const std::string& description) {
    for (MPI_Request& request : requests.handles) {
      const int code = MPI_Wait(&request, MPI_STATUS_IGNORE);
      if (code != MPI_SUCCESS) check_mpi(code, description, "MPI_Wait");
    }
  }

  MPI_Comm comm_;
  MpiLimits limits_;
  std::unique_ptr<comm::SharedWindow> window_;      // null: the ranks share no memory
  std::unique_ptr<comm::SharedChannels> channels_;  // in the window
};

bool is_set(const char* value) { return value != nullptr && *value != '\0'; }
bool above_one(const char* value) { return is_set(value) && std::strtol(value, nullptr, 10) > 1; }

struct Place {
  Identity on_node;
  int node = 0;  // the lowest rank of the world on it
};

Place place_of_this_rank() {
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node), "[mpi]",
            "MPI_Comm_split_type");
  Place place{identity_of(node), identity_of(MPI_COMM_WORLD).rank};
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &place.node, 1, MPI_INT, MPI_MIN, node), "[mpi]", "MPI_Allreduce");
  check_mpi(MPI_Comm_free(&node), "[mpi]", "MPI_Comm_free");
  return place;
}

}  // namespace

bool started_by_mpi_launcher(const std::function<const char*(const char*)>& get) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (is_set(get(name))) return true;
  }
  return is_set(get("SLURM_PROCID")) && above_one(get("SLURM_NTASKS"));
}

int launched_rank(const std::function<const char*(const char*)>& get) {
  if (!started_by_mpi_launcher(get)) return 0;
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (is_set(get(name))) return std::atoi(get(name));
  }
  return 0;
}

MpiRuntime::MpiRuntime() : exceptions_at_start_(std::uncaught_exceptions()) {
  if (!started_by_mpi_launcher(std::getenv)) {
    world_ = make_self_communicator();
    return;
  }
  int initialized = 0;
  MPI_Initialized(&initialized);
  check(initialized == 0, ErrorKind::internal, "[mpi] a process has one MpiRuntime, this is the second");
  int provided = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "[mpi]", "MPI_Init_thread");
  started_ = true;
  check(
      provided >= MPI_THREAD_SERIALIZED, ErrorKind::communication,
      "[mpi] this MPI library does not allow threads beside it (MPI_THREAD_SERIALIZED): use another build of "
      "it");
  // Communicators made from this one inherit the handler, so that every failure comes back as a code.
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  world_ = make_world();
  const Place place = place_of_this_rank();
  local_size_ = place.on_node.size, local_rank_ = place.on_node.rank, node_ = place.node;
  check(world_->size() > 1 || !above_one(std::getenv("SLURM_STEP_NUM_TASKS")), ErrorKind::communication,
        "[mpi] srun started {} tasks, but each is alone in its MPI world: use `srun --mpi=pmix` or mpirun",
        std::getenv("SLURM_STEP_NUM_TASKS"));
}

MpiRuntime::~MpiRuntime() {
  world_.reset();
  if (started_ && std::uncaught_exceptions() == exceptions_at_start_) MPI_Finalize();
}

std::unique_ptr<Communicator> MpiRuntime::make_world(const MpiLimits& limits) const {
  if (!started_) return make_self_communicator();
  // An own context: messages of other users of MPI_COMM_WORLD in this process can't be taken for ours.
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "[mpi]", "MPI_Comm_dup");
  return std::make_unique<MpiCommunicator>("world", comm, identity_of(comm), limits);
}

void MpiRuntime::abort(int code) const noexcept {
  std::fflush(nullptr);
  if (started_) MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

}  // namespace ziggurat
