#include <algorithm>

#include <ops/few_rows.h>
#include <ops/panels.h>

#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/linear.h>
#include <ziggurat/kernels/packed_linear.h>
#include <ziggurat/kernels/weight_copies.h>
#include <ziggurat/ops/linear.h>

namespace ziggurat::ops {

namespace {

// One read of the weight for a few rows; TY is the dtype of y.
template <Device D, class T, class TY>
void few_rows(Tape& tape, const Tensor& x, const Tensor& w, const Param* bias, Activation activation,
              const Tensor& y) {
  const int32_t all[] = {0, static_cast<int32_t>(x.dim(0))};
  kernels::few_rows_linear<D>(
      kernels::FewRowsArgs<T, TY>{{all},
                                  x.dim(0),
                                  w.dim(1),
                                  w.dim(0),
                                  x.data<T>(),
                                  w.data<T>(),
                                  bias == nullptr ? nullptr : bias->value.data<Accum<T>>(),
                                  activation,
                                  y.data<TY>()},
      tape.workspace(), tape.stream());
}

// Many rows from copies of a weight that does not change, where the stream keeps such: whether it does.
bool from_copies(Tape& tape, const Tensor& x, const Param& weight, const Param* bias, Activation activation,
                 const Tensor& y) {
  if (tape.recording() || weight.trainable() || weight.version == nullptr) return false;
  bool kept = false;
  visit_kernels<kernels::GemmKernels>(x, [&]<Device D, class T>() {
    if constexpr (kExists<kernels::PackedLinearKernels, D, T>) {
      const int64_t out = y.dim(1), in = x.dim(1);
      kernels::PackedWeights* const copies =
          kernels::weight_copies(kernels::WeightRole::frozen, weight.value.data<T>(), *weight.version, out,
                                 std::min(out, kernels::kPackedColumns), in, tape.stream());
      if (copies == nullptr) return;
      kept = true;
      kernels::packed_linear<D>(
          kernels::PackedLinearArgs<T>{x.dim(0), in, out, x.data<T>(), copies,
                                       bias == nullptr ? nullptr : bias->value.data<Accum<T>>(), activation,
                                       y.data<T>()},
          tape.workspace(), tape.stream());
    }
  });
  return kept;
}

// Empty tensors are null pointers.
template <class T>
kernels::LinearArgs<T> linear_args(const Tensor& x, const Param& weight, const Tensor& bias,
                                   Activation activation, const Tensor& z, const Tensor& y) {
  const Tensor& w = weight.value;
  return {x.dim(0),
          w.dim(1),
          w.dim(0),
          x.data<T>(),
          w.data<T>(),
          weight.trained_version(),
          bias ? bias.data<Accum<T>>() : nullptr,
          activation,
          z.data<T>(),
          y ? y.data<T>() : nullptr};
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
  const int64_t rows = x.dim(0), out = w.dim(0);

  const bool wants_grad = x.wants_grad() || weight.trainable() || (bias != nullptr && bias->trainable());
  const bool activated = activation != Activation::none;
  const Var y = tape.output(x.dtype(), {rows, out}, wants_grad);
  if (weight.panels) {
    visit_kernels<kernels::PanelLinearKernels>(x.value(), [&]<Device D, class T>() {
      const int32_t all[] = {0, static_cast<int32_t>(rows)};
      panel_product<D, T, T>(tape, {all}, x.value().data<T>(), rows, weight, bias, activation, y.value());
    });
    return y;
  }
  if (reads_weights_once(tape, rows)) {
    visit_kernels<kernels::FewRowsKernels>(x.value(), [&]<Device D, class T>() {
      few_rows<D, T, T>(tape, x.value(), w, bias, activation, y.value());
    });
    return y;
  }
  if (from_copies(tape, x.value(), weight, bias, activation, y.value())) return y;
  const Tensor z =
      activated ? tape.save(x.dtype(), {rows, out}) : y.value();  // GELU's derivative needs its input

  note_product("linear", Pass::forward, {1, rows, out, w.dim(1)}, x, w, bias, y,
               activated ? bytes_touched(z) : 0.0);
  visit_kernels<kernels::LinearKernels>(x.value(), [&]<Device D, class T>() {
    kernels::linear_forward<D>(
        linear_args<T>(x.value(), weight, bias == nullptr ? Tensor() : bias->value, activation, z, y.value()),
        tape.workspace(), tape.stream());
  });

  tape.record(y, {&weight, bias}, [=, &weight](Tape& t, const Tensor& dy) {
    const bool bias_grad = bias != nullptr && bias->trainable();
    const GradSlot dx = t.grad_slot(x);
    const bool shaped = activation != Activation::none;  // dz = dy activation'(z) comes first
    const int64_t n = x.dim(0), in = x.dim(1), width = dy.dim(1);
    if (shaped || bias_grad) {
      note_kernel("bias_activation", Pass::backward, dy, shaped ? 2 * bytes_touched(z) : 0.0);
    }
    if (dx) note_product("linear", Pass::backward, {1, n, in, width}, dy, &weight, dx);
    if (weight.trainable()) {
      note_product("linear", Pass::weight, {1, width, in, n}, dy, x, gradient_bytes(weight));
    }
    visit_kernels<kernels::LinearKernels>(dy, [&]<Device D, class T>() {
      using A = Accum<T>;
      kernels::linear_backward<D>(
          kernels::LinearGradArgs<T>{linear_args<T>(x.value(), weight, Tensor(), activation, z, Tensor()),
                                     dy.data<T>(), dx ? dx.grad.data<T>() : nullptr, dx.accumulate,
                                     weight.trainable() ? weight.grad.data<A>() : nullptr,
                                     weight.trainable() && weight.must_add(),
                                     bias_grad ? bias->grad.data<A>() : nullptr},
          t.workspace(), t.stream());
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
  if (weight.panels) {
    visit_kernels<kernels::PanelLinearKernels>(x.value(), [&]<Device D, class T>() {
      const int32_t all[] = {0, static_cast<int32_t>(rows)};
      panel_product<D, T, Accum<T>>(tape, {all}, x.value().data<T>(), rows, weight, nullptr, Activation::none,
                                    y.value());
    });
    return y;
  }
  if (reads_weights_once(tape, rows)) {
    visit_kernels<kernels::FewRowsKernels>(x.value(), [&]<Device D, class T>() {
      few_rows<D, T, Accum<T>>(tape, x.value(), w, nullptr, Activation::none, y.value());
    });
    return y;
  }
  visit_kernels<kernels::GemmKernels>(x.value(), [&]<Device D, class T>() {
    using A = Accum<T>;
    kernels::gemm<D>(kernels::GemmArgs<T, A>{false, true, rows, out, in, x.value().data<T>(), in, w.data<T>(),
                                             in, y.value().data<A>(), out},
                     tape.workspace(), tape.stream());
  });
  return y;
}

}  // namespace ziggurat::ops
