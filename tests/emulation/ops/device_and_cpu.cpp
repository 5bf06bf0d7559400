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
                                     const std::function<Var(Tape&, const std::vector<Var>&)>& op) {
  DeviceBench bench(device);
  std::vector<Var> vars;
  for (const Tensor& input : inputs) vars.push_back(bench.tape().variable(bench.on_device(input)));
  const Var y = op(bench.tape(), vars);
  bench.tape().backward(y, bench.on_device(host.tensor("dy", y.dtype(), y.shape())));
  std::vector<std::vector<double>> results = {bench.values(y.value())};
  for (const Var& var : vars) results.push_back(bench.values(bench.tape().grad(var)));
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
  for (const DType dtype : {DType::f32, DType::bf16}) {
    test::OpBench host;
    std::vector<Tensor> tensors;
    for (const OpInput& input : inputs) {
      tensors.push_back(host.tensor(input.name, input.type == InputType::storage ? dtype : accum_dtype(dtype),
                                    input.shape));
    }
    const auto want = run(Device::cpu, host, tensors, op), got = run(Device::cuda, host, tensors, op);
    EXPECT_FALSE(all_counts().empty()) << "no kernel ran on the device";
    for (size_t i = 0; i < want.size(); ++i) {
      const std::string what =
          std::string(to_string(dtype)) + (i == 0 ? ", output" : ", gradient of " + inputs[i - 1].name);
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
