#include <algorithm>

#include "ops/shared_vocabulary.h"
#include "ops/vocabulary_products.h"
#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/distillation.h>
#include <ziggurat/ops/distillation.h>

namespace ziggurat::ops {

namespace {

void check_arguments(const Var& x, const Param& weight, const int32_t* targets, const LossArgs& args,
                     const TeacherHead& teacher, const DistillationArgs& distil) {
  const Tensor &w = weight.value, &h = teacher.hidden, &tw = teacher.weight->value;
  check(x.shape().rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(1), ErrorKind::argument,
        "[distillation] expected x [N, C] and weight [V, C], got {} and {}", x.shape(), w.shape());
  check(h.rank() == 2 && tw.rank() == 2 && h.dim(1) == tw.dim(1) && h.dim(0) == x.dim(0), ErrorKind::argument,
        "[distillation] expected the teacher's hidden states [{}, C] and weight [V, C], got {} and {}",
        x.dim(0), h.shape(), tw.shape());
  check(x.dtype() == w.dtype() && h.dtype() == tw.dtype() && accum_dtype(x.dtype()) == accum_dtype(h.dtype()),
        ErrorKind::argument, "[distillation] x is {}, weight is {}; of the teacher {} and {}",
        to_string(x.dtype()), to_string(w.dtype()), to_string(h.dtype()), to_string(tw.dtype()));
  const int64_t ranks = args.vocabulary == nullptr ? 1 : args.vocabulary->size(),
                rows = ranks * std::min(w.dim(0), tw.dim(0));
  check(args.vocab_size > 0 && args.vocab_size <= rows, ErrorKind::argument,
        "[distillation] vocab_size: expected 1 to {} (the weights' rows), got {}", rows, args.vocab_size);
  check(ranks == 1 || w.dim(0) == tw.dim(0), ErrorKind::argument,
        "[distillation] ranks that share a vocabulary have the same part of both weights, got {} and {}",
        w.shape(), tw.shape());
  check(distil.temperature > 0, ErrorKind::argument, "[distillation] a temperature above 0, got {}",
        distil.temperature);
  if (x.value().device() != Device::cpu) return;  // targets are not readable here
  for (int64_t i = 0; i < x.dim(0); ++i) {
    check((targets[i] >= 0 && targets[i] < args.vocab_size) || targets[i] == args.ignore_index,
          ErrorKind::data, "[distillation] target {} is {}: expected 0 to {} or the ignored {}", i,
          targets[i], args.vocab_size - 1, args.ignore_index);
  }
}

// Products, and between them both models' logits in the accumulation dtype, which are read twice.
void note_heads(const Var& x, const Param& weight, const TeacherHead& teacher, const GradSlot& dx,
                bool backward) {
  const int64_t rows = x.dim(0), width = x.dim(1), vocabulary = weight.value.dim(0);
  const int64_t teacher_vocabulary = teacher.weight->value.dim(0);
  const auto bytes = static_cast<double>(size_of(accum_dtype(x.dtype())));
  const double logits = static_cast<double>(rows * vocabulary) * bytes,
               teacher_logits = static_cast<double>(rows * teacher_vocabulary) * bytes,
               gradients = static_cast<double>(rows * vocabulary * size_of(x.dtype()));
  note_product("head", Pass::forward, {1, rows, vocabulary, width}, x, &weight, logits);
  note_product("teacher's head", Pass::forward, {1, rows, teacher_vocabulary, teacher.hidden.dim(1)},
               teacher.hidden, teacher.weight, teacher_logits);
  note_kernel("softmax", Pass::forward, logits, teacher_logits);
  note_kernel("distillation", Pass::forward, logits, teacher_logits, backward ? gradients : 0.0);
  if (backward && weight.trainable()) {
    note_product("head", Pass::weight, {1, vocabulary, width, rows}, gradients, x, gradient_bytes(weight));
  }
  if (dx) note_product("head", Pass::backward, {1, rows, width, vocabulary}, gradients, &weight, dx);
}

// run(T{}, G{}): a dtype, and the one in which its products are computed.
template <Device D, class T, class Run>
auto with_product_dtype(const Run& run) {
  if constexpr (D == Device::cpu && std::is_same_v<T, bf16>) {
    if (kernels::bf16_gemm() == kernels::Bf16Gemm::widened) return run(T{}, float{});
  }
  return run(T{}, T{});
}

// run(T{}, G{}) for the teacher's, beside a student that accumulates in A.
template <Device D, class A, class Run>
void with_teacher_dtype(const TeacherHead& teacher, const Run& run) {
  if constexpr (std::is_same_v<A, double>) {
    run(double{}, double{});
  } else if (teacher.hidden.dtype() == DType::bf16) {
    with_product_dtype<D, bf16>(run);
  } else {
    run(float{}, float{});
  }
}

// T and G: as of VocabularyProducts, for the student. Teacher: VocabularyProducts of its own.
template <Device D, class T, class G, class Teacher>
class Distillation {
 public:
  using A = Accum<T>;

  Distillation(const Tensor& x, const Param& weight, const GradSlot& dx, bool backward, const LossArgs& args,
               const TeacherHead& teacher, const DistillationArgs& distil, const double* grad_scale,
               Arena& workspace, Stream& stream)
      : x_(x),
        weight_(weight),
        dx_(dx, x, workspace, stream),
        backward_(backward),
        args_(args),
        distil_(distil),
        grad_scale_(grad_scale),
        workspace_(workspace),
        stream_(stream),
        width_(x.dim(1)),
        shared_(args, weight.value.dim(0)),
        student_(x, weight, shared_.words(), static_cast<bool>(dx), workspace, stream),
        teacher_(teacher.hidden, *teacher.weight, shared_.words(), false, workspace, stream),
        dweight_(backward && weight.trainable() ? weight.grad.data<A>() : nullptr),
        scaled_(distil.temperature != 1) {
    const int64_t chunk = std::min(kLogitsRows, x.dim(0)), tiles = shared_.all_tiles();
    const auto columns = [&](const auto& products) {
      const int64_t last = products.tiles() - 1;
      return last < 0 ? 0 : last * kVocabularyTile + products.columns(last);
    };
    student_logits_ = workspace.take_on_device<A>(chunk * columns(student_));
    teacher_logits_ = workspace.take_on_device<A>(chunk * columns(teacher_));
    gradient_ = backward && !kInPlace ? workspace.take_on_device<G>(chunk * kVocabularyTile) : nullptr;
    reference_ = workspace.take_on_device<A>(tiles * chunk);
    maximum_ = workspace.take_on_device<A>(tiles * chunk);
    sum_ = workspace.take_on_device<double>(tiles * chunk);
    target_logit_ = workspace.take_on_device<A>(chunk);
    losses_ = workspace.take_on_device<kernels::TokenLoss>(chunk);
    divergence_ = workspace.take_on_device<double>(chunk);
    if (shared_.shared()) {
      own_targets_ = workspace.take_on_device<int32_t>(chunk);
      maxima_ = workspace.take_on_device<A>(shared_.ranks() * chunk);
      sums_ = workspace.take_on_device<double>(shared_.ranks() * chunk);
    }
    const auto sums = [&] {
      return kernels::ExponentialSums<A>{workspace.take_on_device<A>(chunk),
                                         workspace.take_on_device<double>(chunk)};
    };
    of_teacher_ = sums();
    if (scaled_) of_student_ = sums();
  }

  void run(const int32_t* targets, double* sums) {
    fill_zero(Tensor(sums, DType::f64, {kDistillationSums}, x_.device()), stream_);
    for (int64_t begin = 0; begin < x_.dim(0); begin += kLogitsRows) {
      rows_ = std::min(kLogitsRows, x_.dim(0) - begin);
      student_.begin_chunk(begin, rows_);
      teacher_.begin_chunk(begin, rows_);
      const int32_t* own = shared_.own_targets<D>(targets + begin, rows_, own_targets_, stream_);
      forward(targets + begin, own);
      meet(begin, targets + begin, own);
      shared_.add_up(divergence_, rows_, x_.device(), stream_);
      double* const token_losses = args_.token_losses == nullptr ? nullptr : args_.token_losses + begin;
      kernels::add_token_losses<D>({rows_, losses_, sums, token_losses}, stream_);
      kernels::add_divergences<D>(
          {rows_, divergence_, distil_.weight, distil_.temperature * distil_.temperature, sums + kLossSums},
          stream_);
    }
  }

 private:
  static constexpr bool kInPlace = std::is_same_v<G, A>;  // gradients take the memory of their logits

  double scale() const { return 1 / distil_.temperature; }
  A* student_logits(int64_t t) const { return student_logits_ + t * kVocabularyTile * rows_; }
  A* teacher_logits_of(int64_t t) const { return teacher_logits_ + t * kVocabularyTile * rows_; }

  template <class X>
  void zero(X* values) {
    fill_zero(Tensor(values, dtype_of<X>(), {rows_}, x_.device()), stream_);
  }

  // Of ranks that share the vocabulary: from sums of one's part to those of all.
  void add_up(const kernels::ExponentialSums<A>& sums) {
    shared_.gather_rows(sums.maximum, maxima_, rows_, x_.device(), stream_);
    shared_.gather_rows(sums.sum, sums_, rows_, x_.device(), stream_);
    kernels::join_exponentials<D>(
        kernels::JoinExponentialsArgs<A>{rows_, shared_.ranks(), {maxima_, sums_}, sums}, stream_);
  }

  // Both models' logits and what softmaxes divide by; the cross-entropies. `own`: targets as of
  // SharedVocabulary.
  void forward(const int32_t* targets, const int32_t* own) {
    if (shared_.shared()) {
      zero(target_logit_);
      for (const auto& sums : {of_teacher_, of_student_}) {
        if (sums.sum == nullptr) continue;
        zero(sums.maximum), zero(sums.sum);  // those of a rank without words
      }
    }
    for (int64_t t = 0; t < student_.tiles(); ++t) {
      student_.logits(t, student_logits(t));
      teacher_.logits(t, teacher_logits_of(t));
      const int64_t words = student_.words(t), at = shared_.place(t) * rows_;
      kernels::softmax_tile<D>(
          kernels::SoftmaxTileArgs<A, G>{rows_, words, student_.columns(t), student_logits(t), own,
                                         t * kVocabularyTile, t > 0 ? reference_ + at - rows_ : nullptr,
                                         reference_ + at, maximum_ + at, sum_ + at, target_logit_, nullptr},
          stream_);
      const auto add = [&](const A* logits, int64_t stride, const kernels::ExponentialSums<A>& sums) {
        kernels::add_exponentials<D>(
            kernels::AddExponentialsArgs<A>{rows_, words, stride, logits, scale(), t == 0, sums}, stream_);
      };
      add(teacher_logits_of(t), teacher_.columns(t), of_teacher_);
      if (scaled_) add(student_logits(t), student_.columns(t), of_student_);
    }
    shared_.tell_tiles<D>(reference_, maximum_, sum_, target_logit_, rows_, x_.device(), stream_);
    if (shared_.shared()) {
      add_up(of_teacher_);
      if (scaled_) add_up(of_student_);
    }
    kernels::cross_entropy<D>(kernels::CrossEntropyArgs<A>{rows_, shared_.all_tiles(), reference_, maximum_,
                                                           sum_, target_logit_, targets, args_.ignore_index,
                                                           grad_scale_, args_.z_loss, losses_, nullptr},
                              stream_);
  }

  // The divergences, and with them the gradients of logits, which the products take at once.
  void meet(int64_t begin, const int32_t* targets, const int32_t* own) {
    A* const dx = dx_ ? dx_.begin_chunk(begin, rows_) : nullptr;
    const bool add = dweight_ == nullptr || weight_.must_add();
    if (!add) {
      const Tensor padding = weight_.grad.rows(shared_.words(), weight_.grad.dim(0));
      fill_zero(padding, stream_);
    }
    if (student_.tiles() == 0) zero(divergence_);
    for (int64_t t = 0; t < student_.tiles(); ++t) {
      G* gradient = gradient_;
      if constexpr (kInPlace) gradient = backward_ ? student_logits(t) : nullptr;
      kernels::distillation_tile<D>(
          kernels::DistillationTileArgs<A, G>{
              rows_, student_.words(t), student_.columns(t), teacher_.columns(t), student_logits(t),
              teacher_logits_of(t), scale(), targets, args_.ignore_index, losses_, target_logit_, of_student_,
              of_teacher_, args_.z_loss, grad_scale_, distil_.weight, t == 0, divergence_, gradient},
          stream_);
      if (dweight_ != nullptr) student_.weight_gradient(t, gradient, student_.chunk(), dweight_, add);
      if (dx != nullptr) student_.backward(t, gradient, dx, true);
    }
    if (!backward_) return;
    kernels::subtract_targets<D>(
        kernels::SubtractTargetsArgs<A, T>{rows_, width_, own, shared_.ignored(), grad_scale_,
                                           x_.data<T>() + begin * width_, weight_.value.data<T>(), dx,
                                           dweight_},
        stream_);
    if (dx != nullptr) dx_.end_chunk();
  }

  const Tensor& x_;
  const Param& weight_;
  HiddenGradient<D, T> dx_;
  bool backward_;
  const LossArgs& args_;
  const DistillationArgs& distil_;
  const double* grad_scale_;
  Arena& workspace_;
  Stream& stream_;
  int64_t width_, rows_ = 0;
  SharedVocabulary shared_;
  VocabularyProducts<D, T, G> student_;
  Teacher teacher_;
  A* dweight_;
  bool scaled_;  // the temperature is not 1

  // Of a chunk: [rows, columns] for each tile, [tiles, rows] or [rows].
  int32_t* own_targets_ = nullptr;
  A* maxima_ = nullptr;     // [ranks, rows]
  double* sums_ = nullptr;  // [ranks, rows]
  A *student_logits_, *teacher_logits_, *reference_, *maximum_, *target_logit_;
  G* gradient_;
  double *sum_, *divergence_;
  kernels::TokenLoss* losses_;
  kernels::ExponentialSums<A> of_teacher_, of_student_;
};

}  // namespace

Tensor distillation(Tape& tape, Var x, const Param& weight, const int32_t* targets, const LossArgs& args,
                    const TeacherHead& teacher, const DistillationArgs& distil) {
  check_arguments(x, weight, targets, args, teacher, distil);
  const Span span(tape.stream().profile(), "head");
  const bool backward = tape.recording();
  const GradSlot dx = backward ? tape.grad_slot(x) : GradSlot{};
  const Tensor sums = tape.save(DType::f64, {kDistillationSums});
  const ArenaScope scope(tape.workspace());

  if (backward) tape.before_write(weight);
  note_heads(x, weight, teacher, dx, backward);
  visit_kernels<kernels::DistillationKernels, kernels::CrossEntropyKernels, kernels::GemmKernels,
                kernels::WeightProductKernels, kernels::ElementwiseKernels>(
      x.value(), [&]<Device D, class T0>() {
        with_product_dtype<D, T0>([&]<class T, class G>(T, G) {
          with_teacher_dtype<D, Accum<T>>(teacher, [&]<class TT, class TG>(TT, TG) {
            Distillation<D, T, G, VocabularyProducts<D, TT, TG>>(
                x.value(), weight, dx, backward, args, teacher, distil, &tape.numbers()->token_weight,
                tape.workspace(), tape.stream())
                .run(targets, sums.data<double>());
          });
        });
      });
  if (backward) tape.after_write(weight);
  return sums;
}

}  // namespace ziggurat::ops
