#include <numeric>

#include <ziggurat/autograd/accumulate.h>
#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/ops/shard_rows.h>

namespace ziggurat::ops {

namespace {

template <class From, class To>
void convert(const Tensor& from, const Tensor& to, Stream& stream) {
  visit_kernels<kernels::ElementwiseKernels>(from, [&]<Device D, class T>() {
    if constexpr (std::is_same_v<T, From>) {
      kernels::convert<D>(from.data<From>(), to.data<To>(), from.numel(), stream);
    }
  });
}

// y [n, C] = or += this rank's rows of the sum over ranks of x [T n, C]; bf16 by way of f32.
void sum_into(const Tensor& x, const Tensor& y, bool add, Communicator& group, Arena& workspace,
              Stream& stream) {
  const ArenaScope scope(workspace);
  const Tensor sum = add ? allocate(workspace, y.dtype(), y.shape()) : y;
  if (x.dtype() == DType::bf16) {
    const int64_t first = group.rank() * y.dim(0);
    const Tensor wide = allocate(workspace, DType::f32, x.shape()), own = wide.rows(first, first + y.dim(0));
    note_kernel("round_rows", Pass::forward, x, wide, own, sum);
    convert<bf16, float>(x, wide, stream);
    group.reduce_scatter(wide, own, ReduceOrder::any, stream).wait();
    convert<float, bf16>(own, sum, stream);
  } else {
    group.reduce_scatter(x, sum, ReduceOrder::any, stream).wait();
  }
  if (add) accumulate(sum, y, stream);
}

using Rows = std::span<const int64_t>;  // of each rank
int64_t sum(Rows rows) { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); }

// y [sum(rows), C] = the x [rows[r], C] of every rank r.
void gather_uneven(const Tensor& x, const Tensor& y, Rows rows, Communicator& group, Stream& stream) {
  int64_t at = 0;
  for (int rank = 0; rank < group.size(); ++rank) {
    const int64_t n = rows[static_cast<size_t>(rank)];
    const Tensor block = y.rows(at, at + n);
    at += n;
    if (n == 0) continue;
    if (rank == group.rank()) copy(x, block, stream);
    group.broadcast(block, rank, stream).wait();
  }
}

// y [n, C] = or += this rank's rows of the sum over ranks of x [sum(rows), C]. All send every rank what is
// its: no more bytes than a reduce-scatter, and of bf16 half as many as of f32, in which they are added.
// `own`: n for every rank.
void sum_uneven(const Tensor& x, const Tensor& y, bool add, Rows rows, Rows own, Communicator& group,
                Arena& workspace, Stream& stream) {
  const ArenaScope scope(workspace);
  const int64_t n = y.dim(0);
  const Tensor parts = allocate(workspace, x.dtype(), {group.size() * n, y.dim(1)});
  group.all_to_all_v(x, rows, parts, own, stream).wait();
  note_kernel("sum_rows", Pass::forward, parts, add ? 2 * bytes_touched(y) : bytes_touched(y));
  const auto part = [&](int rank) { return parts.rows(rank * n, (rank + 1) * n); };
  if (x.dtype() == DType::bf16) {
    const Tensor total = allocate(workspace, DType::f32, y.shape()),
                 wide = allocate(workspace, DType::f32, y.shape()),
                 rounded = add ? allocate(workspace, DType::bf16, y.shape()) : y;
    convert<bf16, float>(part(0), total, stream);
    for (int rank = 1; rank < group.size(); ++rank) {
      convert<bf16, float>(part(rank), wide, stream);
      accumulate(wide, total, stream);
    }
    convert<float, bf16>(total, rounded, stream);
    if (add) accumulate(rounded, y, stream);
    return;
  }
  add ? accumulate(part(0), y, stream) : copy(part(0), y, stream);
  for (int rank = 1; rank < group.size(); ++rank) accumulate(part(rank), y, stream);
}

// n for each of the ranks.
Rows alike(Tape& tape, int ranks, int64_t n) {
  auto* const rows = tape.save_array<int64_t>(ranks);
  std::fill_n(rows, ranks, n);
  return {rows, static_cast<size_t>(ranks)};
}

void check_uneven(const char* op, const Communicator& group, Rows rows, int64_t expected, const Var& x) {
  check(rows.size() == static_cast<size_t>(group.size()), ErrorKind::argument,
        "[{}] expected {} row counts, one per rank, got {}", op, group.size(), rows.size());
  check(x.shape().rank() == 2 && x.dim(0) == expected, ErrorKind::argument, "[{}] expected x [{}, C], got {}",
        op, expected, x.shape());
}

}  // namespace

Var gather_rows(Tape& tape, Var x, Communicator& group, Use use) {
  if (group.size() == 1) return x;
  const int64_t n = x.dim(0), first = group.rank() * n;
  const Var y = tape.output(x.dtype(), {group.size() * n, x.dim(1)}, x.wants_grad());
  group.all_gather(x.value(), y.value(), tape.stream()).wait();
  tape.record(y, [=, &group](Tape& t, const Tensor& dy) {
    const Tensor own = dy.rows(first, first + n);
    const GradSlot dx = t.grad_slot(x);
    if (use == Use::apart) return sum_into(dy, dx.grad, dx.accumulate, group, t.workspace(), t.stream());
    dx.accumulate ? accumulate(own, dx.grad, t.stream()) : copy(own, dx.grad, t.stream());
  });
  return y;
}

Var sum_rows(Tape& tape, Var x, Communicator& group) {
  if (group.size() == 1) return x;
  const int64_t n = x.dim(0) / group.size();
  check(x.dim(0) % group.size() == 0, ErrorKind::argument,
        "[sum_rows] {} ranks cannot share x {} evenly: expected a multiple of rows", group.size(), x.shape());
  const Var y = tape.output(x.dtype(), {n, x.dim(1)}, x.wants_grad());
  sum_into(x.value(), y.value(), false, group, tape.workspace(), tape.stream());
  // dx = the dy of all ranks
  tape.record(y, [=, &group](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    const ArenaScope scope(t.workspace());
    const Tensor all = dx.accumulate ? allocate(t.workspace(), dy.dtype(), dx.grad.shape()) : dx.grad;
    group.all_gather(dy, all, t.stream()).wait();
    if (dx.accumulate) accumulate(all, dx.grad, t.stream());
  });
  return y;
}

Var gather_uneven_rows(Tape& tape, Var x, Communicator& group, Rows rows) {
  check_uneven("gather_rows", group, rows, rows[static_cast<size_t>(group.rank())], x);
  if (group.size() == 1) return x;
  const Var y = tape.output(x.dtype(), {sum(rows), x.dim(1)}, x.wants_grad());
  gather_uneven(x.value(), y.value(), rows, group, tape.stream());
  const Rows own = alike(tape, group.size(), x.dim(0));
  tape.record(y, [=, &group](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    sum_uneven(dy, dx.grad, dx.accumulate, rows, own, group, t.workspace(), t.stream());
  });
  return y;
}

Var sum_uneven_rows(Tape& tape, Var x, Communicator& group, Rows rows) {
  check_uneven("sum_rows", group, rows, sum(rows), x);
  if (group.size() == 1) return x;
  const int64_t n = rows[static_cast<size_t>(group.rank())];
  const Var y = tape.output(x.dtype(), {n, x.dim(1)}, x.wants_grad());
  sum_uneven(x.value(), y.value(), false, rows, alike(tape, group.size(), n), group, tape.workspace(),
             tape.stream());
  // dx = the dy of all ranks
  tape.record(y, [=, &group](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    const ArenaScope scope(t.workspace());
    const Tensor all = dx.accumulate ? allocate(t.workspace(), dy.dtype(), dx.grad.shape()) : dx.grad;
    gather_uneven(dy, all, rows, group, t.stream());
    if (dx.accumulate) accumulate(all, dx.grad, t.stream());
  });
  return y;
}

Var some_rows(Tape& tape, Var x, int64_t begin, int64_t n) {
  const Var y = tape.output(x.dtype(), {n, x.dim(1)}, x.wants_grad());
  note_kernel("some_rows", Pass::forward, y, y);
  copy(x.value().rows(begin, begin + n), y.value(), tape.stream());
  tape.record(y, [=](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    if (!dx.accumulate) fill_zero(dx.grad, t.stream());
    note_kernel("some_rows", Pass::backward, dy, dy, dy);
    accumulate(dy, dx.grad.rows(begin, begin + n), t.stream());
  });
  return y;
}

Var add_bias(Tape& tape, Var x, const Param& bias) {
  const int64_t rows = x.dim(0), cols = x.dim(1);
  check(bias.value.shape() == Shape{cols}, ErrorKind::argument, "[add_bias] expected bias [{}], got {}", cols,
        bias.value.shape());
  const Var y = tape.output(x.dtype(), x.shape(), x.wants_grad() || bias.trainable());
  note_kernel("add_bias", Pass::forward, x, y, y);
  copy(x.value(), y.value(), tape.stream());
  visit_kernels<kernels::BiasActivationKernels>(x.value(), [&]<Device D, class T>() {
    kernels::bias_activation_forward<D>(
        kernels::BiasActivationArgs<T>{kernels::Activation::none, rows, cols, y.value().data<T>(),
                                       bias.value.data<Accum<T>>()},
        tape.stream());
  });
  // dx = dy, dbias += sum over rows of dy
  tape.record(y, {&bias}, [=, &bias](Tape& t, const Tensor& dy) {
    t.pass_grad(x, dy);
    if (!bias.trainable()) return;
    note_kernel("add_bias", Pass::backward, dy);
    visit_kernels<kernels::BiasActivationKernels>(dy, [&]<Device D, class T>() {
      kernels::bias_activation_backward<D>(
          kernels::BiasActivationGradArgs<T>{kernels::Activation::none, rows, cols, nullptr, dy.data<T>(),
                                             nullptr, bias.grad.data<Accum<T>>()},
          t.workspace(), t.stream());
    });
  });
  return y;
}

}  // namespace ziggurat::ops
