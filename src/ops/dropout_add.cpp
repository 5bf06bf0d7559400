#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/dropout.h>
#include <ziggurat/ops/add.h>
#include <ziggurat/ops/dropout.h>
#include <ziggurat/ops/dropout_add.h>

namespace ziggurat::ops {

Var dropout_add(Tape& tape, Var x, Var residual, double rate, Purpose purpose, int64_t layer) {
  check(0 <= rate && rate < 1, ErrorKind::argument, "[dropout_add] expected 0 <= rate < 1, got {}", rate);
  check(x.shape() == residual.shape() && x.dtype() == residual.dtype(), ErrorKind::argument,
        "[dropout_add] expected x and residual alike, got {} {} and {} {}", to_string(x.dtype()), x.shape(),
        to_string(residual.dtype()), residual.shape());
  if (rate == 0 || !tape.micro_batch().training) return add(tape, residual, x);
  const Var y = tape.output(x.dtype(), x.shape(), x.wants_grad() || residual.wants_grad());
  const LatePhilox rng = tape.random(purpose, layer);
  const int64_t n = x.value().numel(), first = tape.first_of_shard(n);

  note_kernel("dropout_add", Pass::forward, x, residual, y);
  visit_kernels<kernels::DropoutKernels>(x.value(), [&]<Device D, class T>() {
    kernels::dropout<D>(kernels::DropoutArgs<T>{n, rate, rng, x.value().data<T>(), residual.value().data<T>(),
                                                y.value().data<T>(), first},
                        tape.stream());
  });

  // dresidual = dy, dx = mask / (1 - rate) dy; the mask is computed again.
  tape.record(y, [=](Tape& t, const Tensor& dy) {
    t.pass_grad(residual, dy);
    const GradSlot dx = t.grad_slot(x);
    if (!dx) return;
    note_kernel("dropout_add", Pass::backward, dy, dx);
    visit_kernels<kernels::DropoutKernels>(dy, [&]<Device D, class T>() {
      T* out = dx.grad.data<T>();
      kernels::dropout<D>(
          kernels::DropoutArgs<T>{n, rate, rng, dy.data<T>(), dx.accumulate ? out : nullptr, out, first},
          t.stream());
    });
  });
  return y;
}

}  // namespace ziggurat::ops
