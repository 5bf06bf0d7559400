// What every op's test needs: a tape with memory, filled tensors, parameters, and the two checks
//   expect_gradients  f64 central differences against the op's backward, for every input and parameter
//   expect_close      a value against a naive f64 reference, with a tolerance computed from dtype, length and
//   magnitude
// A case that depends on the tape's micro-batch (dropout, noise) sees the same micro-batch on every
// evaluation. The bench's memory has canaries: fresh memory is NaN, and writes out of bounds fail the test.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>

namespace ziggurat::test {

class OpBench {
 public:
  explicit OpBench(Reproducible reproducible = Reproducible::layout);
  ~OpBench();  // fails the test if a kernel wrote out of bounds
  OpBench(const OpBench&) = delete;
  OpBench& operator=(const OpBench&) = delete;

  Tape& tape() { return tape_; }
  const Arena& activations() const { return activations_; }
  const Arena& gradients() const { return gradients_; }
  MicroBatch micro_batch{.seed = 1, .step = 3, .index = 2, .training = true};

  // Values from N(0, scale) + offset as a function of (name) only; they live as long as the bench.
  Tensor tensor(const std::string& name, DType dtype, Shape shape, double scale = 1.0, double offset = 0.0);
  Tensor zeros(DType dtype, Shape shape);
  Tensor ints(const std::vector<int32_t>& values);  // [n]
  // A parameter with zeroed gradient. `dtype` is the storage dtype of its value.
  Param& param(const std::string& name, DType dtype, Shape shape, double scale = 1.0, double offset = 0.0);

 private:
  Arena activations_, gradients_, workspace_, data_;
  Stream stream_;
  Tape tape_;
  std::deque<Param> params_;
};

// Of a tensor on any device, once work that writes it is done.
std::vector<double> to_doubles(const Tensor& tensor);

// Where groups of so many rows begin, and the last ends.
std::vector<int32_t> offsets_of(const std::vector<int64_t>& rows);

// Compares element by element: |got - want| <= tolerance(dtype, length) * max(1, magnitude), where a result
// is a sum of `length` terms of size up to `magnitude`. Reports the worst element.
void expect_close(const Tensor& got, const std::vector<double>& want, int64_t length = 1,
                  double magnitude = 1.0, const std::string& what = "");

// The error, relative to the largest value, of a result that `roundings` roundings in `dtype` went into, one
// after the other. They are independent and add up like a random walk; 8 leaves room for the amplification by
// norms and softmaxes.
double random_walk(DType dtype, int64_t roundings);
double largest(const std::vector<double>& values);  // absolute value

// |got - want| <= tolerance, element by element. Reports the worst element.
void expect_within(const std::vector<double>& got, const std::vector<double>& want, double tolerance,
                   const std::string& what);

// Checks d(sum(r * op(inputs)))/d(each input and parameter) for a fixed random r against central differences
// in f64. `inputs` are f64 tensors; `op` gets one Var per input and returns the output. Inputs stay as they
// were.
using OpUnderTest = std::function<Var(Tape&, const std::vector<Var>&)>;
void expect_gradients(OpBench& bench, const std::vector<Tensor>& inputs, const std::vector<Param*>& params,
                      const OpUnderTest& op);

// The values of several tensors, one after the other.
std::vector<double> concatenate(const std::vector<Tensor>& tensors);

// run() must give the same values, to the bit, on 1, 2 and 3 threads.
void expect_same_on_any_thread_count(const std::function<std::vector<double>()>& run);

}  // namespace ziggurat::test
