#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/ops/add.h>

namespace ziggurat::ops {

Var add(Tape& tape, Var a, Var b) {
  check(a.shape() == b.shape() && a.dtype() == b.dtype(), ErrorKind::argument,
        "[add] expected two equal shapes and dtypes, got {} {} and {} {}", to_string(a.dtype()), a.shape(),
        to_string(b.dtype()), b.shape());
  const Var y = tape.output(a.dtype(), a.shape(), a.wants_grad() || b.wants_grad());
  note_kernel("add", Pass::forward, a, b, y);
  visit_kernels<kernels::ElementwiseKernels>(a.value(), [&]<Device D, class T>() {
    kernels::add<D>(a.value().data<T>(), b.value().data<T>(), y.value().data<T>(), y.value().numel(),
                    tape.stream());
  });
  // da = dy, db = dy: the gradient is handed on, not copied.
  tape.record(y, [=](Tape& t, const Tensor& dy) {
    t.pass_grad(a, dy);
    t.pass_grad(b, dy);
  });
  return y;
}

}  // namespace ziggurat::ops
