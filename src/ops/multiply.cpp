#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/ops/multiply.h>

namespace ziggurat::ops {

Var multiply(Tape& tape, Var a, Var b) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype(), ErrorKind::argument,
        "[multiply] expected two equal shapes and dtypes, got {} {} and {} {}", to_string(a.dtype()),
        a.shape(), to_string(b.dtype()), b.shape());
  const int64_t n = a.value().numel();
  const Var y = tape.output(a.dtype(), a.shape(), a.wants_grad() || b.wants_grad());
  note_kernel("multiply", Pass::forward, a, b, y);
  visit_kernels<kernels::ElementwiseKernels>(a.value(), [&]<Device D, class T>() {
    kernels::multiply<D>(a.value().data<T>(), b.value().data<T>(), y.value().data<T>(), false, n,
                         tape.stream());
  });
  // da = dy b, db = dy a
  tape.record(y, [=](Tape& t, const Tensor& dy) {
    const auto pass = [&](Var to, Var other) {
      const GradSlot grad = t.grad_slot(to);
      if (!grad) return;
      note_kernel("multiply", Pass::backward, other, dy, grad);
      visit_kernels<kernels::ElementwiseKernels>(dy, [&]<Device D, class T>() {
        kernels::multiply<D>(dy.data<T>(), other.value().data<T>(), grad.grad.data<T>(), grad.accumulate, n,
                             t.stream());
      });
    };
    pass(a, b);
    pass(b, a);
  });
  return y;
}

}  // namespace ziggurat::ops
