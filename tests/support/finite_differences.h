// Gradients of a loss that is a number and no Var; for ops with a Var see check_gradients() in op_test.h.
#pragma once

#include <functional>
#include <vector>

#include <gtest/gtest.h>

#include <ziggurat/tensor/tensor.h>

namespace ziggurat::test {

// `gradient`, of loss() with respect to `values` f64, which loss() reads, is its central difference within
// `tolerance`, element by element. The values are then as they were.
inline void expect_central_differences(const Tensor& values, const std::vector<double>& gradient,
                                       const std::function<double()>& loss, double tolerance) {
  ASSERT_EQ(gradient.size(), static_cast<size_t>(values.numel()));
  for (int64_t i = 0; i < values.numel(); ++i) {
    double& element = values.data<double>()[i];
    const double before = element, h = 1e-5;
    element = before + h;
    const double above = loss();
    element = before - h;
    const double below = loss();
    element = before;
    ASSERT_NEAR(gradient[static_cast<size_t>(i)], (above - below) / (2 * h), tolerance) << "element " << i;
  }
}

}  // namespace ziggurat::test
