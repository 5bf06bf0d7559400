#include <algorithm>
#include <numeric>
#include <vector>

#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/dispatch.h>
#include <ziggurat/ops/alike_ranks.h>

namespace ziggurat::ops {

namespace {

void check_call(const char* op, const Tape& tape, const Var& x) {
  check(!tape.recording(), ErrorKind::internal, "[{}] has no backward: begin the tape with training = false",
        op);
  check(x.shape().rank() == 2, ErrorKind::argument, "[{}] expected x [N, C], got {}", op, x.shape());
}

// A table of the host where the kernels that read it run.
const int32_t* on_device_of(const Var& x, int32_t* table, int64_t n, Tape& tape) {
  if (planned(x.value().device()) == Device::cpu) return table;
  const Tensor there = allocate(tape.workspace(), DType::i32, {n});
  copy(Tensor(table, DType::i32, {n}), there, tape.stream());
  return there.data<int32_t>();
}

}  // namespace

Var gather_columns(Tape& tape, Var x, Communicator& group) {
  if (group.size() == 1) return x;
  check_call("gather_columns", tape, x);
  const int64_t rows = x.dim(0), width = x.dim(1), ranks = group.size();
  const Var y = tape.output(x.dtype(), {rows, ranks * width}, false);
  if (rows == 1) {
    group.all_gather(x.value(), y.value().reshape({ranks, width}), tape.stream()).wait();
    return y;
  }
  const ArenaScope scope(tape.workspace());
  const Tensor by_rank = allocate(tape.workspace(), x.dtype(), {ranks * rows, width});
  group.all_gather(x.value(), by_rank, tape.stream()).wait();
  note_kernel("gather_columns", Pass::forward, by_rank, y);
  auto* const here = tape.save_array<int32_t>(rows * ranks);  // stays until the pass is over
  for (int64_t i = 0; i < rows * ranks; ++i) {
    here[i] = static_cast<int32_t>(i % ranks * rows + i / ranks);
  }
  const int32_t* const from = on_device_of(x, here, rows * ranks, tape);
  visit_kernels<kernels::DispatchKernels>(x.value(), [&]<Device D, class T>() {
    kernels::gather_rows<D>(
        kernels::GatherRowsArgs<T>{rows * ranks, width, by_rank.data<T>(), from, y.value().data<T>()},
        tape.stream());
  });
  return y;
}

// The bits of +0 are zeros: as integers, the sum over ranks has the bits of the one that is not, in any
// order.
Var join(Tape& tape, Var x, Communicator& group) {
  if (group.size() == 1) return x;
  check_call("join", tape, x);
  const int64_t bytes = x.value().numel() * size_of(x.dtype()), word = size_of(DType::i32);
  check(
      bytes % word == 0, ErrorKind::config,
      "[join] ranks exchange whole words of {} bytes, but x is {} {}: compute in fp32 (--precision), or have "
      "each rank hold whole matrices",
      word, to_string(x.dtype()), x.shape());
  const Tensor words(x.value().raw(), DType::i32, {bytes / word}, x.value().device());
  group.all_reduce(words, ReduceOp::sum, ReduceOrder::any, tape.stream()).wait();
  return x;
}

Var gather_rows_v(Tape& tape, Var x, std::span<const int64_t> rows, Communicator& group) {
  if (group.size() == 1) return x;
  check_call("gather_rows_v", tape, x);
  const int64_t ranks = group.size(), own = x.dim(0), width = x.dim(1);
  check(std::ssize(rows) == ranks && rows[static_cast<size_t>(group.rank())] == own, ErrorKind::argument,
        "[gather_rows_v] expected the rows of {} ranks, {} of this one, got {} numbers", ranks, own,
        rows.size());
  const Var y = tape.output(x.dtype(), {std::accumulate(rows.begin(), rows.end(), int64_t{0}), width}, false);
  const ArenaScope scope(tape.workspace());
  const Tensor copies = allocate(tape.workspace(), x.dtype(), {ranks * own, width});
  for (int64_t r = 0; r < ranks && own > 0; ++r) {
    copy(x.value(), copies.rows(r * own, (r + 1) * own), tape.stream());
  }
  auto* const send = tape.workspace().take<int64_t>(ranks);
  std::fill_n(send, ranks, own);
  group.all_to_all_v(copies, {send, static_cast<size_t>(ranks)}, y.value(), rows, tape.stream()).wait();
  return y;
}

Var scatter_rows(Tape& tape, Var x, const Tensor& to, int64_t rows) {
  check_call("scatter_rows", tape, x);
  check(to.shape() == Shape{x.dim(0)} && x.dim(0) <= rows, ErrorKind::argument,
        "[scatter_rows] expected a table of {} rows, at most {}, got {}", x.dim(0), rows, to.shape());
  const Var y = tape.output(x.dtype(), {rows, x.dim(1)}, false);
  fill_zero(y.value(), tape.stream());
  note_kernel("scatter_rows", Pass::forward, x, y);
  visit_kernels<kernels::DispatchKernels>(x.value(), [&]<Device D, class T>() {
    kernels::scatter_rows<D>(kernels::ScatterRowsArgs<T>{x.dim(0), x.dim(1), x.value().data<T>(),
                                                         to.data<int32_t>(), false, y.value().data<T>()},
                             tape.stream());
  });
  return y;
}

}  // namespace ziggurat::ops
