// A store on the emulated device holds the CPU's values, bit for bit.
#include "tests/emulation/emulated_test.h"
#include "tests/support/op_test.h"
#include <ziggurat/nn/param_store.h>

namespace ziggurat::emulation {
namespace {

class EmulatedParamStore : public EmulatedTest {};

// Of all kinds; the matrix is more than is drawn in one piece.
void add_parameters(nn::ParamStore& store, int64_t rows) {
  store.add({.name = "matrix", .global_shape = {rows, 2048}, .init = nn::Init::normal(0.5), .product = true});
  store.add({.name = "table", .global_shape = {7, 33}, .init = nn::Init::uniform(2.0)});
  store.add({.name = "norm", .global_shape = {33}, .init = nn::Init::ones(), .matrix = false});
  for (const bool identical : {false, true}) {
    store.add({.name = identical ? "twins" : "experts",
               .global_shape = {4, 5, 3},
               .init = nn::Init::normal(1.0),
               .row_begin = 1,
               .row_end = 3,
               .expert_parallel = 2,
               .identical_rows = identical});
  }
  store.finalize();
}

void expect_same_values(nn::ParamStore& got, nn::ParamStore& want) {
  for (size_t i = 0; i < want.entries().size(); ++i) {
    const nn::ParamEntry &there = got.entries()[i], &here = want.entries()[i];
    SCOPED_TRACE(here.spec.name);
    EXPECT_EQ(test::to_doubles(there.param.value), test::to_doubles(here.param.value));
    if (here.param.unwritten == nullptr) {
      EXPECT_EQ(test::to_doubles(there.param.grad), test::to_doubles(here.param.grad));
    }
  }
}

TEST_F(EmulatedParamStore, StartsWithTheCpusValues) {
  for (const auto& [dtype, rows] : {std::pair{DType::f32, 530}, {DType::bf16, 20}}) {
    for (const Reproducible mode : {Reproducible::layout, Reproducible::strict}) {
      nn::ParamStore cpu({.compute = dtype, .reproducible = mode}),
          cuda({.compute = dtype, .device = Device::cuda, .reproducible = mode});
      add_parameters(cpu, rows);
      add_parameters(cuda, rows);
      EXPECT_EQ(pending_work(), 0) << "finalize() waits";
      expect_same_values(cuda, cpu);
    }
  }
}

TEST_F(EmulatedParamStore, ZeroesInTheOrderOfTheStream) {
  nn::ParamStore cpu({.compute = DType::bf16}), cuda({.compute = DType::bf16, .device = Device::cuda});
  add_parameters(cpu, 3);
  add_parameters(cuda, 3);
  Stream here, stream(Device::cuda);
  for (nn::ParamStore* store : {&cpu, &cuda}) {
    Stream& s = store == &cpu ? here : stream;
    for (const nn::ParamGroup& group : store->groups()) {
      test::OpBench host;
      copy(host.tensor("gradient", DType::f32, group.gradient.shape()), group.gradient, s);
      s.wait();
    }
    store->zero_gradients(s);
    store->settle_gradients(s);
  }
  stream.wait();
  expect_same_values(cuda, cpu);
  const auto zeros = std::vector<double>(3 * 2048, 0.0);
  EXPECT_EQ(test::to_doubles(cuda.find("matrix").param.grad), zeros) << "settled";
}

}  // namespace
}  // namespace ziggurat::emulation
