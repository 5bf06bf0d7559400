// Products from weights in panels: against naive sums in f64, and a row's bits against itself in any company.
#include <numeric>

#include "tests/support/bare_model.h"
#include "tests/support/op_test.h"
#include <ziggurat/infer/decoder.h>
#include <ziggurat/kernels/embedding.h>
#include <ziggurat/kernels/panel_linear.h>
#include <ziggurat/ops/linear.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using kernels::kPanelRows;
using test::OpBench;

TEST(PanelLinear, ElementsLieInPanelsOfEveryWeight) {
  for (const auto& [out, in] :
       {std::pair<int64_t, int64_t>{2 * kPanelRows + 5, 7}, {3, 1}, {kPanelRows, 4}}) {
    const int64_t size = out * in;
    std::vector<float> weights(static_cast<size_t>(2 * size));
    std::iota(weights.begin(), weights.end(), 0.0f);
    std::vector<bf16> halves(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) halves[static_cast<size_t>(i)] = bf16(static_cast<float>(i % 256));
    kernels::to_panels<Device::cpu>(weights.data(), 2, out, in);
    kernels::to_panels<Device::cpu>(halves.data(), 1, out, in);
    std::vector<bool> taken(weights.size());
    for (int64_t e = 0; e < 2; ++e) {
      for (int64_t r = 0; r < out; ++r) {
        for (int64_t k = 0; k < in; ++k) {
          const auto at = static_cast<size_t>(e * size + kernels::place_in_panels<float>(r, k, out, in));
          ASSERT_EQ(weights[at], static_cast<float>(e * size + r * in + k));
          ASSERT_FALSE(taken[at]);
          taken[at] = true;
          const auto pair = static_cast<size_t>(kernels::place_in_panels<bf16>(r, k, out, in));
          ASSERT_EQ(float(halves[pair]), static_cast<float>((r * in + k) % 256));
        }
      }
    }
  }
}

struct PanelCase {
  int64_t in, out;
  std::vector<int32_t> offsets;  // of the rows of each expert
  ops::Activation activation;
  bool bias;
};
void PrintTo(const PanelCase& c, std::ostream* os) {
  *os << c.offsets.back() << " rows of " << c.offsets.size() - 1 << " experts, " << c.in << " to " << c.out;
}

// Of `int8` the products are those of the weights that its numbers and scales stand for.
template <class T>
void expect_products(const PanelCase& c, DType dtype, bool int8) {
  const auto experts = static_cast<int64_t>(c.offsets.size()) - 1;
  const int64_t rows = c.offsets.back();
  OpBench bench;
  const Tensor x = bench.tensor("x", dtype, {rows, c.in}),
               w = bench.tensor("w", dtype, {experts, c.out, c.in}),
               bias = bench.tensor("bias", accum_dtype(dtype), {experts, c.out}),
               y = bench.zeros(dtype, {rows, c.out});
  const Tensor memory =
      bench.zeros(DType::f32, {kernels::Int8Weights::bytes(experts * c.out, c.in) / int64_t{sizeof(float)}});
  const auto numbers = kernels::Int8Weights::at(memory.raw(), experts * c.out, c.in);
  const auto xs = test::to_doubles(x), bs = test::to_doubles(bias);
  auto ws = test::to_doubles(w);
  if constexpr (!std::is_same_v<T, double>) {
    if (int8) {
      kernels::quantise<Device::cpu>(w.data<T>(), experts, c.out, c.in, memory.raw());
      for (size_t i = 0; i < ws.size(); ++i) {
        const auto at = static_cast<int64_t>(i), row = at / c.in, matrix = row / c.out;
        const int64_t place =
            matrix * c.out * c.in + kernels::place_of_number(row % c.out, at % c.in, c.out, c.in);
        const double scale = numbers.scales[row], value = scale * numbers.numbers[place];
        ASSERT_LE(std::abs(value - ws[i]), scale * (0.5 + 1e-5)) << i;  // the nearest
        ws[i] = value;
      }
    }
  }
  std::vector<double> want;
  for (int64_t e = 0; e < experts; ++e) {
    for (int64_t r = c.offsets[static_cast<size_t>(e)]; r < c.offsets[static_cast<size_t>(e) + 1]; ++r) {
      for (int64_t o = 0; o < c.out; ++o) {
        double sum = c.bias ? bs[static_cast<size_t>(e * c.out + o)] : 0;
        for (int64_t k = 0; k < c.in; ++k) {
          sum += xs[static_cast<size_t>(r * c.in + k)] * ws[static_cast<size_t>((e * c.out + o) * c.in + k)];
        }
        if (c.activation == ops::Activation::gelu_erf) sum = 0.5 * sum * (1 + std::erf(sum / std::sqrt(2.0)));
        want.push_back(sum);
      }
    }
  }
  kernels::to_panels<Device::cpu>(w.data<T>(), experts, c.out, c.in);
  const auto product = [&](int64_t begin, int64_t end, const std::vector<int32_t>& offsets) {
    const Tensor part = bench.zeros(dtype, {end - begin, c.out});
    kernels::panel_linear<Device::cpu>(
        kernels::PanelLinearArgs<T, T>{{offsets.data(), experts},
                                       end - begin,
                                       c.in,
                                       c.out,
                                       x.rows(begin, end).template data<T>(),
                                       w.template data<T>(),
                                       c.bias ? bias.template data<Accum<T>>() : nullptr,
                                       c.activation,
                                       part.template data<T>(),
                                       int8 ? numbers : kernels::Int8Weights{}},
        bench.tape().workspace(), bench.tape().stream());
    return test::to_doubles(part);
  };
  const std::vector<double> got = product(0, rows, c.offsets);
  visit_float_dtype(dtype, [&]<class Y>() {
    std::transform(got.begin(), got.end(), y.data<Y>(), [](double v) { return Y(v); });
  });
  test::expect_close(y, want, c.in + 1, 4, to_string(dtype));
  test::expect_same_on_any_thread_count([&] { return product(0, rows, c.offsets); });

  // Alone, and with any number of those before it.
  for (int64_t r = 0; r < rows; ++r) {
    for (const int64_t begin : {r, std::max<int64_t>(0, r - 1), std::max<int64_t>(0, r - 6)}) {
      std::vector<int32_t> offsets;
      for (const int32_t at : c.offsets) {
        offsets.push_back(static_cast<int32_t>(std::clamp<int64_t>(at - begin, 0, r + 1 - begin)));
      }
      const std::vector<double> few = product(begin, r + 1, offsets);
      const std::vector<double> row(few.end() - c.out, few.end());
      ASSERT_EQ(row, std::vector<double>(got.begin() + r * c.out, got.begin() + (r + 1) * c.out)) << r;
    }
  }
}

class PanelLinear : public testing::TestWithParam<PanelCase> {};

TEST_P(PanelLinear, EqualsTheDefinitionInAnyCompany) {
  const OneThread one_thread;
  expect_products<float>(GetParam(), DType::f32, false);
  expect_products<bf16>(GetParam(), DType::bf16, false);
  expect_products<double>(GetParam(), DType::f64, false);
  expect_products<float>(GetParam(), DType::f32, true);
  expect_products<bf16>(GetParam(), DType::bf16, true);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, PanelLinear,
    testing::Values(PanelCase{1, 1, {0, 1}, ops::Activation::none, false},
                    PanelCase{48, kPanelRows, {0, 13}, ops::Activation::none, true},
                    PanelCase{33, 2 * kPanelRows + 3, {0, 7}, ops::Activation::gelu_erf, true},
                    PanelCase{64, 40, {0, 2, 2, 9}, ops::Activation::gelu_erf, false},
                    PanelCase{7, 100, {0, 0, 5, 6}, ops::Activation::none, true},
                    PanelCase{34, kPanelRows + 1, {0, 71}, ops::Activation::none, true}));

TEST(PanelLinear, RowsOfZerosAndOfOneWeightKeepTheirValues) {
  const std::vector<float> weights = {0, 0, 0, -3, 0, 127};  // two rows
  OpBench bench;
  void* const memory = bench.zeros(DType::f32, {kernels::Int8Weights::bytes(2, 3) / 4}).raw();
  kernels::quantise<Device::cpu>(weights.data(), 1, 2, 3, memory);
  const auto [numbers, scales] = kernels::Int8Weights::at(memory, 2, 3);
  EXPECT_EQ(std::vector(scales, scales + 2), (std::vector<float>{0, 1}));
  EXPECT_EQ(std::vector(numbers, numbers + 6), (std::vector<int8_t>{0, -3, 0, 0, 0, 127}));  // by columns
}

TEST(PanelLinear, LooksUpWhatRowsDo) {
  OpBench bench;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    const Tensor table = bench.tensor("table", dtype, {70, 9}),
                 places = bench.tensor("places", dtype, {5, 9}), want = bench.zeros(dtype, {4, 9}),
                 got = bench.zeros(dtype, {4, 9});
    const std::vector<int32_t> tokens = {69, -1, 63, 64}, positions = {4, 0, 2, 2};
    visit_float_dtype(dtype, [&]<class T>() {
      for (const T* p : {static_cast<const T*>(nullptr), static_cast<const T*>(places.data<T>())}) {
        Tensor copied = bench.zeros(dtype, {70, 9});
        copy(table, copied);
        kernels::embedding_forward<Device::cpu>(
            kernels::EmbeddingArgs<T>{4, 9, tokens.data(), 1, positions.data(), table.data<T>(), p,
                                      want.data<T>()},
            bench.tape().stream());
        kernels::to_panels<Device::cpu>(copied.data<T>(), 1, 70, 9);
        kernels::panel_gather<Device::cpu>(
            kernels::PanelGatherArgs<T>{4, 9, 70, tokens.data(), positions.data(), copied.data<T>(), p,
                                        got.data<T>()},
            bench.tape().stream());
        EXPECT_EQ(test::to_doubles(got), test::to_doubles(want));
      }
    });
  }
}

// Whole models: as from rows, and a row's bits in any company.
// After every token, in one pass and token by token: the same bits.
std::vector<double> logits_in_any_company(const model::Gpt& model, const std::vector<int32_t>& text,
                                          const char* name) {
  std::vector<std::vector<double>> logits(2);
  for (size_t way : {0, 1}) {
    infer::Decoder decoder(model, 1, 32, way == 0 ? 30 : 1, Reproducible::strict);
    std::vector<int32_t> wanted(text.size());
    std::iota(wanted.begin(), wanted.end(), 0);
    decoder.read(std::vector<int32_t>(text.size(), 0), text, wanted, [&](size_t, const Tensor& l) {
      const std::vector<double> part = test::to_doubles(l);
      logits[way].insert(logits[way].end(), part.begin(), part.end());
    });
  }
  EXPECT_EQ(logits[0], logits[1]) << name;
  return logits[0];
}

TEST(PanelLinear, ModelsComputeTheSame) {
  const OneThread one_thread;
  for (const char* name : {"350m_dense", "pr_moe", "modern_moe"}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      if (dtype == DType::bf16 && std::string(name) != "350m_dense") continue;  // may choose other experts
      test::BareModel rows(test::tiny_model(name), dtype), panels(test::tiny_model(name), dtype);
      panels.store.to_panels();
      EXPECT_TRUE(panels.model.in_panels() && !rows.model.in_panels());
      const std::vector<int32_t> text = test::random_tokens(30, rows.layout.vocab_size);
      const std::vector<double> want = rows.recomputed(text);
      const auto width = static_cast<size_t>(rows.layout.padded_vocab());
      const double near = test::random_walk(dtype, 10'000) * test::largest(want);
      const std::vector<double> logits = logits_in_any_company(panels.model, text, name);
      for (size_t t = 0; t < text.size(); ++t) {
        const auto begin = static_cast<int64_t>(t * width), end = begin + static_cast<int64_t>(width);
        test::expect_within({logits.begin() + begin, logits.begin() + end},
                            {want.begin() + begin, want.begin() + end}, near, name);
      }
    }
  }
}

// Models of 8 bits: as of the weights that their numbers stand for, and a row's bits in any company.
TEST(PanelLinear, ModelsOfInt8ComputeWithWhatTheirNumbersStandFor) {
  const OneThread one_thread;
  for (const char* name : {"350m_dense", "pr_moe", "modern_moe"}) {
    test::BareModel rows(test::tiny_model(name), DType::f32), numbers(test::tiny_model(name), DType::f32);
    for (nn::ParamEntry& e : rows.store.entries()) {
      if (!e.spec.product) continue;
      float* const w = e.param.value.data<float>();
      const int64_t in = e.param.value.dim(e.param.value.rank() - 1);
      for (int64_t at = 0; at < e.numel; at += in) {
        const float largest = std::abs(*std::max_element(
            w + at, w + at + in, [](float a, float b) { return std::abs(a) < std::abs(b); }));
        for (int64_t k = at; k < at + in && largest > 0; ++k) {
          w[k] = std::round(w[k] / (largest / 127)) * (largest / 127);
        }
      }
    }
    numbers.store.to_int8_panels();
    EXPECT_GT(numbers.store.int8_bytes(), 0);
    const std::vector<int32_t> text = test::random_tokens(30, rows.layout.vocab_size);
    const std::vector<double> want = rows.recomputed(text);
    const std::vector<double> logits = logits_in_any_company(numbers.model, text, name);
    test::expect_within(logits, want, test::random_walk(DType::f32, 10'000) * test::largest(want), name);
  }
}

TEST(PanelLinearMisuse, Int8IsRefusedForF64) {
  test::BareModel model(test::tiny_model("350m_dense"), DType::f64);
  EXPECT_THROW(model.store.to_int8_panels(), Error);
}

TEST(PanelLinearMisuse, TrainingIsRefused) {
  OpBench bench;
  Param weight;
  weight.value = bench.tensor("w", DType::f32, {4, 3});
  weight.panels = true;
  bench.tape().begin(bench.micro_batch);
  const Var x = bench.tape().variable(bench.tensor("x", DType::f32, {2, 3}));
  EXPECT_THROW(ops::linear(bench.tape(), x, weight), Error);
}

}  // namespace
}  // namespace ziggurat
