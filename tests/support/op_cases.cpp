#include "tests/support/op_cases.h"

#include <array>
#include <cmath>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/support/device_bench.h"
#include "tests/support/op_test.h"
#include <ziggurat/core/philox.h>
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/attention.h>
#include <ziggurat/ops/dispatch.h>
#include <ziggurat/ops/dropout.h>
#include <ziggurat/ops/dropout_add.h>
#include <ziggurat/ops/embedding.h>
#include <ziggurat/ops/gated_add.h>
#include <ziggurat/ops/grouped_linear.h>
#include <ziggurat/ops/layer_norm.h>
#include <ziggurat/ops/linear.h>
#include <ziggurat/ops/mix.h>
#include <ziggurat/ops/multiply.h>
#include <ziggurat/ops/qk_norm.h>
#include <ziggurat/ops/rms_norm.h>
#include <ziggurat/ops/rope.h>
#include <ziggurat/ops/router_logits.h>
#include <ziggurat/ops/swiglu.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::test {

namespace {

using Vars = std::vector<Var>;
using Params = std::deque<Param>;
constexpr ValueType kAccumulation = ValueType::accumulation;

// With and without rows that can be loaded by 16 bytes. Every op twice on the same inputs.
void add_elementwise(std::vector<OpCase>& cases) {
  for (const Shape& shape : {Shape{3, 128}, {5, 131}, {1, 1}}) {
    const auto add = [&](const char* name, std::vector<OpInput> inputs, auto op) {
      cases.push_back({fmt::format("{} {}", name, shape), std::move(inputs), {}, op});
    };
    add("add", {{"a", shape}, {"b", shape}}, [](Tape& tape, const Vars& v, const Params&) {
      return ops::add(tape, ops::add(tape, v[0], v[1]), v[0]);
    });
    add("swiglu", {{"gate", shape}, {"up", shape}}, [](Tape& tape, const Vars& v, const Params&) {
      return ops::swiglu(tape, ops::swiglu(tape, v[0], v[1]), v[1]);
    });
    add("multiply", {{"a", shape}, {"b", shape}}, [](Tape& tape, const Vars& v, const Params&) {
      return ops::multiply(tape, ops::multiply(tape, v[0], v[1]), v[0]);
    });
    add("mix", {{"a", shape}, {"b", shape}, {"logits", {shape[0], 2}, kAccumulation}},
        [](Tape& tape, const Vars& v, const Params&) {
          return ops::mix(tape, ops::mix(tape, v[0], v[1], v[2]), v[0], v[2]);
        });
    add("gated_add", {{"a", shape}, {"b", shape}, {"gates", {shape[0], 1}, kAccumulation}},
        [](Tape& tape, const Vars& v, const Params&) {
          return ops::gated_add(tape, ops::gated_add(tape, v[0], v[1], v[2]), v[0], v[2]);
        });
    add("dropout", {{"x", shape}, {"residual", shape}}, [](Tape& tape, const Vars& v, const Params&) {
      const Var dropped = ops::dropout(tape, v[0], 0.3, Purpose::embedding_dropout, 0);
      return ops::dropout_add(tape, dropped, v[1], 0.2, Purpose::hidden_dropout, 1);
    });
  }
}

void add_rope(std::vector<OpCase>& cases) {
  for (const ops::AttentionShape& s :
       {ops::AttentionShape{2, 5, 4, 2, 16}, {1, 3, 2, 1, 6}, {2, 1, 1, 1, 64}}) {
    cases.push_back({fmt::format("rope {}x{} heads of {}", s.rows(), s.heads, s.head_dim),
                     {{"qkv", {s.rows(), s.width()}}},
                     {},
                     [s](Tape& tape, const Vars& v, const Params&) {
                       const Var once = ops::rope(tape, v[0], s, 100.0);
                       return ops::add(tape, ops::rope(tape, once, s, 10000.0), v[0]);
                     }});
  }
}

// Tokens that come once, often and never, with and without positions; every table twice.
void add_embedding(std::vector<OpCase>& cases) {
  constexpr int64_t kRows = 24, kLength = 8, kVocab = 7;
  for (const int64_t width : {128, 131, 1}) {
    for (const bool positions : {true, false}) {
      std::vector<OpInput> tables = {{"table", {kVocab, width}}};
      if (positions) tables.push_back({"positions", {kLength, width}});
      cases.push_back({fmt::format("embedding {} wide{}", width, positions ? ", positions" : ""),
                       {},
                       tables,
                       [=](Tape& tape, const Vars&, const Params& p) {
                         std::vector<int32_t> tokens(kRows);
                         for (size_t i = 0; i < tokens.size(); ++i) {
                           tokens[i] = i == 3 ? 5 : static_cast<int32_t>(i * i % 4);
                         }
                         const Tensor there = tape.save(DType::i32, {kRows});
                         copy(Tensor(tokens.data(), DType::i32, {kRows}), there, tape.stream());
                         const auto look_up = [&] {
                           return ops::embedding(tape, there.data<int32_t>(), kRows, kLength, p[0],
                                                 positions ? &p[1] : nullptr);
                         };
                         const Var once = look_up();
                         return ops::add(tape, look_up(), once);
                       }});
    }
  }
}

// More rows than a partial sum has. Not one column: its variance is zero, and layer norm's gradient then is
// what rounding left, three hundred times.
void add_norms(std::vector<OpCase>& cases) {
  for (const Shape& shape : {Shape{70, 128}, {33, 131}, {1, 3}}) {
    const OpInput weight{"weight", {shape[1]}, kAccumulation}, bias{"bias", {shape[1]}, kAccumulation};
    cases.push_back({fmt::format("rms_norm {}", shape),
                     {{"x", shape}},
                     {weight},
                     [](Tape& tape, const Vars& v, const Params& p) {
                       return ops::add(tape, ops::rms_norm(tape, v[0], p[0], 1e-5), v[0]);
                     }});
    cases.push_back({fmt::format("layer_norm {}", shape),
                     {{"x", shape}},
                     {weight, bias},
                     [](Tape& tape, const Vars& v, const Params& p) {
                       return ops::add(tape, ops::layer_norm(tape, v[0], p[0], p[1], 1e-5), v[0]);
                     }});
    if (shape[0] == 1) continue;
    // The segment's result moves down to where its values were.
    cases.push_back({fmt::format("recompute {}", shape),
                     {{"x", shape}},
                     {weight},
                     [](Tape& tape, const Vars& v, const Params& p) {
                       const auto segment = [norm = &p[0]](Tape& t, Var x) {
                         return ops::add(t, ops::rms_norm(t, ops::add(t, x, x), *norm, 1e-5), x);
                       };
                       return tape.recompute(tape.recompute(v[0], segment), segment);
                     }});
  }
  // Heads of 1 to 32 lanes and more, and none that can be loaded by 16 bytes.
  for (const ops::AttentionShape& heads :
       {ops::AttentionShape{2, 17, 4, 2, 16}, {1, 5, 2, 1, 6}, {2, 2, 3, 3, 128}, {1, 34, 2, 1, 256}}) {
    for (const bool per_head : {true, false}) {
      const ops::QkNormShape shape{heads, per_head};
      cases.push_back(
          {fmt::format("qk_norm of {}, {}x{} heads of {}", per_head ? "heads" : "all", heads.rows(),
                       heads.heads, heads.head_dim),
           {{"qkv", {heads.rows(), heads.width()}}},
           {{"q_weight", {shape.q_cols()}, kAccumulation}, {"k_weight", {shape.k_cols()}, kAccumulation}},
           [shape](Tape& tape, const Vars& v, const Params& p) {
             return ops::add(tape, ops::qk_norm(tape, v[0], shape, p[0], p[1], 1e-5), v[0]);
           }});
    }
  }
}

// What a library does with a product's sums, and what it has not. The layer is taken twice.
void add_products(std::vector<OpCase>& cases) {
  using ops::Activation;
  for (const auto& [rows, in, out] : {std::array<int64_t, 3>{6, 16, 24}, {5, 7, 9}, {1, 1, 1}, {140, 8, 3}}) {
    for (const Activation activation : {Activation::none, Activation::gelu_tanh, Activation::gelu_erf}) {
      for (const bool with_bias : {true, false}) {
        std::vector<OpInput> params = {{"weight", {out, in}}};
        if (with_bias) params.push_back({"bias", {out}, kAccumulation});
        cases.push_back({fmt::format("linear {}x{}->{} activation {}{}", rows, in, out,
                                     static_cast<int>(activation), with_bias ? " bias" : ""),
                         {{"x", {rows, in}}},
                         params,
                         [activation](Tape& tape, const Vars& v, const Params& p) {
                           const Param* const bias = p.size() > 1 ? &p[1] : nullptr;
                           const Var once = ops::linear(tape, v[0], p[0], bias, activation);
                           return ops::add(tape, ops::linear(tape, v[0], p[0], bias), once);
                         }});
      }
    }
  }
  for (const auto& [rows, cols, experts] : {std::array<int64_t, 3>{6, 16, 8}, {70, 9, 5}, {1, 1, 1}}) {
    for (const double eps : {0.0, 0.1}) {
      for (const bool with_bias : {true, false}) {
        std::vector<OpInput> params = {{"weight", {experts, cols}, kAccumulation}};
        if (with_bias) params.push_back({"bias", {experts}, kAccumulation});
        cases.push_back({fmt::format("router_logits {}x{}->{} jitter {}{}", rows, cols, experts, eps,
                                     with_bias ? " bias" : ""),
                         {{"x", {rows, cols}}},
                         params,
                         [eps](Tape& tape, const Vars& v, const Params& p) {
                           const Param* const bias = p.size() > 1 ? &p[1] : nullptr;
                           const Var once = ops::router_logits(tape, v[0], p[0], bias, eps, 3);
                           return ops::add(tape, ops::router_logits(tape, v[0], p[0], bias, eps, 4), once);
                         },
                         kAccumulation});
      }
    }
  }
}

// With drops there are rows of nobody, on a device alone: they hold what was there before.
void add_experts(std::vector<OpCase>& cases) {
  constexpr int64_t kTokens = 37, kExperts = 5;
  for (const ops::DropPolicy drop : {ops::DropPolicy::none, ops::DropPolicy::position}) {
    for (const int64_t width : {16, 5}) {
      ops::RouterArgs args;
      args.top_k = 2, args.drop = drop, args.capacity_factor = 0.6, args.min_capacity = 1;
      cases.push_back({fmt::format("dispatch of {} wide tokens, drop {}", width, static_cast<int>(drop)),
                       {{"x", {kTokens, width}}, {"logits", {kTokens, kExperts}, kAccumulation}},
                       {},
                       [args](Tape& tape, const Vars& v, const Params&) {
                         const ops::Routing r = ops::route(tape, v[1], args);
                         return ops::combine(tape, ops::gather_tokens(tape, v[0], r), r);
                       }});
    }
  }
  using ops::Activation;
  for (const Activation activation : {Activation::none, Activation::gelu_tanh, Activation::gelu_erf}) {
    cases.push_back({fmt::format("grouped_linear activation {}", static_cast<int>(activation)),
                     {{"x", {30, 24}}},
                     {{"weight", {3, 16, 24}}, {"bias", {3, 16}, kAccumulation}},
                     [activation](Tape& tape, const Vars& v, const Params& p) {
                       static constexpr int32_t kOffsets[] = {0, 9, 9, 30};
                       const Tensor there = tape.save(DType::i32, {4});
                       copy(Tensor(const_cast<int32_t*>(kOffsets), DType::i32, {4}), there, tape.stream());
                       return ops::grouped_linear(tape, v[0], there, p[0], &p[1], activation);
                     }});
  }
}

// Which keys a row sees: all up to its own; those of its document; all from any one on; from any one to any.
enum class Sees { all, document, any, range };

// Documents of 1 to 50 rows.
std::vector<int32_t> first_keys(const ops::AttentionShape& shape, Sees sees) {
  const Philox random(2, Purpose::test);
  std::vector<int32_t> first;
  int64_t begin = 0, end = 0;
  for (int64_t row = 0; row < shape.rows(); ++row) {
    const int64_t i = row % shape.length;
    const uint32_t bits = random.bits(static_cast<uint64_t>(row));
    if (i == 0 || i == end) begin = i, end = i + 1 + bits % 50;
    first.push_back(static_cast<int32_t>(sees == Sees::document ? begin : bits % (i + 1)));
  }
  return first;
}

// Each row's own to the last of its sequence.
std::vector<int32_t> last_keys(const ops::AttentionShape& shape) {
  const Philox random(3, Purpose::test);
  std::vector<int32_t> last;
  for (int64_t row = 0; row < shape.rows(); ++row) {
    const int64_t i = row % shape.length;
    const uint32_t bits = random.bits(static_cast<uint64_t>(row));
    last.push_back(static_cast<int32_t>(i + bits % (shape.length - i)));
  }
  return last;
}

// One token; lengths around the tiles of 16, 32 and 64 rows; heads that fill their columns, that are padded,
// and that cannot be loaded by 16 bytes or stored by pairs; every number of columns that kernels have.
void add_attention(std::vector<OpCase>& cases) {
  struct Attention {
    ops::AttentionShape shape;
    double dropout = 0;
    Sees sees = Sees::all;
    bool twice = false;
    int64_t window = 0;
  };
  for (const Attention& a :
       {Attention{{2, 1, 1, 1, 8}}, Attention{{2, 5, 4, 2, 24}, 0, Sees::all, true},
        Attention{{1, 64, 2, 2, 6}}, Attention{{2, 17, 3, 1, 3}, 0.3, Sees::any},
        Attention{{1, 131, 2, 1, 64}}, Attention{{2, 150, 2, 1, 8}, 0, Sees::document},
        Attention{{1, 130, 2, 2, 16}, 0.2, Sees::document, true}, Attention{{1, 67, 2, 1, 8}, 0.4},
        Attention{{1, 97, 1, 1, 128}}, Attention{{1, 70, 2, 1, 80}, 0.1, Sees::any},
        Attention{{1, 33, 2, 1, 256}}, Attention{{1, 70, 1, 1, 136}, 0, Sees::document, true},
        Attention{{1, 5, 2, 1, 8}, 0, Sees::range}, Attention{{2, 150, 2, 1, 8}, 0, Sees::range, true},
        Attention{{1, 70, 2, 2, 136}, 0.2, Sees::range},
        Attention{{2, 131, 2, 1, 16}, 0, Sees::all, false, 1},
        Attention{{1, 200, 2, 1, 8}, 0.2, Sees::all, true, 70},
        Attention{{1, 130, 1, 1, 64}, 0, Sees::document, false, 20},
        Attention{{1, 97, 2, 1, 8}, 0, Sees::range, false, 33}}) {
    const ops::AttentionShape& s = a.shape;
    cases.push_back(
        {fmt::format("attention B{} T{} H{}/{} d{} dropout {} sees {} window {}{}", s.batch, s.length,
                     s.heads, s.kv_heads, s.head_dim, a.dropout, static_cast<int>(a.sees), a.window,
                     a.twice ? " twice" : ""),
         {{"qkv", {s.rows(), s.width()}}},
         {},
         [a, first = first_keys(s, a.sees), last = last_keys(s)](Tape& tape, const Vars& v, const Params&) {
           const auto on_device = [&](const std::vector<int32_t>& table) -> const int32_t* {
             const Tensor there = tape.save(DType::i32, {a.shape.rows()});
             copy(Tensor(const_cast<int32_t*>(table.data()), DType::i32, there.shape()), there,
                  tape.stream());
             return there.data<int32_t>();
           };
           const ops::VisibleKeys keys{a.sees == Sees::all ? nullptr : on_device(first),
                                       a.sees == Sees::range ? on_device(last) : nullptr, a.window};
           const double scale = 1 / std::sqrt(static_cast<double>(a.shape.head_dim));
           const Var y = ops::attention(tape, v[0], a.shape, scale, a.dropout, 5, keys);
           if (!a.twice) return y;
           return ops::add(tape, ops::attention(tape, v[0], a.shape, 0.7 * scale, a.dropout, 6, keys), y);
         }});
  }
}

// The dtype of a value in a case that runs in `dtype`.
DType type_of(ValueType type, DType dtype) { return type == ValueType::storage ? dtype : accum_dtype(dtype); }

double norm(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v * v;
  return std::sqrt(sum);
}

}  // namespace

const std::vector<OpCase>& op_cases() {
  static const std::vector<OpCase> all = [] {
    std::vector<OpCase> cases;
    add_elementwise(cases);
    add_rope(cases);
    add_embedding(cases);
    add_norms(cases);
    add_products(cases);
    add_experts(cases);
    add_attention(cases);
    return cases;
  }();
  return all;
}

std::vector<OpResult> run_op(const OpCase& c, Device device, DType drawn, DType dtype) {
  const ::ziggurat::OneThread one_thread;  // each would need memory of its own, and changes no bit
  OpBench host;
  const auto value = [&](const OpInput& input) {
    const Tensor as_drawn = host.tensor(input.name, type_of(input.type, drawn), input.shape);
    if (drawn == dtype) return as_drawn;
    const Tensor exact = host.zeros(dtype, input.shape);
    const std::vector<double> values = to_doubles(as_drawn);
    std::copy(values.begin(), values.end(), exact.data<double>());
    return exact;
  };
  DeviceBench bench(device);
  std::vector<Var> inputs;
  for (const OpInput& input : c.inputs)
    inputs.push_back(bench.tape().variable(bench.on_device(value(input))));
  std::deque<Param> params;
  for (const OpInput& param : c.params) params.push_back(bench.param_on_device(value(param)));
  const Var y = c.op(bench.tape(), inputs, params);
  bench.tape().backward(y, bench.on_device(value({"dy", y.shape(), c.output})));

  std::vector<OpResult> results = {{"output", bench.values(y.value())}};
  for (size_t i = 0; i < inputs.size(); ++i) {
    results.push_back({"gradient of " + c.inputs[i].name, bench.values(bench.tape().grad(inputs[i]))});
  }
  for (size_t i = 0; i < params.size(); ++i) {
    results.push_back({"gradient of " + c.params[i].name, bench.values(params[i].grad)});
  }
  return results;
}

void expect_same_results(const std::vector<OpResult>& got, const std::vector<OpResult>& want, DType dtype) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    const std::string what = fmt::format("{}, {}", to_string(dtype), want[i].name);
    const std::vector<double>&g = got[i].values, &w = want[i].values;
    expect_within(g, w, random_walk(dtype, 4) * largest(w), what);
    std::vector<double> difference(w.size());
    for (size_t k = 0; k < w.size(); ++k) difference[k] = g[k] - w[k];
    // In f32 sums of hundreds of terms in another order, too.
    const double share = dtype == DType::bf16 ? 0.25 : 0.5;
    EXPECT_LE(norm(difference), share * random_walk(dtype, 1) * norm(w)) << what << ", as a whole";
  }
}

}  // namespace ziggurat::test
