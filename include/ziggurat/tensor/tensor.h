// DType, Shape and Tensor: a contiguous row-major view on memory that somebody else owns. It knows no
// gradients.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include <ziggurat/build_config.h>
#include <ziggurat/core/bf16.h>
#include <ziggurat/core/error.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {

enum class DType : uint8_t { f32, bf16, f64, i32 };

const char* to_string(DType dtype);
int64_t size_of(DType dtype);  // bytes

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, bf16>) return DType::bf16;
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, int32_t>) return DType::i32;
}

// The dtype of sums, 1-D parameters and parameter gradients beside activations of `dtype`: f64 for f64, else
// f32.
constexpr DType accum_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  int64_t numel() const;  // 1 for rank 0
  bool operator==(const Shape&) const = default;
  std::string str() const;  // "[2, 3]"

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

class Tensor {
 public:
  Tensor() = default;
  Tensor(void* data, DType dtype, Shape shape, Device device = Device::cpu)
      : data_(data), shape_(shape), dtype_(dtype), device_(device) {}

  explicit operator bool() const { return data_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  int rank() const { return shape_.rank(); }
  int64_t numel() const { return shape_.numel(); }
  int64_t bytes() const { return numel() * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  void* raw() const { return data_; }

  // Typed pointer; throws Error(internal) on a dtype mismatch.
  template <class T>
  T* data() const {
    check(dtype_ == dtype_of<T>(), ErrorKind::internal, "[tensor] {} tensor read as {}", to_string(dtype_),
          to_string(dtype_of<T>()));
    return static_cast<T*>(data_);
  }

  Tensor reshape(Shape shape) const;              // same memory; numel must match
  Tensor rows(int64_t begin, int64_t end) const;  // rows [begin, end) of the leading dim

 private:
  void* data_ = nullptr;
  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_ = Device::cpu;
};
static_assert(std::is_trivially_copyable_v<Tensor>);  // tensors live inside arena-allocated closures

// Uninitialised tensor from an arena.
Tensor allocate(Arena& arena, DType dtype, Shape shape);

// In the order of the stream. copy: same dtype and numel; the tensors may lie on two devices, of which the
// stream is one's.
void fill_zero(const Tensor& tensor, Stream& stream);
void copy(const Tensor& from, const Tensor& to, Stream& stream);
// At once: of tensors on Device::cpu (or a meta device, where nothing happens).
void fill_zero(const Tensor& tensor);
void copy(const Tensor& from, const Tensor& to);

// Calls f.template operator()<T>() for a floating dtype.
template <class F>
void visit_float_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::bf16:
      return f.template operator()<bf16>();
    case DType::f64:
      return f.template operator()<double>();
    case DType::i32:
      break;
  }
  fail(ErrorKind::argument, "[dispatch] expected a floating-point tensor, got {}", to_string(dtype));
}

// Throws Error(device): the kernels do not exist for this device and dtype, or not in this build.
[[noreturn]] void fail_without_kernels(const char* kernels, Device device, DType dtype, bool declared);

// Calls f.template operator()<Device, T>() for x's device and floating dtype, for which all of `Kernels` must
// exist (runtime/kernel_support.h). On a meta device as on the one it stands for, but as a dry run.
//   visit_kernels<kernels::SwigluKernels>(
//       x, [&]<Device D, class T>() { kernels::swiglu_forward<D, T>({...}, stream); });
template <class... Kernels, class F>
void visit_kernels(const Tensor& x, F&& f) {
  const auto on = [&]<Device D>() {
    visit_float_dtype(x.dtype(), [&]<class T>() {
      if constexpr ((kExists<Kernels, D, T> && ...)) {
        f.template operator()<D, T>();
      } else {
        const auto check_one = []<class K>() {
          if (!kExists<K, D, T>) fail_without_kernels(K::kName, D, dtype_of<T>(), kDeclared<K, D, T>);
        };
        (check_one.template operator()<Kernels>(), ...);
      }
    });
  };
  std::optional<DryRun> dry;
  if (is_meta(x.device())) dry.emplace();
  if (planned(x.device()) == Device::cuda) {
    on.template operator()<Device::cuda>();
  } else {
    on.template operator()<Device::cpu>();
  }
}

}  // namespace ziggurat

template <>
struct fmt::formatter<ziggurat::Shape> : fmt::formatter<std::string> {
  auto format(const ziggurat::Shape& shape, fmt::format_context& ctx) const {
    return fmt::formatter<std::string>::format(shape.str(), ctx);
  }
};
