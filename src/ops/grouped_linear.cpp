#include <ops/few_rows.h>
#include <ops/panels.h>

#include <ziggurat/autograd/note_work.h>
#include <ziggurat/ops/grouped_linear.h>

namespace ziggurat::ops {

namespace {

// On the CPU, where they can be read.
void check_offsets(const Tensor& offsets, int64_t rows) {
  const int32_t* at = offsets.data<int32_t>();
  const int64_t groups = offsets.dim(0) - 1;
  for (int64_t g = 0; g < groups; ++g) {
    check(at[g] <= at[g + 1], ErrorKind::argument,
          "[grouped_linear] expected ascending offsets, got {} before {} at group {}", at[g], at[g + 1], g);
  }
  check(at[0] == 0 && at[groups] == rows, ErrorKind::argument,
        "[grouped_linear] the groups cover rows [{}, {}) of {}", at[0], at[groups], rows);
}

// Of an expert, in a balanced batch.
int64_t rows_each(const Tensor& rows, const Param& weight) {
  return (rows.dim(0) + weight.value.dim(0) - 1) / weight.value.dim(0);
}

// Whether every group has a handful of rows, which the host knows on the CPU only.
bool all_few(Tape& tape, const Tensor& offsets, int64_t rows) {
  const int64_t groups = offsets.dim(0) - 1;
  if (planned(offsets.device()) == Device::cuda) return false;
  if (is_meta(offsets.device())) return reads_weights_once(tape, (rows + groups - 1) / groups);
  const int32_t* at = offsets.data<int32_t>();
  for (int64_t g = 0; g < groups; ++g) {
    if (!reads_weights_once(tape, at[g + 1] - at[g])) return false;
  }
  return true;
}

}  // namespace

Var grouped_linear(Tape& tape, Var x, const Tensor& offsets, const Param& weight, const Param* bias,
                   Activation activation) {
  const Tensor& w = weight.value;
  check(x.shape().rank() == 2 && w.rank() == 3 && x.dim(1) == w.dim(2), ErrorKind::argument,
        "[grouped_linear] expected x [R, in] and weight [E, out, in], got {} and {}", x.shape(), w.shape());
  check(bias == nullptr || bias->value.shape() == Shape{w.dim(0), w.dim(1)}, ErrorKind::argument,
        "[grouped_linear] expected bias [{}, {}], got {}", w.dim(0), w.dim(1),
        bias == nullptr ? Shape{} : bias->value.shape());
  check(bias == nullptr || (bias->source_stride == 0) == (weight.source_stride == 0), ErrorKind::argument,
        "[grouped_linear] weight and bias must both keep sources apart, or neither");
  check(x.dtype() == w.dtype(), ErrorKind::argument, "[grouped_linear] x is {}, weight is {}",
        to_string(x.dtype()), to_string(w.dtype()));
  const int64_t rows = x.dim(0), experts = w.dim(0), out = w.dim(1), in = w.dim(2);
  check(offsets.rank() == 1 && experts > 0 && offsets.dim(0) > 1 && (offsets.dim(0) - 1) % experts == 0,
        ErrorKind::argument, "[grouped_linear] expected offsets [{} x sources + 1], got {}", experts,
        offsets.shape());
  if (x.value().device() == Device::cpu) check_offsets(offsets, rows);
  const kernels::RowGroups groups{offsets.data<int32_t>(), experts, (offsets.dim(0) - 1) / experts};

  const bool wants_grad = x.wants_grad() || weight.trainable() || (bias != nullptr && bias->trainable());
  const bool activated = activation != Activation::none;
  const Var y = tape.output(x.dtype(), {rows, out}, wants_grad);
  if (weight.panels) {
    visit_kernels<kernels::PanelLinearKernels>(x.value(), [&]<Device D, class T>() {
      panel_product<D, T, T>(tape, groups, x.value().data<T>(), rows, weight, bias, activation, y.value());
    });
    return y;
  }
  const Tensor z =
      activated ? tape.save(x.dtype(), {rows, out}) : y.value();  // GELU's derivative needs its input

  const auto forward = [=, &weight]<class T>(T*) {
    const Accum<T>* b = bias == nullptr ? nullptr : bias->value.data<Accum<T>>();
    return kernels::GroupedLinearArgs<T>{groups,
                                         rows,
                                         in,
                                         out,
                                         x.value().data<T>(),
                                         weight.value.data<T>(),
                                         weight.trained_version(),
                                         b,
                                         activation,
                                         z.data<T>(),
                                         activated ? y.value().data<T>() : nullptr};
  };
  const bool few = all_few(tape, offsets, rows);
  note_product("grouped_linear", Pass::forward, {experts, rows_each(x.value(), weight), out, in}, x, w, bias,
               y, activated ? bytes_touched(z) : 0.0);
  visit_kernels<kernels::GroupedLinearKernels>(x.value(), [&]<Device D, class T>() {
    const auto f = forward(static_cast<T*>(nullptr));
    if constexpr (kExists<kernels::FewRowsKernels, D, T>) {
      if (few) {
        return kernels::few_rows_linear<D>(
            kernels::FewRowsArgs<T, T>{groups, rows, in, out, f.x, f.weight, f.bias, activation,
                                       y.value().data<T>()},
            tape.workspace(), tape.stream());
      }
    }
    kernels::grouped_linear_forward<D>(f, tape.workspace(), tape.stream());
  });

  tape.record(y, {&weight, bias}, [=, &weight](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    const bool bias_grad = bias != nullptr && bias->trainable();
    const bool shaped = activation != Activation::none;
    const int64_t n = weight.value.dim(0), each = rows_each(dy, weight), width = dy.dim(1), depth = x.dim(1);
    if (shaped || bias_grad) {
      note_kernel("bias_activation", Pass::backward, dy, shaped ? 2 * bytes_touched(z) : 0.0);
    }
    if (dx) note_product("grouped_linear", Pass::backward, {n, each, depth, width}, dy, &weight, dx);
    if (weight.trainable()) {
      note_product("grouped_linear", Pass::weight, {n, width, depth, each}, dy, x, gradient_bytes(weight));
    }
    // dz = dy * activation'(z); per group: dweight[e] += dz^T x, dbias[e] += sum over rows of dz, dx = dz
    // weight[e]
    visit_kernels<kernels::GroupedLinearKernels>(dy, [&]<Device D, class T>() {
      using A = Accum<T>;
      kernels::grouped_linear_backward<D>(
          kernels::GroupedLinearGradArgs<T>{
              forward(static_cast<T*>(nullptr)), dy.data<T>(), dx ? dx.grad.data<T>() : nullptr,
              dx.accumulate, weight.trainable() ? weight.grad.data<A>() : nullptr, weight.source_stride,
              bias_grad ? bias->grad.data<A>() : nullptr, bias_grad ? bias->source_stride : 0,
              weight.trainable() && !weight.must_add()},
          t.workspace(), t.stream());
    });
  });
  return y;
}

}  // namespace ziggurat::ops
