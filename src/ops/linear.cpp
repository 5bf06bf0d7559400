#include <ops/few_rows.h>

#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/packed_linear.h>
#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/ops/linear.h>

namespace ziggurat::ops {

namespace {

// One read of the weight for a few rows; TY is the dtype of y.
template <Device D, class T, class TY>
void few_rows(Tape& tape, const Tensor& x, const Tensor& w, const Param* bias, Activation activation,
              const Tensor& y) {
  const kernels::Segment all{0, x.dim(0), 0, 0};
  kernels::few_rows_linear<D>(
      kernels::FewRowsArgs<T, TY>{&all, 1, x.dim(0), w.dim(1), w.dim(0), x.data<T>(), w.data<T>(),
                                  bias == nullptr ? nullptr : bias->value.data<Accum<T>>(), activation,
                                  y.data<TY>()},
      tape.workspace(), tape.stream());
}

// Many rows from copies that are kept as long as the weight.
template <Device D, class T>
void packed_linear(Tape& tape, const Tensor& x, const Param& weight, const Param* bias, Activation activation,
                   const Tensor& y) {
  kernels::packed_linear<D>(
      kernels::PackedLinearArgs<T>{x.dim(0), x.dim(1), y.dim(1), x.data<T>(), weight.packed,
                                   bias == nullptr ? nullptr : bias->value.data<Accum<T>>(), activation,
                                   y.data<T>()},
      tape.workspace(), tape.stream());
}

}  // namespace

Var linear(Tape& tape, Var x, const Param& weight, const Param* bias, Activation activation) {
  const Tensor& w = weight.value;
  check(x.shape().rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(1), ErrorKind::argument,
        "[linear] expected x [N, in] and weight [out, in], got {} and {}", x.shape(), w.shape());
  check(bias == nullptr || bias->value.shape() == Shape{w.dim(0)}, ErrorKind::argument,
        "[linear] expected bias [{}], got {}", w.dim(0), bias == nullptr ? Shape{} : bias->value.shape());
  check(x.dtype() == w.dtype(), ErrorKind::argument, "[linear] x is {}, weight is {}", to_string(x.dtype()),
        to_string(w.dtype()));
  const int64_t rows = x.dim(0), in = w.dim(1), out = w.dim(0);

  const bool wants_grad = x.wants_grad() || weight.trainable() || (bias != nullptr && bias->trainable());
  const bool activated = activation != Activation::none;
  const Var y = tape.output(x.dtype(), {rows, out}, wants_grad);
  if (reads_weights_once(tape, rows)) {
    visit_kernels<kernels::FewRowsKernels>(x.value(), [&]<Device D, class T>() {
      few_rows<D, T, T>(tape, x.value(), w, bias, activation, y.value());
    });
    return y;
  }
  if (!tape.recording() && !weight.trainable() && weight.packed != nullptr) {
    visit_kernels<kernels::PackedLinearKernels>(x.value(), [&]<Device D, class T>() {
      packed_linear<D, T>(tape, x.value(), weight, bias, activation, y.value());
    });
    return y;
  }
  const Tensor z =
      activated ? tape.save(x.dtype(), {rows, out}) : y.value();  // GELU's derivative needs its input

  visit_kernels<kernels::WeightProductKernels, kernels::BiasActivationKernels>(
      x.value(), [&]<Device D, class T>() {
        kernels::weight_product<D>(
            kernels::WeightProduct<T, T>{kernels::Side::forward, rows, out, in, x.value().data<T>(),
                                         w.data<T>(), weight.packed, 0, z.data<T>()},
            tape.workspace(), tape.stream());
        if (bias != nullptr || activated) {
          const Accum<T>* b = bias == nullptr ? nullptr : bias->value.data<Accum<T>>();
          kernels::bias_activation_forward<D>(
              kernels::BiasActivationArgs<T>{activation, rows, out, z.data<T>(), b, y.value().data<T>()},
              tape.stream());
        }
      });

  tape.record(y, [=, &weight](Tape& t, const Tensor& dy) {
    const ArenaScope scope(t.workspace());
    const Tensor dz = activated ? allocate(t.workspace(), dy.dtype(), dy.shape()) : dy;
    const bool bias_grad = bias != nullptr && bias->trainable();
    const GradSlot dx = t.grad_slot(x);
    visit_kernels<kernels::WeightProductKernels, kernels::GemmKernels, kernels::BiasActivationKernels,
                  kernels::FewRowsKernels>(dy, [&]<Device D, class T>() {
      using A = Accum<T>;
      // dz = dy * activation'(z), dbias += sum over rows of dz
      if (activated || bias_grad) {
        kernels::bias_activation_backward<D>(
            kernels::BiasActivationGradArgs<T>{activation, rows, out, z.data<T>(), dy.data<T>(),
                                               activated ? dz.data<T>() : nullptr,
                                               bias_grad ? bias->grad.data<A>() : nullptr},
            t.workspace(), t.stream());
      }
      // dweight += dz^T x
      if (weight.trainable()) {
        kernels::gemm<D>(
            kernels::GemmArgs<T, A>{true, false, out, in, rows, dz.data<T>(), out, x.value().data<T>(), in,
                                    weight.grad.data<A>(), in, weight.must_add()},
            t.workspace(), t.stream());
      }
      // dx = dz weight
      if (dx) {
        kernels::weight_product<D>(
            kernels::WeightProduct<T, T>{kernels::Side::backward, rows, out, in, dz.data<T>(),
                                         weight.value.data<T>(), weight.packed, 0, dx.grad.data<T>(),
                                         dx.accumulate},
            t.workspace(), t.stream());
      }
    });
  });
  return y;
}

Var logits(Tape& tape, Var x, const Param& weight) {
  const Tensor& w = weight.value;
  check(x.shape().rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(1) && x.dtype() == w.dtype(),
        ErrorKind::argument,
        "[logits] expected x [N, in] and weight [out, in] of one dtype, got {} {} and {} {}",
        to_string(x.dtype()), x.shape(), to_string(w.dtype()), w.shape());
  check(!tape.recording(), ErrorKind::internal,
        "[logits] has no backward: a loss starts from ops::cross_entropy");
  const int64_t rows = x.dim(0), in = w.dim(1), out = w.dim(0);
  const Var y = tape.output(accum_dtype(x.dtype()), {rows, out}, false);
  visit_kernels<kernels::WeightProductKernels, kernels::GemmKernels, kernels::BiasActivationKernels,
                kernels::FewRowsKernels>(x.value(), [&]<Device D, class T>() {
    using A = Accum<T>;
    if (reads_weights_once(tape, rows)) {
      return few_rows<D, T, A>(tape, x.value(), w, nullptr, Activation::none, y.value());
    }
    kernels::gemm<D>(kernels::GemmArgs<T, A>{false, true, rows, out, in, x.value().data<T>(), in, w.data<T>(),
                                             in, y.value().data<A>(), out},
                     tape.workspace(), tape.stream());
  });
  return y;
}

}  // namespace ziggurat::ops
