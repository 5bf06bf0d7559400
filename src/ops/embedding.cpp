#include <ops/panels.h>
#include <ops/position_checks.h>

#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/embedding.h>
#include <ziggurat/kernels/panel_linear.h>
#include <ziggurat/ops/embedding.h>

namespace ziggurat::ops {

namespace {

void check_tokens(const int32_t* tokens, int64_t n, int64_t sequence_length, int64_t vocabulary) {
  for (int64_t i = 0; i < n; ++i) {
    check(
        0 <= tokens[i] && tokens[i] < vocabulary, ErrorKind::data,
        "[embedding] token id {} at sequence {}, position {} is outside the vocabulary [0, {}): was the data "
        "made with another tokenizer, or is the model's vocabulary too small?",
        tokens[i], i / sequence_length, i % sequence_length, vocabulary);
  }
}

// Checked ones; negative: no row.
Var look_up(Tape& tape, const int32_t* tokens, int64_t n, int64_t sequence_length, const Param& table,
            const Param* position_table, const int32_t* positions);

}  // namespace

Var embedding(Tape& tape, const int32_t* tokens, int64_t n, int64_t sequence_length, const Param& table,
              const Param* position_table, const int32_t* positions) {
  const Tensor& w = table.value;
  check(w.rank() == 2, ErrorKind::argument, "[embedding] expected table [V, C], got {}", w.shape());
  check(n >= 0 && sequence_length > 0, ErrorKind::argument,
        "[embedding] expected n >= 0 and sequence_length > 0, got {} and {}", n, sequence_length);
  const int64_t cols = w.dim(1);
  if (position_table != nullptr) {
    const Tensor& p = position_table->value;
    check(p.rank() == 2 && p.dim(1) == cols && p.dtype() == w.dtype(), ErrorKind::argument,
          "[embedding] expected a position table {} [T_max, {}], got {} {}", to_string(w.dtype()), cols,
          to_string(p.dtype()), p.shape());
    check_positions("embedding", w.device(), positions, n, p.dim(0));
    check(positions != nullptr || sequence_length <= p.dim(0), ErrorKind::argument,
          "[embedding] sequences of {} tokens, but only {} learned positions: shorten the sequences or raise "
          "the model's maximum length",
          sequence_length, p.dim(0));
  }
  if (w.device() == Device::cpu) check_tokens(tokens, n, sequence_length, w.dim(0));
  return look_up(tape, tokens, n, sequence_length, table, position_table, positions);
}

Var embedding_of_part(Tape& tape, const int32_t* tokens, int64_t n, int64_t sequence_length,
                      const Param& table, int64_t first, int64_t vocabulary) {
  const Tensor& w = table.value;
  if (w.device() == Device::cpu) check_tokens(tokens, n, sequence_length, vocabulary);
  auto* const own = tape.save(DType::i32, {n}).data<int32_t>();
  visit_kernels<kernels::EmbeddingKernels>(w, [&]<Device D, class T>() {
    kernels::rows_of_part<D>({.n = n, .ids = tokens, .first = first, .rows = w.dim(0), .row_of_part = own},
                             tape.stream());
  });
  return look_up(tape, own, n, sequence_length, table, nullptr, nullptr);
}

const int32_t* counted_positions(Tape& tape, const Param& table, int64_t first, int64_t n, int64_t length) {
  auto* const positions = tape.save(DType::i32, {n}).data<int32_t>();
  visit_kernels<kernels::EmbeddingKernels>(table.value, [&]<Device D, class T>() {
    kernels::count_positions<D>(first, n, length, positions, tape.stream());
  });
  return positions;
}

namespace {

Var look_up(Tape& tape, const int32_t* tokens, int64_t n, int64_t sequence_length, const Param& table,
            const Param* position_table, const int32_t* positions) {
  const Tensor& w = table.value;
  const int64_t cols = w.dim(1);
  const bool wants_grad = table.trainable() || (position_table != nullptr && position_table->trainable());
  const Var y = tape.output(w.dtype(), {n, cols}, wants_grad);

  if (table.panels) {
    const bool has_positions = position_table == nullptr || positions != nullptr || n == 0;
    check(!tape.recording() && has_positions, ErrorKind::internal,
          "[embedding] a table in panels is for inference, with explicit positions");
    visit_kernels<kernels::PanelLinearKernels>(w, [&]<Device D, class T>() {
      const T* p = position_table == nullptr ? nullptr : position_table->value.data<T>();
      kernels::panel_gather<D>(kernels::PanelGatherArgs<T>{n, cols, w.dim(0), tokens, positions, w.data<T>(),
                                                           p, y.value().data<T>(), int8_weights(table)},
                               tape.stream());
    });
    return y;
  }
  note_kernel("embedding", Pass::forward, y, y);  // as many rows of the table
  visit_kernels<kernels::EmbeddingKernels>(w, [&]<Device D, class T>() {
    const T* p = position_table == nullptr ? nullptr : position_table->value.data<T>();
    kernels::embedding_forward<D>(kernels::EmbeddingArgs<T>{n, cols, tokens, sequence_length, positions,
                                                            w.data<T>(), p, y.value().data<T>()},
                                  tape.stream());
  });

  // dtable[tokens_i] += dy_i, dposition_table[positions_i] += dy_i
  tape.record(y, {&table, position_table}, [=, &table](Tape& t, const Tensor& dy) {
    if (table.trainable()) table.settle_grad(t.stream());
    // Rows of the gradient, read and written.
    note_kernel("embedding", Pass::backward, dy,
                2.0 * static_cast<double>(n * cols * size_of(accum_dtype(dy.dtype()))));
    visit_kernels<kernels::EmbeddingKernels>(dy, [&]<Device D, class T>() {
      using A = Accum<T>;
      const bool position_grad = position_table != nullptr && position_table->trainable();
      kernels::embedding_backward<D>(
          kernels::EmbeddingGradArgs<T>{n, cols, tokens, sequence_length, positions, dy.data<T>(),
                                        table.trainable() ? table.grad.data<A>() : nullptr,
                                        position_grad ? position_table->grad.data<A>() : nullptr},
          t.stream());
    });
  });
  return y;
}

}  // namespace

}  // namespace ziggurat::ops
