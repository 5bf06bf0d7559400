#include <ops/attention_checks.h>

#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/attention.h>
#include <ziggurat/ops/attention.h>

namespace ziggurat::ops {

namespace {

// Two products of the causal half in forward; five in backward, which computes the probabilities again.
template <class... Touched>
void note(Pass pass, const AttentionShape& s, const Touched&... touched) {
  WorkRecord* record = WorkRecord::current();
  if (record == nullptr) return;
  const auto area = static_cast<double>(s.batch * s.heads * s.length) * static_cast<double>(s.length);
  record->add({.kind = WorkItem::Kind::attention,
               .name = "attention",
               .backward = pass == Pass::backward,
               .groups = s.batch * s.heads,
               .m = s.length,
               .k = s.head_dim,
               .flops = (pass == Pass::forward ? 2 : 5) * area * static_cast<double>(s.head_dim),
               .bytes = (bytes_touched(touched) + ...)});
}

void check_keys(const VisibleKeys& keys, const AttentionShape& s) {
  if (keys.first == nullptr && keys.last == nullptr) return;
  for (int64_t row = 0; row < s.rows(); ++row) {
    const int64_t i = row % s.length;
    const int64_t first = keys.first == nullptr ? 0 : keys.first[row],
                  last = keys.last == nullptr ? i : keys.last[row];
    check(0 <= first && first <= i && i <= last && last < s.length, ErrorKind::argument,
          "[attention] keys of sequence {}, row {}: expected a range that holds {}, within 0 to {}, got {} "
          "to {}",
          row / s.length, i, i, s.length - 1, first, last);
  }
}

}  // namespace

Var attention(Tape& tape, Var qkv, const AttentionShape& shape, double scale, double dropout, int64_t layer,
              const VisibleKeys& keys, const HeadPlace& place) {
  check_qkv("attention", qkv, shape);
  check(dropout >= 0 && dropout < 1, ErrorKind::argument, "[attention] dropout: expected [0, 1), got {}",
        dropout);
  const Device device = qkv.value().device();
  if (device == Device::cpu) check_keys(keys, shape);  // elsewhere by who made the batch
  check_head_dim("attention", shape, device);
  check(keys.window >= 0, ErrorKind::argument, "[attention] window: expected at least 0, got {}",
        keys.window);
  const kernels::AttentionDropout drop{tape.micro_batch().training ? dropout : 0.0,
                                       tape.random(Purpose::attention_dropout, layer), place.heads,
                                       place.first};

  const Var y = tape.output(qkv.dtype(), {shape.rows(), shape.heads * shape.head_dim}, qkv.wants_grad());
  // One number per row and head lets backward recompute the probabilities, which are T times as many.
  const Tensor lse = tape.save(accum_dtype(qkv.dtype()), {shape.batch, shape.heads, shape.length});

  note(Pass::forward, shape, qkv, y, lse);
  visit_kernels<kernels::AttentionKernels>(qkv.value(), [&]<Device D, class T>() {
    kernels::attention_forward<D>(
        kernels::AttentionArgs<T>{shape, scale, drop, keys.first, qkv.value().data<T>(), y.value().data<T>(),
                                  lse.data<Accum<T>>(), keys.last, keys.window},
        tape.workspace(), tape.stream());
  });

  tape.record(y, [=](Tape& t, const Tensor& dy) {
    const GradSlot dqkv = t.grad_slot(qkv);
    note(Pass::backward, shape, qkv, y, lse, dy, dqkv);
    visit_kernels<kernels::AttentionKernels>(dy, [&]<Device D, class T>() {
      // p = softmax(scale q k^T); dv = p^T dy, dp = dy v^T, ds = p (dp - dy . y), dq = scale ds k,
      // dk = scale ds^T q                                   (Dao et al. 2022, FlashAttention, algorithm 4)
      kernels::attention_backward<D>(
          kernels::AttentionGradArgs<T>{shape, scale, drop, keys.first, qkv.value().data<T>(),
                                        y.value().data<T>(), lse.data<Accum<T>>(), dy.data<T>(),
                                        dqkv.grad.data<T>(), dqkv.accumulate, keys.last, keys.window},
          t.workspace(), t.stream());
    });
  });
  return y;
}

}  // namespace ziggurat::ops
