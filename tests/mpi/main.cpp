// mpi_tests --world N [gtest options]: runs the tests on every rank of N. A failed check on any rank fails
// all; a fatal failure or an exception ends the job at once, because its rank is out of step with the others.
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "tests/mpi/mpi_world.h"

namespace ziggurat {
namespace {

std::optional<MpiRuntime> runtime;

class RankListener : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::cerr << fmt::format("[rank {}] {}:{}: {}\n", mpi_runtime().world().rank(),
                             result.file_name() == nullptr ? "?" : result.file_name(), result.line_number(),
                             result.message());
    if (result.fatally_failed()) mpi_runtime().abort(1);
  }
};

int requested_world(int argc, char** argv) {
  check(argc == 3 && std::string(argv[1]) == "--world", ErrorKind::argument, "usage: mpi_tests --world N");
  return std::atoi(argv[2]);
}

int run_tests(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  testing::GTEST_FLAG(catch_exceptions) = false;
  Communicator& world = runtime->world();
  const int requested = requested_world(argc, argv);
  check(world.size() == requested, ErrorKind::argument, "mpi_tests was asked for {} ranks, mpirun started {}",
        requested, world.size());

  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  listeners.Append(new RankListener);
  if (world.rank() != 0) delete listeners.Release(listeners.default_result_printer());

  int32_t failed = RUN_ALL_TESTS() == 0 ? 0 : 1;
  Stream stream;
  world.all_reduce(Tensor(&failed, DType::i32, {1}), ReduceOp::sum, ReduceOrder::any, stream).wait();
  if (failed != 0 && world.rank() == 0)
    std::cerr << fmt::format("{} of {} ranks failed\n", failed, world.size());
  return failed == 0 ? 0 : 1;
}

}  // namespace

MpiRuntime& mpi_runtime() { return *runtime; }

}  // namespace ziggurat

int main(int argc, char** argv) {
  ziggurat::runtime.emplace();
  try {
    const int code = ziggurat::run_tests(argc, argv);
    ziggurat::runtime.reset();
    return code;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    ziggurat::runtime->abort(1);
  }
}
