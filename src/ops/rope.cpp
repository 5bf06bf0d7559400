#include <ops/attention_checks.h>
#include <ops/position_checks.h>

#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/rope.h>
#include <ziggurat/ops/rope.h>

namespace ziggurat::ops {

Var rope(Tape& tape, Var qkv, const AttentionShape& shape, double theta, const int32_t* positions) {
  check_qkv("rope", qkv, shape);
  check(shape.head_dim % 2 == 0, ErrorKind::argument,
        "[rope] head_dim: expected an even number (pairs are rotated), got {}", shape.head_dim);
  check(theta > 0, ErrorKind::argument, "[rope] theta: expected a positive number, got {}", theta);
  check_positions("rope", qkv.value().device(), positions, shape.rows(), shape.length);

  const Var y = tape.output(qkv.dtype(), qkv.shape(), qkv.wants_grad());
  note_kernel("rope", Pass::forward, qkv, y);
  visit_kernels<kernels::RopeKernels>(qkv.value(), [&]<Device D, class T>() {
    kernels::rope<D>(
        kernels::RopeArgs<T>{shape, theta, false, positions, qkv.value().data<T>(), y.value().data<T>()},
        tape.workspace(), tape.stream());
  });

  // Nothing is saved: dqkv = the inverse rotation of dy.
  tape.record(y, [=](Tape& t, const Tensor& dy) {
    const GradSlot dqkv = t.grad_slot(qkv);
    note_kernel("rope", Pass::backward, dy, dqkv);
    visit_kernels<kernels::RopeKernels>(dy, [&]<Device D, class T>() {
      kernels::rope<D>(kernels::RopeArgs<T>{shape, theta, true, positions, dy.data<T>(), dqkv.grad.data<T>(),
                                            dqkv.accumulate},
                       t.workspace(), t.stream());
    });
  });
  return y;
}

}  // namespace ziggurat::ops
