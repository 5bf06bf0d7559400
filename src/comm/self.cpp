#include <ziggurat/comm/communicator.h>

namespace ziggurat {
namespace {

// The base class serves groups of one, so no primitive is ever reached.
class SelfCommunicator final : public Communicator {
 public:
  SelfCommunicator() : Communicator("self", 0, 1) {}

 private:
  [[noreturn]] void unreachable() const {
    fail(ErrorKind::internal, "{} a group of one has no peers", where());
  }
  std::unique_ptr<Communicator> do_split(int, int, const std::string&) override { unreachable(); }
  void do_barrier() override { unreachable(); }
  void do_broadcast(Bytes, int) override { unreachable(); }
  void do_all_reduce(Bytes, DType, ReduceOp) override { unreachable(); }
  void do_all_gather(ConstBytes, Bytes) override { unreachable(); }
  Work do_all_to_all_v(ConstBytes, const std::vector<int64_t>&, Bytes, const std::vector<int64_t>&) override {
    unreachable();
  }
  void do_exchange(int, ConstBytes, Bytes) override { unreachable(); }
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() { return std::make_unique<SelfCommunicator>(); }

}  // namespace ziggurat
