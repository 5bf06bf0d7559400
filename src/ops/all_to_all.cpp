#include <numeric>

#include <ziggurat/autograd/accumulate.h>
#include <ziggurat/ops/all_to_all.h>

namespace ziggurat::ops {

namespace {
int64_t sum(std::span<const int64_t> rows) { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); }
}  // namespace

Var all_to_all_rows(Tape& tape, Var x, Communicator& group, std::span<const int64_t> send_rows,
                    std::span<const int64_t> recv_rows) {
  const auto ranks = static_cast<size_t>(group.size());
  check(send_rows.size() == ranks && recv_rows.size() == ranks, ErrorKind::argument,
        "[all_to_all] expected {} row counts, one per rank, got {} to send and {} to receive", ranks,
        send_rows.size(), recv_rows.size());
  check(x.shape().rank() == 2 && x.dim(0) == sum(send_rows), ErrorKind::argument,
        "[all_to_all] expected x [{}, C], the rows to send, got {}", sum(send_rows), x.shape());
  if (ranks == 1) return x;

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

}  // namespace ziggurat::ops
