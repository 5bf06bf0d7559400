#include <ziggurat/comm/communicator.h>

namespace ziggurat {
namespace {

// Tensors on Device::meta never reach a primitive; anything else here is a planner that tries to move data.
class PlanningCommunicator final : public Communicator {
 public:
  PlanningCommunicator(const std::string& name, int rank, int size) : Communicator(name, rank, size) {}

 private:
  [[noreturn]] void moves_nothing() const {
    fail(ErrorKind::internal, "{} a planned group moves no data", where());
  }
  std::unique_ptr<Communicator> do_split(int, int, const std::string&) override { moves_nothing(); }
  void do_barrier() override { moves_nothing(); }
  void do_broadcast(Bytes, int) override { moves_nothing(); }
  void do_all_reduce(Bytes, DType, ReduceOp) override { moves_nothing(); }
  void do_all_gather(ConstBytes, Bytes) override { moves_nothing(); }
  Work do_all_to_all_v(ConstBytes, const std::vector<int64_t>&, Bytes, const std::vector<int64_t>&) override {
    moves_nothing();
  }
  void do_exchange(int, ConstBytes, Bytes) override { moves_nothing(); }
};

}  // namespace

std::unique_ptr<Communicator> make_planning_communicator(const std::string& name, int rank, int size) {
  return std::make_unique<PlanningCommunicator>(name, rank, size);
}

}  // namespace ziggurat
