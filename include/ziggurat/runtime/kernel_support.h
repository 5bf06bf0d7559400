// For which devices and dtypes kernels exist: declared beside their contract, read by the dispatch
// (visit_kernels in tensor/tensor.h) and by tests.
//
//   struct SwigluKernels : OnCpu {
//     static constexpr const char* kName = "swiglu";
//     using Cuda = Dtypes<float, bf16>;
//   };
#pragma once

#include <type_traits>

#include <ziggurat/build_config.h>
#include <ziggurat/core/bf16.h>
#include <ziggurat/runtime/device.h>

namespace ziggurat {

template <class... T>
struct Dtypes {
  template <class U>
  static constexpr bool kHas = (std::is_same_v<T, U> || ...);
};

struct OnCpu {
  using Cpu = Dtypes<float, bf16, double>;
  using Cuda = Dtypes<>;  // none yet
};

// In any build.
template <class Kernels, Device D, class T>
constexpr bool kDeclared =
    D == Device::cuda ? Kernels::Cuda::template kHas<T> : Kernels::Cpu::template kHas<T>;
// In this one.
template <class Kernels, Device D, class T>
constexpr bool kExists = kDeclared<Kernels, D, T> && (D != Device::cuda || kHasCuda);

}  // namespace ziggurat
