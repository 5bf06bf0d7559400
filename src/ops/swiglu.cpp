#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/swiglu.h>
#include <ziggurat/ops/swiglu.h>

namespace ziggurat::ops {

Var swiglu(Tape& tape, Var gate, Var up) {
  check(gate.shape() == up.shape() && gate.dtype() == up.dtype(), ErrorKind::argument,
        "[swiglu] expected gate and up alike, got {} {} and {} {}", to_string(gate.dtype()), gate.shape(),
        to_string(up.dtype()), up.shape());
  const int64_t n = gate.value().numel();
  const Var y = tape.output(gate.dtype(), gate.shape(), gate.wants_grad() || up.wants_grad());

  note_kernel("swiglu", Pass::forward, gate, up, y);
  visit_kernels<kernels::SwigluKernels>(gate.value(), [&]<Device D, class T>() {
    kernels::swiglu_forward<D>(
        kernels::SwigluArgs<T>{n, gate.value().data<T>(), up.value().data<T>(), y.value().data<T>()},
        tape.stream());
  });

  // With s = sigmoid(gate): dgate = dy up s (1 + gate (1 - s)), dup = dy gate s. Saves nothing: s is cheap.
  tape.record(y, [=](Tape& t, const Tensor& dy) {
    const GradSlot dgate = t.grad_slot(gate), dup = t.grad_slot(up);
    note_kernel("swiglu", Pass::backward, gate, up, dy, dgate, dup);
    visit_kernels<kernels::SwigluKernels>(dy, [&]<Device D, class T>() {
      kernels::swiglu_backward<D>(
          kernels::SwigluGradArgs<T>{n, gate.value().data<T>(), up.value().data<T>(), dy.data<T>(),
                                     dgate ? dgate.grad.data<T>() : nullptr, dgate.accumulate,
                                     dup ? dup.grad.data<T>() : nullptr, dup.accumulate},
          t.stream());
    });
  });
  return y;
}

}  // namespace ziggurat::ops
