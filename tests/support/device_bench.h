// A tape on one device, and tensors of the host on it and back.
#pragma once

#include <vector>

#include "tests/support/op_test.h"
#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>

namespace ziggurat::test {

class DeviceBench {
 public:
  // `memory`: bytes of each arena.
  explicit DeviceBench(Device device, int64_t memory = int64_t{1} << 21)
      : stream_(device),
        activations_("activations", memory, device),
        gradients_("gradients", memory, device),
        workspace_("workspace", memory, device),
        data_("test data", memory, device),
        tape_(activations_, gradients_, workspace_, stream_) {
    tape_.begin({.seed = 1, .step = 3, .index = 2, .training = true});
  }

  Tape& tape() { return tape_; }
  Stream& stream() { return stream_; }
  Tensor on_device(const Tensor& host) {
    const Tensor there = empty(host.dtype(), host.shape());
    copy(host, there, stream_);
    return there;
  }
  Tensor empty(DType dtype, Shape shape) { return allocate(data_, dtype, shape); }
  Param param_on_device(const Tensor& host) {
    const Tensor gradient = empty(accum_dtype(host.dtype()), host.shape());
    fill_zero(gradient, stream_);
    return {on_device(host), gradient};
  }
  std::vector<double> values(const Tensor& there) {
    stream_.wait();
    return test::to_doubles(there);
  }

 private:
  Stream stream_;
  Arena activations_, gradients_, workspace_, data_;
  Tape tape_;
};

}  // namespace ziggurat::test
