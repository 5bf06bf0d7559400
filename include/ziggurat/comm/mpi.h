// The MPI implementation of Communicator, and the life of MPI in this process.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>

#include <ziggurat/comm/communicator.h>

namespace ziggurat {

// How messages are cut and which way they go. Every rank gives the same; tests make the numbers small.
struct MpiLimits {
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  int64_t message_bytes = int64_t{1} << 30;  // MPI counts are ints
  int64_t reduce_bytes = kReduceChunkBytes;
  // Reductions, gathers and blocks of an all-to-all go through shared memory from this size on, if all ranks
  // of the group are on one node. kNever: always through MPI, as between nodes.
  int64_t shared_from = int64_t{1} << 15;
  // Blocks that are only moved go through it up to here: of larger ones MPI makes one copy, from process to
  // process, instead of two.
  int64_t shared_moves_below = int64_t{1} << 18;
  int64_t slot_bytes = int64_t{1} << 18;  // a piece in shared memory; less in large groups
};

// Did a launcher (mpirun, srun with PMI) start this process as part of a job? `get` looks an environment
// variable up, like std::getenv.
bool started_by_mpi_launcher(const std::function<const char*(const char*)>& get);

// This process's rank by the launcher's environment, for what happens before MPI starts; 0 without a
// launcher.
int launched_rank(const std::function<const char*(const char*)>& get);

// MPI from construction to destruction; one per process. Without a launcher MPI is not started at all (that
// would cost a third of a second) and the world is a group of one.
// The destructor finalizes MPI, unless an exception is unwinding: then the peers may be in a collective,
// where finalizing would hang, and the caller is expected to abort().
class MpiRuntime {
 public:
  MpiRuntime();  // throws Error(communication)
  ~MpiRuntime();
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;

  Communicator& world() { return *world_; }
  int local_size() const { return local_size_; }  // ranks on this node: what its cores are shared by
  int local_rank() const { return local_rank_; }  // this one's place among them
  int node() const { return node_; }              // the first of them, by its rank in the world

  // A second world, e.g. with other limits. Collective; destroy it before this object.
  std::unique_ptr<Communicator> make_world(const MpiLimits& limits = {}) const;

  // Ends every rank of the job with this exit code, whatever they are doing.
  [[noreturn]] void abort(int code) const noexcept;

 private:
  bool started_ = false;
  int exceptions_at_start_;
  int local_size_ = 1, local_rank_ = 0, node_ = 0;
  std::unique_ptr<Communicator> world_;
};

}  // namespace ziggurat
