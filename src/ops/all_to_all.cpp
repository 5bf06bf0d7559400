#include <numeric>

#include <ziggurat/autograd/accumulate.h>
#include <ziggurat/ops/all_to_all.h>

namespace ziggurat::ops {

namespace {
int64_t sum(std::span<const int64_t> rows) { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); }

void check_counts(Var x, const Communicator& group, std::span<const int64_t> send_rows,
                  std::span<const int64_t> recv_rows) {
  const auto ranks = static_cast<size_t>(group.size());
  check(send_rows.size() == ranks && recv_rows.size() == ranks, ErrorKind::argument,
        "[all_to_all] expected {} row counts, one per rank, got {} to send and {} to receive", ranks,
        send_rows.size(), recv_rows.size());
  check(x.shape().rank() == 2 && x.dim(0) == sum(send_rows), ErrorKind::argument,
        "[all_to_all] expected x [{}, C], the rows to send, got {}", sum(send_rows), x.shape());
}
}  // namespace

Var all_to_all_rows(Tape& tape, Var x, Communicator& group, std::span<const int64_t> send_rows,
                    std::span<const int64_t> recv_rows) {
  check_counts(x, group, send_rows, recv_rows);
  if (group.size() == 1) return x;

  const Var y = tape.output(x.dtype(), {sum(recv_rows), x.dim(1)}, x.wants_grad());
  group.all_to_all_v(x.value(), send_rows, y.value(), recv_rows, tape.stream()).wait();
  tape.record(y, [=, &group](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    const ArenaScope scope(t.workspace());
    const Tensor received =
        dx.accumulate ? allocate(t.workspace(), dx.grad.dtype(), dx.grad.shape()) : dx.grad;
    // Rows go back where they came from.
    group.all_to_all_v(dy, recv_rows, received, send_rows, t.stream()).wait();
    if (dx.accumulate) accumulate(received, dx.grad, t.stream());
  });
  return y;
}

Var begin_all_to_all_rows(Tape& tape, Var x, Communicator& group, std::span<const int64_t> send_rows,
                          std::span<const int64_t> recv_rows, Work& under_way) {
  check_counts(x, group, send_rows, recv_rows);
  if (group.size() == 1) return x;
  const Var y = tape.output(x.dtype(), {sum(recv_rows), x.dim(1)}, x.wants_grad());
  under_way = group.begin_all_to_all_v(x.value(), send_rows, y.value(), recv_rows, tape.stream());
  // What end_all_to_all_rows() sent back has come.
  tape.record(y, [work = &under_way](Tape&, const Tensor&) { work->wait(); });
  return y;
}

Var end_all_to_all_rows(Tape& tape, Var x, Var arriving, Communicator& group,
                        std::span<const int64_t> send_rows, std::span<const int64_t> recv_rows,
                        Work& under_way) {
  if (group.size() == 1) return x;
  under_way.wait();
  if (!x.wants_grad()) return tape.constant(arriving.value());
  const Var y = tape.variable(arriving.value());
  tape.record(y, [=, &group, work = &under_way](Tape& t, const Tensor& dy) {
    const GradSlot dx = t.grad_slot(x);
    check(!dx.accumulate, ErrorKind::internal, "[all_to_all] rows that are under way are for nothing else");
    *work = group.begin_all_to_all_v(dy, recv_rows, dx.grad, send_rows, t.stream());
    t.pass_grad(arriving, dy);  // which keeps it until the exchange is over
  });
  return y;
}

}  // namespace ziggurat::ops
