// What lies in a device's memory, piece by piece on the host, and back: to save, load and look at it.
#pragma once

#include <functional>
#include <memory>

#include <ziggurat/runtime/backend.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

class HostPieces {
 public:
  // `bytes`: of a piece at most, and of the memory that is taken when it is first needed.
  explicit HostPieces(int64_t bytes = int64_t{64} << 20) : bytes_(bytes) {}

  // f(piece, first): flat pieces of the tensor in their order, from element `first` on; they may be read
  // until f returns. Where the tensor lies on the host it is one piece, itself. Work that writes the tensor
  // must be done.
  void read(const Tensor& tensor, const std::function<void(const Tensor& piece, int64_t first)>& f);
  // The same the other way: f fills a piece. Returns when all has arrived.
  void write(const Tensor& tensor, const std::function<void(const Tensor& piece, int64_t first)>& f);

 private:
  struct Staging {
    Stream stream;
    HostMemory memory;
  };
  void each(
      const Tensor& tensor,
      const std::function<void(const Tensor& there, const Tensor& here, Stream& stream, int64_t first)>& f);
  int64_t bytes_;
  std::unique_ptr<Staging> staging_;
};

}  // namespace ziggurat
