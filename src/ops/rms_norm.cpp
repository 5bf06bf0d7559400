#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/rms_norm.h>
#include <ziggurat/ops/rms_norm.h>

namespace ziggurat::ops {

Var rms_norm(Tape& tape, Var x, const Param& weight, double eps) {
  check(x.shape().rank() == 2 && x.dim(1) > 0, ErrorKind::argument,
        "[rms_norm] expected x [N, C] with C > 0, got {}", x.shape());
  const int64_t rows = x.dim(0), cols = x.dim(1);
  const DType accum = accum_dtype(x.dtype());
  check(weight.value.shape() == Shape{cols} && weight.value.dtype() == accum, ErrorKind::argument,
        "[rms_norm] expected weight {} [{}], got {} {}", to_string(accum), cols,
        to_string(weight.value.dtype()), weight.value.shape());
  check(eps > 0, ErrorKind::argument, "[rms_norm] expected eps > 0, got {}", eps);

  const Var y = tape.output(x.dtype(), {rows, cols}, x.wants_grad() || weight.trainable());
  const Tensor rstd = tape.save(accum, {rows});  // one number per row, for another pass over x in backward

  note_kernel("rms_norm", Pass::forward, x, y, rstd);
  visit_kernels<kernels::RmsNormKernels>(x.value(), [&]<Device D, class T>() {
    using A = Accum<T>;
    kernels::rms_norm_forward<D>(
        kernels::RmsNormArgs<T>{rows, cols, static_cast<A>(eps), x.value().data<T>(), weight.value.data<A>(),
                                y.value().data<T>(), rstd.data<A>()},
        tape.stream());
  });

  tape.record(y, {&weight}, [=, &weight](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    // With xhat = x rstd and v = dy weight:
    // dx = rstd (v - xhat mean(v xhat)), dweight += sum over rows of dy xhat
    note_kernel("rms_norm", Pass::backward, x, rstd, dy, dx);
    visit_kernels<kernels::RmsNormKernels>(dy, [&]<Device D, class T>() {
      using A = Accum<T>;
      kernels::rms_norm_backward<D>(
          kernels::RmsNormGradArgs<T>{rows, cols, x.value().data<T>(), weight.value.data<A>(), rstd.data<A>(),
                                      dy.data<T>(), dx ? dx.grad.data<T>() : nullptr, dx.accumulate,
                                      weight.trainable() ? weight.grad.data<A>() : nullptr},
          t.workspace(), t.stream());
    });
  });
  return y;
}

}  // namespace ziggurat::ops
