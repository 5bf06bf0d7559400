#include "tests/support/op_test.h"

#include <algorithm>
#include <cmath>

#include <ziggurat/core/philox.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/tensor/host_pieces.h>

namespace ziggurat::test {

namespace {
constexpr int64_t kReserve = int64_t{1} << 32;

// Unit round-off of a stored value.
double epsilon(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return 0x1p-8;
    case DType::f64:
      return 0x1p-52;
    default:
      return 0x1p-23;
  }
}

double get(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::f32:
      return t.data<float>()[i];
    case DType::bf16:
      return t.data<bf16>()[i];
    case DType::f64:
      return t.data<double>()[i];
    case DType::i32:
      return t.data<int32_t>()[i];
  }
  return 0;
}

void set(const Tensor& t, int64_t i, double value) {
  switch (t.dtype()) {
    case DType::f32:
      t.data<float>()[i] = static_cast<float>(value);
      return;
    case DType::bf16:
      t.data<bf16>()[i] = bf16(value);
      return;
    case DType::f64:
      t.data<double>()[i] = value;
      return;
    case DType::i32:
      t.data<int32_t>()[i] = static_cast<int32_t>(value);
      return;
  }
}

class OneThread {
 public:
  OneThread() { set_thread_count(1); }
  ~OneThread() { set_thread_count(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_ = thread_count();
};

}  // namespace

OpBench::OpBench(Reproducible reproducible)
    : activations_("activations", kReserve, Device::cpu, Canaries::checked),
      gradients_("gradients", kReserve, Device::cpu, Canaries::checked),
      workspace_("workspace", kReserve, Device::cpu, Canaries::checked),
      data_("test data", kReserve, Device::cpu, Canaries::checked),
      stream_(Device::cpu, reproducible),
      tape_(activations_, gradients_, workspace_, stream_) {
  tape_.begin(micro_batch);
}

OpBench::~OpBench() {
  for (Arena* arena : {&activations_, &gradients_, &workspace_, &data_}) EXPECT_NO_THROW(arena->reset());
}

Tensor OpBench::ints(const std::vector<int32_t>& values) {
  const Tensor t = allocate(data_, DType::i32, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.data<int32_t>());
  return t;
}

std::vector<int32_t> offsets_of(const std::vector<int64_t>& rows) {
  std::vector<int32_t> offsets = {0};
  for (const int64_t n : rows) offsets.push_back(offsets.back() + static_cast<int32_t>(n));
  return offsets;
}

Tensor OpBench::tensor(const std::string& name, DType dtype, Shape shape, double scale, double offset) {
  const Tensor t = allocate(data_, dtype, shape);
  const Philox rng(1, Purpose::test, hash_name(name));
  for (int64_t i = 0; i < t.numel(); ++i) set(t, i, offset + scale * rng.normal(static_cast<uint64_t>(i)));
  return t;
}

Tensor OpBench::zeros(DType dtype, Shape shape) {
  const Tensor t = allocate(data_, dtype, shape);
  fill_zero(t);
  return t;
}

Param& OpBench::param(const std::string& name, DType dtype, Shape shape, double scale, double offset) {
  params_.push_back({tensor(name, dtype, shape, scale, offset), zeros(accum_dtype(dtype), shape)});
  return params_.back();
}

std::vector<double> to_doubles(const Tensor& tensor) {
  std::vector<double> values;
  HostPieces pieces(1 << 16);
  pieces.read(tensor, [&](const Tensor& piece, int64_t) {
    for (int64_t i = 0; i < piece.numel(); ++i) values.push_back(get(piece, i));
  });
  return values;
}

void expect_close(const Tensor& got, const std::vector<double>& want, int64_t length, double magnitude,
                  const std::string& what) {
  ASSERT_EQ(got.numel(), static_cast<int64_t>(want.size())) << what;
  // One rounding of the stored result, and `length` roundings of the accumulator, both with a factor of 4 to
  // spare.
  const double tolerance =
      4 * epsilon(got.dtype()) + 4 * static_cast<double>(length) * epsilon(accum_dtype(got.dtype()));
  int64_t worst = -1;
  double worst_excess = 0;
  for (int64_t i = 0; i < got.numel(); ++i) {
    const double g = get(got, i), w = want[static_cast<size_t>(i)];
    const double bound = tolerance * std::max({1.0, magnitude, std::abs(w)});
    const double excess = std::isfinite(g) ? std::abs(g - w) / bound : INFINITY;
    if (!(excess <= 1.0) && (worst < 0 || excess > worst_excess)) worst = i, worst_excess = excess;
  }
  EXPECT_EQ(worst, -1) << what << " element " << worst << ": got " << get(got, std::max<int64_t>(worst, 0))
                       << ", want " << (worst < 0 ? 0.0 : want[static_cast<size_t>(worst)]) << ", "
                       << worst_excess << " times the tolerance";
}

double random_walk(DType dtype, int64_t roundings) {
  return 8 * epsilon(dtype) * std::sqrt(static_cast<double>(roundings));
}

double largest(const std::vector<double>& values) {
  double found = 0;
  for (const double value : values) found = std::max(found, std::abs(value));
  return found;
}

void expect_within(const std::vector<double>& got, const std::vector<double>& want, double tolerance,
                   const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  size_t worst = 0;
  double difference = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = std::isfinite(got[i]) ? std::abs(got[i] - want[i]) : INFINITY;
    if (d > difference) worst = i, difference = d;
  }
  EXPECT_LE(difference, tolerance) << what << " element " << worst << ": got " << got[worst] << ", want "
                                   << want[worst] << ", " << difference / tolerance << " times the tolerance";
}

void expect_gradients(OpBench& bench, const std::vector<Tensor>& inputs, const std::vector<Param*>& params,
                      const OpUnderTest& op) {
  Tape& tape = bench.tape();
  Tensor weights;  // r
  const auto run = [&](bool with_backward, std::vector<std::vector<double>>* input_grads) {
    tape.begin(bench.micro_batch);
    std::vector<Var> vars;
    for (const Tensor& x : inputs) vars.push_back(tape.variable(x));
    const Var y = op(tape, vars);
    if (!weights) weights = bench.tensor("the weights r of the scalar", DType::f64, y.shape());
    double scalar = 0;
    for (int64_t i = 0; i < weights.numel(); ++i) scalar += get(weights, i) * get(y.value(), i);
    if (with_backward) {
      tape.backward(y, weights);
      for (size_t v = 0; v < vars.size(); ++v) {
        const Tensor& g = tape.grad(vars[v]);
        input_grads->push_back(g ? to_doubles(g)
                                 : std::vector<double>(static_cast<size_t>(inputs[v].numel())));
      }
    }
    return scalar;
  };

  for (Param* p : params) fill_zero(p->grad);
  std::vector<std::vector<double>> analytic;
  run(true, &analytic);
  for (Param* p : params) analytic.push_back(to_doubles(p->grad));

  // Thousands of tiny evaluations: waking threads would take most of the time, and changes no bit.
  const OneThread one_thread;
  std::vector<Tensor> targets = inputs;
  for (Param* p : params) targets.push_back(p->value);
  for (size_t t = 0; t < targets.size(); ++t) {
    ASSERT_EQ(targets[t].dtype(), DType::f64) << "gradient checks are done in f64";
    for (int64_t i = 0; i < targets[t].numel(); ++i) {
      const double x = get(targets[t], i), h = 1e-5 * std::max(1.0, std::abs(x));
      set(targets[t], i, x + h);
      const double above = run(false, nullptr);
      set(targets[t], i, x - h);
      const double below = run(false, nullptr);
      set(targets[t], i, x);
      const double numeric = (above - below) / (2 * h), got = analytic[t][static_cast<size_t>(i)];
      // Truncation O(h^2) and rounding O(eps/h) are both about 1e-10 of the scalar's scale.
      ASSERT_NEAR(got, numeric, 1e-6 * std::max({1.0, std::abs(numeric), std::abs(above)}))
          << (t < inputs.size() ? "input " : "parameter ") << (t < inputs.size() ? t : t - inputs.size())
          << ", element " << i;
    }
  }
}

std::vector<double> concatenate(const std::vector<Tensor>& tensors) {
  std::vector<double> values;
  for (const Tensor& tensor : tensors) {
    const auto more = to_doubles(tensor);
    values.insert(values.end(), more.begin(), more.end());
  }
  return values;
}

void expect_same_on_any_thread_count(const std::function<std::vector<double>()>& run) {
  const int before = thread_count();
  std::vector<double> want;
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    const auto got = run();
    if (threads == 1) want = got;
    EXPECT_EQ(got, want) << threads << " threads";
  }
  set_thread_count(before);
}

}  // namespace ziggurat::test
