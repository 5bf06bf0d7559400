#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/mix.h>
#include <ziggurat/ops/mix.h>

namespace ziggurat::ops {

Var mix(Tape& tape, Var a, Var b, Var coefficient_logits) {
  const Var logits = coefficient_logits;
  check(a.shape().rank() == 2 && a.shape() == b.shape() && a.dtype() == b.dtype(), ErrorKind::argument,
        "[mix] expected a and b alike [N, C], got {} {} and {} {}", to_string(a.dtype()), a.shape(),
        to_string(b.dtype()), b.shape());
  const int64_t rows = a.dim(0), cols = a.dim(1);
  check(logits.shape() == Shape{rows, 2} && logits.dtype() == accum_dtype(a.dtype()), ErrorKind::argument,
        "[mix] expected coefficient logits {} [{}, 2], got {} {}", to_string(accum_dtype(a.dtype())), rows,
        to_string(logits.dtype()), logits.shape());
  const Var y = tape.output(a.dtype(), {rows, cols}, a.wants_grad() || b.wants_grad() || logits.wants_grad());

  note_kernel("mix", Pass::forward, a, b, logits, y);
  visit_kernels<kernels::MixKernels>(a.value(), [&]<Device D, class T>() {
    kernels::mix_forward<D>(kernels::MixArgs<T>{rows, cols, a.value().data<T>(), b.value().data<T>(),
                                                logits.value().data<Accum<T>>(), y.value().data<T>()},
                            tape.stream());
  });

  // da = c0 dy, db = c1 dy, dlogits_0 = c0 c1 (dy . a - dy . b) = -dlogits_1. Saves nothing: c is two
  // exponentials per row.
  tape.record(y, [=](Tape& t, const Tensor& dy) {
    const GradSlot da = t.grad_slot(a), db = t.grad_slot(b), dlogits = t.grad_slot(logits);
    note_kernel("mix", Pass::backward, a, b, logits, dy, da, db, dlogits);
    visit_kernels<kernels::MixKernels>(dy, [&]<Device D, class T>() {
      using A = Accum<T>;
      kernels::mix_backward<D>(
          kernels::MixGradArgs<T>{rows, cols, a.value().data<T>(), b.value().data<T>(),
                                  logits.value().data<A>(), dy.data<T>(), da ? da.grad.data<T>() : nullptr,
                                  da.accumulate, db ? db.grad.data<T>() : nullptr, db.accumulate,
                                  dlogits ? dlogits.grad.data<A>() : nullptr, dlogits.accumulate},
          t.stream());
    });
  });
  return y;
}

}  // namespace ziggurat::ops
