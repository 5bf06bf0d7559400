#include <ziggurat/autograd/accumulate.h>
#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/elementwise.h>

namespace ziggurat {

void accumulate(const Tensor& x, const Tensor& y, Stream& stream) {
  check(x.dtype() == y.dtype() && x.numel() == y.numel() && x.device() == y.device(), ErrorKind::internal,
        "[accumulate] {} {} on {} to {} {} on {}", to_string(x.dtype()), x.shape(), to_string(x.device()),
        to_string(y.dtype()), y.shape(), to_string(y.device()));
  note_kernel("accumulate", Pass::backward, x, 2 * bytes_touched(y));
  visit_kernels<kernels::ElementwiseKernels>(
      x, [&]<Device D, class T>() { kernels::accumulate<D>(x.data<T>(), y.data<T>(), x.numel(), stream); });
}

}  // namespace ziggurat
