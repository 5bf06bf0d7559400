#include "tests/emulation/ops/device_and_cpu.h"

#include <cmath>

#include "tests/support/op_test.h"
#include <ziggurat/runtime/backend.h>

namespace ziggurat::emulation {

namespace {

constexpr int64_t kMemory = int64_t{1} << 19;  // bytes of an arena

// A tape on one device, and tensors of the host on it and back.
class DeviceBench {
 public:
  explicit DeviceBench(Device device)
      : stream_(device),
        activations_("activations", kMemory, device),
        gradients_("gradients", kMemory, device),
        workspace_("workspace", kMemory, device),
        data_("test data", kMemory, device),
        host_("host", kMemory),
        tape_(activations_, gradients_, workspace_, stream_) {
    tape_.begin({.seed = 1, .step = 3, .index = 2, .training = true});
  }

  Tape& tape() { return tape_; }
  Tensor on_device(const Tensor& host) {
    const Tensor there = allocate(data_, host.dtype(), host.shape());
    copy(host, there, stream_);
    return there;
  }
  Param param_on_device(const Tensor& host) {
    const Tensor gradient = allocate(data_, accum_dtype(host.dtype()), host.shape());
    fill_zero(gradient, stream_);
    return {on_device(host), gradient};
  }
  std::vector<double> values(const Tensor& there) {
    if (there.device() == Device::cpu) return test::to_doubles(there);
    const Tensor here = allocate(host_, there.dtype(), there.shape());
    copy(there, here, stream_);
    backend(there.device()).wait(stream_);
    return test::to_doubles(here);
  }

 private:
  Stream stream_;
  Arena activations_, gradients_, workspace_, data_, host_;
  Tape tape_;
};

// Output, then the gradients.
std::vector<std::vector<double>> run(Device device, test::OpBench& host, const std::vector<Tensor>& inputs,
                                     const std::vector<Tensor>& params, const OpWithParams& op) {
  DeviceBench bench(device);
  std::vector<Var> vars;
  for (const Tensor& input : inputs) vars.push_back(bench.tape().variable(bench.on_device(input)));
  std::deque<Param> there;
  for (const Tensor& param : params) there.push_back(bench.param_on_device(param));
  const Var y = op(bench.tape(), vars, there);
  bench.tape().backward(y, bench.on_device(host.tensor("dy", y.dtype(), y.shape())));
  std::vector<std::vector<double>> results = {bench.values(y.value())};
  for (const Var& var : vars) results.push_back(bench.values(bench.tape().grad(var)));
  for (const Param& param : there) results.push_back(bench.values(param.grad));
  return results;
}

double norm(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v * v;
  return std::sqrt(sum);
}

}  // namespace

void expect_device_equals_cpu(const std::vector<OpInput>& inputs,
                              const std::function<Var(Tape&, const std::vector<Var>&)>& op) {
  expect_device_equals_cpu(
      inputs, {},
      [&](Tape& tape, const std::vector<Var>& vars, const std::deque<Param>&) { return op(tape, vars); });
}

void expect_device_equals_cpu(const std::vector<OpInput>& inputs, const std::vector<OpInput>& params,
                              const OpWithParams& op) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    test::OpBench host;
    const auto made = [&](const std::vector<OpInput>& specs) {
      std::vector<Tensor> tensors;
      for (const OpInput& spec : specs) {
        const DType of = spec.type == InputType::storage ? dtype : accum_dtype(dtype);
        tensors.push_back(host.tensor(spec.name, of, spec.shape));
      }
      return tensors;
    };
    const std::vector<Tensor> tensors = made(inputs), weights = made(params);
    std::vector<std::string> names = {"output"};
    for (const OpInput& input : inputs) names.push_back("gradient of " + input.name);
    for (const OpInput& param : params) names.push_back("gradient of " + param.name);
    const auto want = run(Device::cpu, host, tensors, weights, op);
    const auto got = run(Device::cuda, host, tensors, weights, op);
    EXPECT_FALSE(all_counts().empty()) << "no kernel ran on the device";
    for (size_t i = 0; i < want.size(); ++i) {
      const std::string what = std::string(to_string(dtype)) + ", " + names[i];
      // A handful of roundings to the dtype went into each; their errors are independent, so that a tensor's
      // norm is off by less than its worst element.
      test::expect_within(got[i], want[i], test::random_walk(dtype, 4) * test::largest(want[i]), what);
      std::vector<double> difference(want[i].size());
      for (size_t k = 0; k < difference.size(); ++k) difference[k] = got[i][k] - want[i][k];
      EXPECT_LE(norm(difference), test::random_walk(dtype, 1) / 2 * norm(want[i])) << what << ", as a whole";
    }
  }
}

}  // namespace ziggurat::emulation
