#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/gated_add.h>
#include <ziggurat/ops/gated_add.h>

namespace ziggurat::ops {

Var gated_add(Tape& tape, Var a, Var b, Var gate_logits) {
  const Var logits = gate_logits;
  check(a.shape().rank() == 2 && a.shape() == b.shape() && a.dtype() == b.dtype(), ErrorKind::argument,
        "[gated_add] expected a and b alike [N, C], got {} {} and {} {}", to_string(a.dtype()), a.shape(),
        to_string(b.dtype()), b.shape());
  const int64_t rows = a.dim(0), cols = a.dim(1);
  check(logits.shape() == Shape{rows, 1} && logits.dtype() == accum_dtype(a.dtype()), ErrorKind::argument,
        "[gated_add] expected gate logits {} [{}, 1], got {} {}", to_string(accum_dtype(a.dtype())), rows,
        to_string(logits.dtype()), logits.shape());
  const Var y = tape.output(a.dtype(), {rows, cols}, a.wants_grad() || b.wants_grad() || logits.wants_grad());

  note_kernel("gated_add", Pass::forward, a, b, logits, y);
  visit_kernels<kernels::GatedAddKernels>(a.value(), [&]<Device D, class T>() {
    kernels::gated_add_forward<D>(
        kernels::GatedAddArgs<T>{rows, cols, a.value().data<T>(), b.value().data<T>(),
                                 logits.value().data<Accum<T>>(), y.value().data<T>()},
        tape.stream());
  });

  // da = dy, db = s dy, dlogit = s (1 - s) dy . b. Saves nothing: s is one exponential per row.
  tape.record(y, [=](Tape& t, const Tensor& dy) {
    t.pass_grad(a, dy);
    const GradSlot db = t.grad_slot(b), dlogits = t.grad_slot(logits);
    note_kernel("gated_add", Pass::backward, b, logits, dy, db, dlogits);
    visit_kernels<kernels::GatedAddKernels>(dy, [&]<Device D, class T>() {
      using A = Accum<T>;
      kernels::gated_add_backward<D>(
          kernels::GatedAddGradArgs<T>{rows, cols, b.value().data<T>(), logits.value().data<A>(),
                                       dy.data<T>(), db ? db.grad.data<T>() : nullptr, db.accumulate,
                                       dlogits ? dlogits.grad.data<A>() : nullptr, dlogits.accumulate},
          t.stream());
    });
  });
  return y;
}

}  // namespace ziggurat::ops
