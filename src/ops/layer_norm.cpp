#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/layer_norm.h>
#include <ziggurat/ops/layer_norm.h>

namespace ziggurat::ops {

Var layer_norm(Tape& tape, Var x, const Param& weight, const Param& bias, double eps) {
  check(x.shape().rank() == 2 && x.dim(1) > 0, ErrorKind::argument,
        "[layer_norm] expected x [N, C] with C > 0, got {}", x.shape());
  const int64_t rows = x.dim(0), cols = x.dim(1);
  const DType accum = accum_dtype(x.dtype());
  check(weight.value.shape() == Shape{cols} && bias.value.shape() == Shape{cols}, ErrorKind::argument,
        "[layer_norm] expected weight and bias [{}], got {} and {}", cols, weight.value.shape(),
        bias.value.shape());
  check(weight.value.dtype() == accum && bias.value.dtype() == accum, ErrorKind::argument,
        "[layer_norm] x is {}: expected weight and bias {}, got {} and {}", to_string(x.dtype()),
        to_string(accum), to_string(weight.value.dtype()), to_string(bias.value.dtype()));
  check(eps > 0, ErrorKind::argument, "[layer_norm] expected eps > 0, got {}", eps);

  const Var y =
      tape.output(x.dtype(), {rows, cols}, x.wants_grad() || weight.trainable() || bias.trainable());
  // Two numbers per row: to compute them again would cost backward another two passes over x.
  const Tensor mean = tape.save(accum, {rows}), rstd = tape.save(accum, {rows});

  note_kernel("layer_norm", Pass::forward, x, y, mean, rstd);
  visit_kernels<kernels::LayerNormKernels>(x.value(), [&]<Device D, class T>() {
    using A = Accum<T>;
    kernels::layer_norm_forward<D>(
        kernels::LayerNormArgs<T>{rows, cols, static_cast<A>(eps), x.value().data<T>(),
                                  weight.value.data<A>(), bias.value.data<A>(), y.value().data<T>(),
                                  mean.data<A>(), rstd.data<A>()},
        tape.stream());
  });

  tape.record(y, {&weight, &bias}, [=, &weight, &bias](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    // With xhat = (x - mean) rstd and v = dy weight:
    // dx = rstd (v - mean(v) - xhat mean(v xhat)), dweight += sum over rows of dy xhat, dbias += sum of dy
    note_kernel("layer_norm", Pass::backward, x, mean, rstd, dy, dx);
    visit_kernels<kernels::LayerNormKernels>(dy, [&]<Device D, class T>() {
      using A = Accum<T>;
      kernels::layer_norm_backward<D>(
          kernels::LayerNormGradArgs<T>{rows, cols, x.value().data<T>(), weight.value.data<A>(),
                                        mean.data<A>(), rstd.data<A>(), dy.data<T>(),
                                        dx ? dx.grad.data<T>() : nullptr, dx.accumulate,
                                        weight.trainable() ? weight.grad.data<A>() : nullptr,
                                        bias.trainable() ? bias.grad.data<A>() : nullptr},
          t.workspace(), t.stream());
    });
  });
  return y;
}

}  // namespace ziggurat::ops
