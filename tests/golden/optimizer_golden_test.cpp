// Lion, Muon and Adafactor against implementations that others wrote
// (scripts/golden/make_optimizer_goldens.py).
#include <gtest/gtest.h>

#include "tests/support/golden_file.h"
#include "tests/support/op_test.h"
#include <ziggurat/optim/optimizer.h>

namespace ziggurat::test {
namespace {

void expect_golden(OptimizerKind kind, double tolerance) {
  const GoldenFile file = GoldenFile::committed("optimizers");
  OptimizerConfig config;
  config.kind = kind;
  config.beta2 = 0.99;
  config.clip_grad = 0;
  config.weight_decay = file.number("weight_decay");
  config.adafactor.least_factored = 1;
  const auto world = make_self_communicator();
  const ProcessGroups groups(*world, ParallelPlan(1, {}));
  nn::ParamStore store({.compute = DType::f64});
  for (const char* name : {"wide", "tall"}) {
    store.add({.name = name,
               .global_shape = file.shape(std::string("initial.") + name),
               .init = nn::Init::zeros()});
  }
  store.finalize();
  load_parameters(store, file, "initial.");
  Optimizer optimizer(store, groups, config);
  Arena workspace("workspace", 1 << 20);
  Stream stream;
  for (int64_t step = 0; step < file.whole("steps"); ++step) {
    for (const nn::ParamEntry& entry : store.entries()) {
      const std::vector<double> grad = file.doubles(fmt::format("grad.{}.{}", step, entry.spec.name));
      std::copy(grad.begin(), grad.end(), entry.param.grad.data<double>());
    }
    double squares = 1;
    optimizer.update(file.number("lr"), Tensor(&squares, DType::f64, {1}), {}, workspace, stream);
  }
  for (const nn::ParamEntry& entry : store.entries()) {
    expect_within(to_doubles(optimizer.state().master(entry)),
                  file.doubles(fmt::format("{}.{}", enum_text(kind), entry.spec.name)), tolerance,
                  entry.spec.name);
  }
}

TEST(OptimizerGolden, Lion) { expect_golden(OptimizerKind::lion, 1e-12); }
TEST(OptimizerGolden, Adafactor) { expect_golden(OptimizerKind::adafactor, 1e-12); }
// An update is 0.02 x 0.2 sqrt(19) long in each element's mean; bfloat16 leaves three digits of it.
TEST(OptimizerGolden, Muon) { expect_golden(OptimizerKind::muon, 4 * 0.02 * 0.9 * 0x1p-6); }

}  // namespace
}  // namespace ziggurat::test
