// Activation functions and their derivatives, for kernels that take one of them as a template argument.
#pragma once

#include <kernels/cuda/device/number.h>

#include <ziggurat/kernels/bias_activation.h>

namespace ziggurat::kernels {

struct Identity {
  static constexpr bool kIsIdentity = true;
};

// gelu(z) = z/2 (1 + tanh(u)) = z s, s = sigmoid(2u), u = sqrt(2/pi) (z + 0.044715 z^3)
struct GeluTanh {
  static constexpr bool kIsIdentity = false;
  static constexpr float kTwo = 2 * 0.7978845608028654f;  // 2 sqrt(2/pi)
  __device__ static float s(float z) { return sigmoid(z * (kTwo + kTwo * 0.044715f * z * z)); }
  __device__ static float value(float z) { return z * s(z); }
  // gelu'(z) = s + z s (1 - s) 2u'
  __device__ static float derivative(float z) {
    const float sz = s(z);
    return sz + z * sz * (1.0f - sz) * (kTwo + 3 * kTwo * 0.044715f * z * z);
  }
};

// gelu(z) = z Phi(z), gelu'(z) = Phi(z) + z phi(z)
struct GeluErf {
  static constexpr bool kIsIdentity = false;
  __device__ static float cdf(float z) { return 0.5f * (1.0f + erff(z * 0.70710678f)); }
  __device__ static float value(float z) { return z * cdf(z); }
  __device__ static float derivative(float z) { return cdf(z) + z * 0.39894228f * expf(-0.5f * z * z); }
};

// f(one of these).
template <class F>
void visit_activation(Activation activation, const F& f) {
  if (activation == Activation::none) f(Identity{});
  if (activation == Activation::gelu_tanh) f(GeluTanh{});
  if (activation == Activation::gelu_erf) f(GeluErf{});
}

}  // namespace ziggurat::kernels
