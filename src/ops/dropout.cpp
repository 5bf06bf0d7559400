#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/dropout.h>
#include <ziggurat/ops/dropout.h>

namespace ziggurat::ops {

Var dropout(Tape& tape, Var x, double rate, Purpose purpose, int64_t layer) {
  check(0 <= rate && rate < 1, ErrorKind::argument, "[dropout] expected 0 <= rate < 1, got {}", rate);
  if (rate == 0 || !tape.micro_batch().training) return x;
  const Var y = tape.output(x.dtype(), x.shape(), x.wants_grad());
  const LatePhilox rng = tape.random(purpose, layer);
  const int64_t n = x.value().numel(), first = tape.first_of_shard(n);

  note_kernel("dropout", Pass::forward, x, y);
  visit_kernels<kernels::DropoutKernels>(x.value(), [&]<Device D, class T>() {
    kernels::dropout<D>(
        kernels::DropoutArgs<T>{n, rate, rng, x.value().data<T>(), nullptr, y.value().data<T>(), first},
        tape.stream());
  });

  // dx = mask / (1 - rate) dy; the mask is computed again: nothing is saved but the stream's name.
  tape.record(y, [=](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    if (!dx) return;
    note_kernel("dropout", Pass::backward, dy, dx);
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
