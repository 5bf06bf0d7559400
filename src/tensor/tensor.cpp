#include <cstring>

#include <ziggurat/runtime/backend.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

namespace {
constexpr int64_t kFillBlock = int64_t{1} << 20;  // bytes a thread takes at once

void check_alike(const Tensor& from, const Tensor& to) {
  check(from.dtype() == to.dtype() && from.numel() == to.numel(), ErrorKind::internal,
        "[copy] {} {} to {} {}", to_string(from.dtype()), from.shape(), to_string(to.dtype()), to.shape());
}
}  // namespace

const char* to_string(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f64:
      return "f64";
    case DType::i32:
      return "i32";
  }
  return "unknown";
}

int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return 2;
    case DType::f64:
      return 8;
    default:
      return 4;
  }
}

Shape::Shape(std::initializer_list<int64_t> dims) {
  check(dims.size() <= kMaxRank, ErrorKind::internal, "[shape] at most {} dims, got {}", kMaxRank,
        dims.size());
  for (const int64_t d : dims) {
    check(d >= 0, ErrorKind::argument, "[shape] a dim must not be negative, got {}", d);
    dims_[static_cast<size_t>(rank_++)] = d;
  }
}

int64_t Shape::numel() const {
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= (*this)[i];
  return n;
}

std::string Shape::str() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += (i > 0 ? ", " : "") + std::to_string((*this)[i]);
  return s + "]";
}

Tensor Tensor::reshape(Shape shape) const {
  check(shape.numel() == numel(), ErrorKind::argument, "[tensor] cannot view {} as {}", shape_, shape);
  return Tensor(data_, dtype_, shape, device_);
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  check(rank() >= 1 && 0 <= begin && begin <= end && end <= dim(0), ErrorKind::argument,
        "[tensor] rows [{}, {}) of {}", begin, end, shape_);
  const int64_t row_elements = dim(0) == 0 ? 0 : numel() / dim(0);
  Shape shape = shape_;
  switch (rank()) {
    case 1:
      shape = {end - begin};
      break;
    case 2:
      shape = {end - begin, dim(1)};
      break;
    case 3:
      shape = {end - begin, dim(1), dim(2)};
      break;
    default:
      shape = {end - begin, dim(1), dim(2), dim(3)};
      break;
  }
  return Tensor(static_cast<char*>(data_) + begin * row_elements * size_of(dtype_), dtype_, shape, device_);
}

Tensor allocate(Arena& arena, DType dtype, Shape shape) {
  return Tensor(arena.allocate_on_device(shape.numel() * size_of(dtype)), dtype, shape, arena.device());
}

void fail_without_kernels(const char* kernels, Device device, DType dtype, bool declared) {
  check(!declared, ErrorKind::device,
        "[{}] this build has no kernels for {}: build with -DZIGGURAT_CUDA=ON where the CUDA toolkit is, or "
        "use the CPU",
        kernels, to_string(device));
  fail(ErrorKind::device, "[{}] no kernel for {} on {} yet: use another dtype, or the CPU", kernels,
       to_string(dtype), to_string(device));
}

void fill_zero(const Tensor& tensor, Stream& stream) {
  if (tensor.device() != Device::cuda) return fill_zero(tensor);
  if (tensor.numel() > 0) backend(Device::cuda).fill_zero(tensor.raw(), tensor.bytes(), stream);
}

void copy(const Tensor& from, const Tensor& to, Stream& stream) {
  if (from.device() != Device::cuda && to.device() != Device::cuda) return copy(from, to);
  check_alike(from, to);
  if (from.numel() > 0) backend(Device::cuda).copy(from.raw(), to.raw(), from.bytes(), stream);
}

void fill_zero(const Tensor& tensor) {
  check(tensor.device() != Device::cuda, ErrorKind::internal,
        "[fill_zero] memory of a device needs a stream");
  if (is_meta(tensor.device()) || tensor.numel() == 0) return;
  parallel_for_blocks(tensor.bytes(), kFillBlock, [&](int64_t begin, int64_t end) {
    std::memset(static_cast<char*>(tensor.raw()) + begin, 0, static_cast<size_t>(end - begin));
  });
}

void copy(const Tensor& from, const Tensor& to) {
  check_alike(from, to);
  check(from.device() != Device::cuda && to.device() != Device::cuda, ErrorKind::internal,
        "[copy] memory of a device needs a stream");
  if (is_meta(from.device()) || is_meta(to.device()) || from.numel() == 0) return;
  std::memcpy(to.raw(), from.raw(), static_cast<size_t>(from.bytes()));
}

}  // namespace ziggurat
