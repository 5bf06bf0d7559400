#include "ops/shared_vocabulary.h"
#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/label_smoothing.h>
#include <ziggurat/ops/label_smoothing.h>

namespace ziggurat::ops {

Tensor label_smoothing(Tape& tape, Var x, const Param& weight, const int32_t* targets, const LossArgs& loss,
                       double epsilon) {
  const Tensor& w = weight.value;
  check(x.shape().rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(1) && x.dtype() == w.dtype(),
        ErrorKind::argument,
        "[label_smoothing] expected x [N, C] and weight [V, C] alike, got {} {} and {} {}",
        to_string(x.dtype()), x.shape(), to_string(w.dtype()), w.shape());
  const SharedVocabulary shared(loss, w.dim(0));
  check(loss.vocab_size > 0 && loss.vocab_size <= w.dim(0) * shared.ranks(), ErrorKind::argument,
        "[label_smoothing] vocab_size: expected 1 to {} (the weight's rows), got {}",
        w.dim(0) * shared.ranks(), loss.vocab_size);
  check(epsilon >= 0 && epsilon < 1, ErrorKind::argument,
        "[label_smoothing] epsilon: expected [0, 1), got {}", epsilon);
  const Tensor sum = tape.save(DType::f64, {1});
  const GradSlot dx = tape.recording() ? tape.grad_slot(x) : GradSlot{};
  const bool learns = tape.recording() && weight.trainable();
  if (learns) tape.before_write(weight);
  if (learns) weight.settle_grad(tape.stream());
  note_kernel("label_smoothing", Pass::forward, x, w, dx, learns ? 2 * gradient_bytes(weight) : 0.0);
  const ArenaScope scope(tape.workspace());
  auto* const memory = shared.shared() ? tape.workspace().take_on_device<int32_t>(x.dim(0)) : nullptr;
  visit_kernels<kernels::LabelSmoothingKernels>(x.value(), [&]<Device D, class T>() {
    const int32_t* own = shared.own_targets<D>(targets, x.dim(0), memory, tape.stream());
    kernels::label_smoothing<D>(
        kernels::LabelSmoothingArgs<T>{x.dim(0), x.dim(1), shared.words(), loss.vocab_size, epsilon,
                                       x.value().data<T>(), w.data<T>(), targets, loss.ignore_index, own,
                                       shared.ignored(), sum.data<double>(), &tape.numbers()->token_weight,
                                       dx ? dx.grad.data<T>() : nullptr, dx.accumulate,
                                       learns ? weight.grad.data<Accum<T>>() : nullptr},
        tape.workspace(), tape.stream());
    shared.add_up(sum.data<double>(), 1, x.value().device(), tape.stream());
  });
  if (learns) tape.after_write(weight);
  return sum;
}

}  // namespace ziggurat::ops
