#include <ops/attention_checks.h>

#include <ziggurat/autograd/note_work.h>
#include <ziggurat/ops/qk_norm.h>

namespace ziggurat::ops {

namespace {

void check_weight(const char* name, const Param& weight, DType dtype, int64_t cols) {
  check(weight.value.shape() == Shape{cols} && weight.value.dtype() == dtype, ErrorKind::argument,
        "[qk_norm] expected {} {} [{}], got {} {}", name, to_string(dtype), cols,
        to_string(weight.value.dtype()), weight.value.shape());
}

}  // namespace

Var qk_norm(Tape& tape, Var qkv, QkNormShape shape, const Param& q_weight, const Param& k_weight, double eps,
            Communicator* heads) {
  if (heads != nullptr && !shape.per_head) shape.parts = heads->size();
  check_qkv("qk_norm", qkv, shape.qkv);
  const DType accum = accum_dtype(qkv.dtype());
  check_weight("q_weight", q_weight, accum, shape.q_cols());
  check_weight("k_weight", k_weight, accum, shape.k_cols());
  check(eps > 0, ErrorKind::argument, "[qk_norm] expected eps > 0, got {}", eps);

  const bool wants_grad = qkv.wants_grad() || q_weight.trainable() || k_weight.trainable();
  const Var y = tape.output(qkv.dtype(), qkv.shape(), wants_grad);
  // Where ranks share the heads, what their columns add to a row's sums.
  const auto sums = [=](Arena& workspace) {
    return shape.parts > 1 ? allocate(workspace, accum, {shape.qkv.rows(), shape.groups()}) : Tensor();
  };
  const auto add_up = [=](const Tensor& all, Stream& stream) {
    heads->all_reduce(all, ReduceOp::sum, ReduceOrder::any, stream).wait();
  };
  // One number per group of columns, for another pass over x in backward.
  const Tensor rstd = tape.save(accum, {shape.qkv.rows(), shape.groups()});

  note_kernel("qk_norm", Pass::forward, qkv, y, rstd);
  const ArenaScope scope(tape.workspace());
  const Tensor squares = sums(tape.workspace());
  visit_kernels<kernels::QkNormKernels>(qkv.value(), [&]<Device D, class T>() {
    using A = Accum<T>;
    if (squares) {
      kernels::qk_norm_squares<D>(shape, qkv.value().data<T>(), squares.data<A>(), tape.stream());
      add_up(squares, tape.stream());
    }
    kernels::qk_norm_forward<D>(
        kernels::QkNormArgs<T>{shape, static_cast<A>(eps), qkv.value().data<T>(), q_weight.value.data<A>(),
                               k_weight.value.data<A>(), y.value().data<T>(), rstd.data<A>(),
                               squares ? squares.data<A>() : nullptr},
        tape.stream());
  });

  tape.record(y, {&q_weight, &k_weight}, [=, &q_weight, &k_weight](Tape& t, const Tensor& dy) {
    const GradSlot dqkv = t.grad_slot(qkv);
    // Of each group, with xhat = x rstd and v = dy weight:
    // dx = rstd (v - xhat mean(v xhat)), dweight += sum over rows, and heads that share it, of dy xhat
    note_kernel("qk_norm", Pass::backward, qkv, rstd, dy, dqkv);
    const ArenaScope of_backward(t.workspace());
    const Tensor products = sums(t.workspace());
    visit_kernels<kernels::QkNormKernels>(dy, [&]<Device D, class T>() {
      using A = Accum<T>;
      const auto gradient = [](const Param& weight) {
        return weight.trainable() ? weight.grad.data<A>() : nullptr;
      };
      kernels::QkNormGradArgs<T> args{shape,
                                      qkv.value().data<T>(),
                                      q_weight.value.data<A>(),
                                      k_weight.value.data<A>(),
                                      rstd.data<A>(),
                                      dy.data<T>(),
                                      dqkv ? dqkv.grad.data<T>() : nullptr,
                                      dqkv.accumulate,
                                      gradient(q_weight),
                                      gradient(k_weight)};
      if (products) {
        kernels::qk_norm_products<D>(args, products.data<A>(), t.stream());
        add_up(products, t.stream());
        args.products = products.data<A>();
      }
      kernels::qk_norm_backward<D>(args, t.workspace(), t.stream());
    });
  });
  return y;
}

}  // namespace ziggurat::ops
