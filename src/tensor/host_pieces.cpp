#include <algorithm>

#include <ziggurat/tensor/host_pieces.h>

namespace ziggurat {

void HostPieces::each(
    const Tensor& tensor,
    const std::function<void(const Tensor& there, const Tensor& here, Stream& stream, int64_t first)>& f) {
  if (!staging_) {
    staging_ =
        std::make_unique<Staging>(Staging{Stream(tensor.device()), HostMemory(tensor.device(), bytes_)});
  }
  const Tensor flat = tensor.reshape({tensor.numel()});
  const int64_t most = bytes_ / size_of(tensor.dtype());
  for (int64_t first = 0; first < flat.numel(); first += most) {
    const Tensor there = flat.rows(first, std::min(first + most, flat.numel()));
    f(there, Tensor(staging_->memory.data(), tensor.dtype(), there.shape()), staging_->stream, first);
  }
}

void HostPieces::read(const Tensor& tensor, const std::function<void(const Tensor&, int64_t)>& f) {
  if (tensor.device() == Device::cpu) return f(tensor.reshape({tensor.numel()}), 0);
  each(tensor, [&](const Tensor& there, const Tensor& here, Stream& stream, int64_t first) {
    copy(there, here, stream);
    stream.wait();
    f(here, first);
  });
}

void HostPieces::write(const Tensor& tensor, const std::function<void(const Tensor&, int64_t)>& f) {
  if (tensor.device() == Device::cpu) return f(tensor.reshape({tensor.numel()}), 0);
  each(tensor, [&](const Tensor& there, const Tensor& here, Stream& stream, int64_t first) {
    f(here, first);
    copy(here, there, stream);
    stream.wait();
  });
}

}  // namespace ziggurat
