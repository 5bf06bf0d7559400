#include <algorithm>

#include <ops/few_rows.h>

#include <ziggurat/ops/grouped_linear.h>

namespace ziggurat::ops {

namespace {

void check_segments(std::span<const Segment> segments, int64_t rows, int64_t experts) {
  int64_t next = 0;
  for (const Segment& s : segments) {
    check(s.row_begin == next && s.rows >= 0 && 0 <= s.expert && s.expert < experts && s.source >= 0,
          ErrorKind::argument,
          "[grouped_linear] expected segments in order, each of one of {} experts; got rows [{}, +{}) of "
          "expert {} "
          "from source {} where row {} is next",
          experts, s.row_begin, s.rows, s.expert, s.source, next);
    next += s.rows;
  }
  check(next == rows, ErrorKind::argument, "[grouped_linear] the segments cover {} of {} rows", next, rows);
}

}  // namespace

Var grouped_linear(Tape& tape, Var x, std::span<const Segment> segments, const Param& weight,
                   const Param* bias, Activation activation) {
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
  if (x.value().device() != Device::meta) check_segments(segments, rows, experts);

  const bool wants_grad = x.wants_grad() || weight.trainable() || (bias != nullptr && bias->trainable());
  const bool activated = activation != Activation::none;
  const Var y = tape.output(x.dtype(), {rows, out}, wants_grad);
  const Tensor z =
      activated ? tape.save(x.dtype(), {rows, out}) : y.value();  // GELU's derivative needs its input

  const auto forward = [=, &weight, first = segments.data(),
                        count = static_cast<int64_t>(segments.size())]<class T>(T*) {
    const Accum<T>* b = bias == nullptr ? nullptr : bias->value.data<Accum<T>>();
    return kernels::GroupedLinearArgs<T>{first,
                                         count,
                                         rows,
                                         in,
                                         out,
                                         experts,
                                         x.value().data<T>(),
                                         weight.value.data<T>(),
                                         weight.packed,
                                         b,
                                         activation,
                                         z.data<T>(),
                                         activated ? y.value().data<T>() : nullptr};
  };
  const bool few = std::all_of(segments.begin(), segments.end(),
                               [&](const Segment& s) { return reads_weights_once(tape, s.rows); });
  visit_kernels<kernels::GroupedLinearKernels, kernels::FewRowsKernels>(x.value(), [&]<Device D, class T>() {
    if (few) {
      const auto f = forward(static_cast<T*>(nullptr));
      return kernels::few_rows_linear<D>(
          kernels::FewRowsArgs<T, T>{f.segments, f.segment_count, rows, in, out, f.x, f.weight, f.bias,
                                     activation, y.value().data<T>()},
          tape.workspace(), tape.stream());
    }
    kernels::grouped_linear_forward<D>(forward(static_cast<T*>(nullptr)), tape.workspace(), tape.stream());
  });

  tape.record(y, [=, &weight](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    const bool bias_grad = bias != nullptr && bias->trainable();
    // dz = dy * activation'(z); per segment: dweight[e] += dz^T x, dbias[e] += sum over rows of dz, dx = dz
    // weight[e]
    visit_kernels<kernels::GroupedLinearKernels, kernels::FewRowsKernels>(dy, [&]<Device D, class T>() {
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
