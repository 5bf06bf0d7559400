// One table of ops with shapes that are hard for kernels, for every test that holds two ways of computing
// them against each other: a device and the CPU, bf16 and f64.
#pragma once

#include <deque>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>

namespace ziggurat::test {

enum class ValueType { storage, accumulation };  // the dtype that a case runs in, or that of its sums

struct OpInput {
  std::string name;
  Shape shape;
  ValueType type = ValueType::storage;
};

struct OpCase {
  std::string name;
  std::vector<OpInput> inputs, params;
  // May use its inputs several times: gradients are added up.
  std::function<Var(Tape&, const std::vector<Var>&, const std::deque<Param>&)> op;
  ValueType output = ValueType::storage;
};
inline void PrintTo(const OpCase& c, std::ostream* os) { *os << c.name; }

const std::vector<OpCase>& op_cases();

struct OpResult {
  std::string name;  // "output", "gradient of x"
  std::vector<double> values;
};
// Forward and backward on a tape of that device, of values drawn as `drawn` says and then taken as `dtype`:
// the same for every device, and with dtype f64 what others should have computed.
std::vector<OpResult> run_op(const OpCase& c, Device device, DType drawn, DType dtype);

// A handful of roundings to the dtype went into each value; their errors are independent, so that a tensor's
// norm is off by less than its worst element.
void expect_same_results(const std::vector<OpResult>& got, const std::vector<OpResult>& want, DType dtype);

}  // namespace ziggurat::test
