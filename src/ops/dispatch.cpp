#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/dispatch.h>
#include <ziggurat/ops/dispatch.h>

namespace ziggurat::ops {

Var gather_tokens(Tape& tape, Var x, const Routing& routing) {
  check(x.shape().rank() == 2 && x.dim(0) == routing.tokens, ErrorKind::argument,
        "[gather_tokens] expected x [{}, C], got {}", routing.tokens, x.shape());
  const int64_t width = x.dim(1), tokens = routing.tokens, top_k = routing.top_k, rows = routing.rows;
  const Var y = tape.output(x.dtype(), {rows, width}, x.wants_grad());
  note_dispatch("gather_tokens", Pass::forward, tokens, rows, width, y, y, routing.token_of_row);
  visit_kernels<kernels::DispatchKernels>(x.value(), [&]<Device D, class T>() {
    kernels::gather_rows<D>(
        kernels::GatherRowsArgs<T>{rows, width, x.value().data<T>(), routing.token_of_row.data<int32_t>(),
                                   y.value().data<T>()},
        tape.stream());
  });
  tape.record(y, [=, row_of_choice = routing.row_of_choice.data<int32_t>()](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    // dx[s] = sum over j of dy[row_of_choice[s,j]]
    note_dispatch("gather_tokens", Pass::backward, tokens, dy.dim(0), width, dy, dx);
    visit_kernels<kernels::DispatchKernels>(dy, [&]<Device D, class T>() {
      kernels::combine_rows<D>(kernels::CombineRowsArgs<T>{tokens, top_k, width, dy.data<T>(), row_of_choice,
                                                           nullptr, dx.accumulate, dx.grad.data<T>()},
                               t.stream());
    });
  });
  return y;
}

Var combine(Tape& tape, Var rows, const Routing& routing) {
  check(rows.shape().rank() == 2 && rows.dim(0) == routing.rows, ErrorKind::argument,
        "[combine] expected rows [{}, C], got {}", routing.rows, rows.shape());
  const Var weights = routing.weights;
  check(weights.dtype() == accum_dtype(rows.dtype()), ErrorKind::argument,
        "[combine] {} rows need {} weights, got {}", to_string(rows.dtype()),
        to_string(accum_dtype(rows.dtype())), to_string(weights.dtype()));
  const int64_t width = rows.dim(1), tokens = routing.tokens, top_k = routing.top_k;
  const Var y = tape.output(rows.dtype(), {tokens, width}, rows.wants_grad() || weights.wants_grad());

  const auto forward = [=, row_of_choice = routing.row_of_choice.data<int32_t>()]<class T>(T* out) {
    return kernels::CombineRowsArgs<T>{
        tokens, top_k, width, rows.value().data<T>(), row_of_choice, weights.value().data<Accum<T>>(),
        false,  out};
  };
  note_dispatch("combine", Pass::forward, tokens, routing.rows, width, rows, weights, y);
  visit_kernels<kernels::DispatchKernels>(rows.value(), [&]<Device D, class T>() {
    kernels::combine_rows<D>(forward(y.value().data<T>()), tape.stream());
  });
  tape.record(y, [=](Tape& t, const Tensor& dy) {
    const GradSlot drows = t.grad_slot(rows), dweights = t.grad_slot(weights);
    // drows[row] = w[s,j] dy[s], dw[s,j] = rows[row] . dy[s]; every row belongs to one choice
    note_dispatch("combine", Pass::backward, tokens, rows.dim(0), width, rows, weights, dy, drows, dweights);
    visit_kernels<kernels::DispatchKernels>(dy, [&]<Device D, class T>() {
      kernels::combine_rows_backward<D>(
          kernels::CombineRowsGradArgs<T>{
              forward(static_cast<T*>(nullptr)), dy.data<T>(), drows ? drows.grad.data<T>() : nullptr,
              drows.accumulate, dweights ? dweights.grad.data<Accum<T>>() : nullptr, dweights.accumulate},
          t.stream());
    });
  });
  return y;
}

Var permute_rows(Tape& tape, Var x, const Tensor& from_row) {
  check(x.shape().rank() == 2, ErrorKind::argument, "[permute_rows] expected x [R, C], got {}", x.shape());
  const int64_t rows = x.dim(0), width = x.dim(1);
  check(from_row.shape() == Shape{rows}, ErrorKind::argument, "[permute_rows] expected a table [{}], got {}",
        rows, from_row.shape());
  const int32_t* from = from_row.data<int32_t>();
  const Var y = tape.output(x.dtype(), {rows, width}, x.wants_grad());
  note_kernel("permute_rows", Pass::forward, x, y, from_row);
  visit_kernels<kernels::DispatchKernels>(x.value(), [&]<Device D, class T>() {
    kernels::gather_rows<D>(
        kernels::GatherRowsArgs<T>{rows, width, x.value().data<T>(), from, y.value().data<T>()},
        tape.stream());
  });
  tape.record(y, [=](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    // dx[from[r]] = dy[r]
    note_kernel("permute_rows", Pass::backward, dy, dx);
    visit_kernels<kernels::DispatchKernels>(dy, [&]<Device D, class T>() {
      kernels::scatter_rows<D>(
          kernels::ScatterRowsArgs<T>{rows, width, dy.data<T>(), from, dx.accumulate, dx.grad.data<T>()},
          t.stream());
    });
  });
  return y;
}

ArrivalOrder order_arrivals(Tape& tape, const Tensor& arriving, int64_t rows, bool by_source, int64_t block) {
  check(arriving.rank() == 2, ErrorKind::argument, "[order_arrivals] expected counts [P, L], got {}",
        arriving.shape());
  const int64_t ranks = arriving.dim(0), experts = arriving.dim(1), sources = by_source ? ranks : 1;
  const ArrivalOrder order{tape.save(DType::i32, {experts * sources + 1}), tape.save(DType::i32, {rows}),
                           tape.save(DType::i32, {rows})};
  const Tensor as_floats(arriving.raw(), DType::f32, arriving.shape(),
                         arriving.device());  // to find the kernels
  visit_kernels<kernels::DispatchKernels>(as_floats, [&]<Device D, class T>() {
    kernels::order_arrivals<D>(
        {ranks, experts, rows, arriving.data<int32_t>(), sources, order.offsets.data<int32_t>(),
         order.arrival_of_row.data<int32_t>(), order.row_of_arrival.data<int32_t>(), block},
        tape.workspace(), tape.stream());
  });
  return order;
}

}  // namespace ziggurat::ops
