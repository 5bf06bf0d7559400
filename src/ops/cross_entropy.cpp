#include <algorithm>
#include <array>

#include "ops/shared_vocabulary.h"
#include "ops/vocabulary_products.h"
#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/cross_entropy.h>
#include <ziggurat/ops/cross_entropy.h>

namespace ziggurat::ops {

namespace {

int64_t ranks_of(const LossArgs& args) { return args.vocabulary == nullptr ? 1 : args.vocabulary->size(); }

void check_arguments(const Var& x, const Tensor& w, const int32_t* targets, const LossArgs& args) {
  check(x.shape().rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(1), ErrorKind::argument,
        "[cross_entropy] expected x [N, C] and weight [V, C], got {} and {}", x.shape(), w.shape());
  check(x.dtype() == w.dtype(), ErrorKind::argument, "[cross_entropy] x is {}, weight is {}",
        to_string(x.dtype()), to_string(w.dtype()));
  const int64_t rows = w.dim(0) * ranks_of(args);
  check(args.vocab_size > 0 && args.vocab_size <= rows, ErrorKind::argument,
        "[cross_entropy] vocab_size: expected 1 to {} (the weight's rows), got {}", rows, args.vocab_size);
  if (x.value().device() != Device::cpu) return;  // targets are not readable here
  for (int64_t i = 0; i < x.dim(0); ++i) {
    check((targets[i] >= 0 && targets[i] < args.vocab_size) || targets[i] == args.ignore_index,
          ErrorKind::data, "[cross_entropy] target {} is {}: expected 0 to {} or the ignored {}", i,
          targets[i], args.vocab_size - 1, args.ignore_index);
  }
}

// Products, and between them logits in the accumulation dtype, which become exponentials in that of x.
void note_head(const Var& x, const Param& weight, const GradSlot& dx, bool backward) {
  const int64_t rows = x.dim(0), width = x.dim(1), vocabulary = weight.value.dim(0);
  const auto numbers = static_cast<double>(rows * vocabulary);
  const double logits = numbers * static_cast<double>(size_of(accum_dtype(x.dtype()))),
               exponentials = numbers * static_cast<double>(size_of(x.dtype()));
  note_product("head", Pass::forward, {1, rows, vocabulary, width}, x, &weight, logits);
  note_kernel("softmax", Pass::forward, logits, backward ? exponentials : 0.0);
  if (backward && weight.trainable()) {
    note_product("head", Pass::weight, {1, vocabulary, width, rows}, exponentials, x, gradient_bytes(weight));
  }
  if (dx) note_product("head", Pass::backward, {1, rows, width, vocabulary}, exponentials, &weight, dx);
}

// T and G: as of VocabularyProducts.
template <Device D, class T, class G>
class Head {
 public:
  using A = Accum<T>;

  Head(const Tensor& x, const Param& weight, const GradSlot& dx, bool backward, const LossArgs& args,
       const double* grad_scale, Arena& workspace, Stream& stream)
      : device_(x.device()),
        x_(x.data<T>()),
        weight_(weight.value.data<T>()),
        args_(args),
        grad_scale_(grad_scale),
        dx_(dx, x, workspace, stream),
        param_(weight),
        dweight_(backward && weight.trainable() ? weight.grad.data<A>() : nullptr),
        backward_(backward),
        width_(x.dim(1)),
        table_rows_(weight.value.dim(0)),
        shared_(args, table_rows_),
        vocabulary_(shared_.words()),
        tiles_(shared_.tiles()),
        stream_(stream),
        products_(x, weight, vocabulary_, static_cast<bool>(dx), workspace, stream) {
    const int64_t chunk = std::min(kLogitsRows, x.dim(0)),
                  tile = chunk * std::min(kVocabularyTile, table_rows_);
    exponentials_ = workspace.take_on_device<G>(
        backward ? chunk * std::min(table_rows_, tiles_ * kVocabularyTile) : tile);
    logits_ = kInPlace ? nullptr : workspace.take_on_device<A>(tile);
    const int64_t all_tiles = shared_.all_tiles();
    reference_ = workspace.take_on_device<A>(all_tiles * chunk);
    maximum_ = workspace.take_on_device<A>(all_tiles * chunk);
    factor_ = backward ? workspace.take_on_device<A>(all_tiles * chunk) : nullptr;
    sum_ = workspace.take_on_device<double>(all_tiles * chunk);
    own_targets_ = shared_.shared() ? workspace.take_on_device<int32_t>(chunk) : nullptr;
    target_logit_ = workspace.take_on_device<A>(chunk);
    losses_ = workspace.take_on_device<kernels::TokenLoss>(chunk);
    scaled_ = dweight_ != nullptr ? workspace.take_on_device<G>(chunk * width_) : nullptr;
    product_ = dx_ ? workspace.take_on_device<A>(chunk * width_) : nullptr;
  }

  void run(int64_t rows, const int32_t* targets, double* sums) {
    zero(sums, kLossSums);
    for (int64_t begin = 0; begin < rows; begin += kLogitsRows) {
      rows_ = std::min(kLogitsRows, rows - begin);
      products_.begin_chunk(begin, rows_);
      const int32_t* own = shared_.own_targets<D>(targets + begin, rows_, own_targets_, stream_);
      forward(targets + begin, own);
      if (backward_) backward(begin, own);
      double* const token_losses = args_.token_losses == nullptr ? nullptr : args_.token_losses + begin;
      kernels::add_token_losses<D>({rows_, losses_, sums, token_losses}, stream_);
    }
  }

 private:
  static constexpr bool kInPlace = std::is_same_v<G, A>;  // exponentials take the memory of their logits

  int64_t place(int64_t t) const { return shared_.place(t); }
  A* reference(int64_t t) const { return reference_ + place(t) * rows_; }
  // References, and with them factors, rarely move between tiles. Of a device's the host does not wait to
  // learn that.
  bool keeps_reference(int64_t t) const {
    if (device_ != Device::cpu) return false;
    return t > 0 && std::equal(reference(t), reference(t) + rows_, reference(t - 1));
  }
  const A* factor(int64_t t) const { return factor_ + place(t) * rows_; }
  G* exponentials(int64_t t) const { return exponentials_ + (backward_ ? t * kVocabularyTile * rows_ : 0); }

  template <class X>
  void zero(X* to, int64_t n) {
    fill_zero(Tensor(to, dtype_of<X>(), {n}, device_), stream_);
  }

  void forward(const int32_t* targets, const int32_t* own) {
    if (shared_.shared()) zero(target_logit_, rows_);
    for (int64_t t = 0; t < tiles_; ++t) {
      G* e = exponentials(t);
      A* logits = logits_;
      if constexpr (kInPlace) logits = e;
      products_.logits(t, logits);
      kernels::softmax_tile<D>(
          kernels::SoftmaxTileArgs<A, G>{rows_, products_.words(t), products_.columns(t), logits, own,
                                         t * kVocabularyTile, t > 0 ? reference(t - 1) : nullptr,
                                         reference(t), maximum_ + place(t) * rows_, sum_ + place(t) * rows_,
                                         target_logit_, backward_ ? e : nullptr},
          stream_);
    }
    shared_.tell_tiles<D>(reference_, maximum_, sum_, target_logit_, rows_, device_, stream_);
    kernels::cross_entropy<D>(kernels::CrossEntropyArgs<A>{rows_, shared_.all_tiles(), reference_, maximum_,
                                                           sum_, target_logit_, targets, args_.ignore_index,
                                                           grad_scale_, args_.z_loss, losses_, factor_},
                              stream_);
  }

  // With dlogits = factor e - grad_scale [target], row by row:
  void backward(int64_t begin, const int32_t* targets) {
    A* dx = dx_ ? dx_.begin_chunk(begin, rows_) : nullptr;
    const bool add = dweight_ == nullptr || param_.must_add();
    if (!add) zero(dweight_ + vocabulary_ * width_, (table_rows_ - vocabulary_) * width_);
    for (int64_t t = 0; t < tiles_; ++t) {
      const G* e = exponentials(t);
      const bool same = keeps_reference(t);
      if (dweight_ != nullptr) {  // dweight += e^T (factor x)
        if (!same) kernels::scale_rows<D>(products_.chunk(), factor(t), rows_, width_, scaled_, stream_);
        products_.weight_gradient(t, e, scaled_, dweight_, add);
      }
      if (dx != nullptr) {  // dx += factor (e weight), summed up while factors are the same
        if (!same && t > 0) kernels::add_scaled_rows<D>(product_, factor(t - 1), rows_, width_, dx, stream_);
        products_.backward(t, e, product_, same);
      }
    }
    if (dx != nullptr && tiles_ > 0) {
      kernels::add_scaled_rows<D>(product_, factor(tiles_ - 1), rows_, width_, dx, stream_);
    }
    kernels::subtract_targets<D>(
        kernels::SubtractTargetsArgs<A, T>{rows_, width_, targets, shared_.ignored(), grad_scale_,
                                           x_ + begin * width_, weight_, dx, dweight_},
        stream_);
    if (dx != nullptr) dx_.end_chunk();
  }

  Device device_;  // D, or the meta device that stands for it
  const T *x_, *weight_;
  const LossArgs& args_;
  const double* grad_scale_;
  HiddenGradient<D, T> dx_;
  const Param& param_;
  A* dweight_;
  bool backward_;
  int64_t width_, table_rows_;
  SharedVocabulary shared_;
  int64_t vocabulary_, tiles_;  // of this rank: rows that are no padding
  Stream& stream_;
  VocabularyProducts<D, T, G> products_;

  // Of a chunk. Per tile: [tiles, rows of the chunk].
  int64_t rows_ = 0;
  G *exponentials_, *scaled_;
  A *logits_, *reference_, *maximum_, *factor_, *target_logit_, *product_;
  double* sum_;
  kernels::TokenLoss* losses_;
  int32_t* own_targets_;
};

}  // namespace

Tensor cross_entropy(Tape& tape, Var x, const Param& weight, const int32_t* targets, const LossArgs& args) {
  check_arguments(x, weight.value, targets, args);
  check(!weight.panels, ErrorKind::internal, "[cross_entropy] the head lies in panels, for inference alone");
  const Span span(tape.stream().profile(), "head");
  const bool backward = tape.recording();
  const GradSlot dx = backward ? tape.grad_slot(x) : GradSlot{};
  const Tensor sums = tape.save(DType::f64, {kLossSums});
  const ArenaScope scope(tape.workspace());

  if (backward) tape.before_write(weight);
  note_head(x, weight, dx, backward);
  visit_kernels<kernels::CrossEntropyKernels, kernels::GemmKernels, kernels::WeightProductKernels,
                kernels::ElementwiseKernels>(x.value(), [&]<Device D, class T>() {
    const auto run = [&]<class G>(G) {
      Head<D, T, G>(x.value(), weight, dx, backward, args, &tape.numbers()->token_weight, tape.workspace(),
                    tape.stream())
          .run(x.dim(0), targets, sums.data<double>());
    };
    if constexpr (D == Device::cpu && std::is_same_v<T, bf16>) {
      if (kernels::bf16_gemm() == kernels::Bf16Gemm::widened) return run(float{});
    }
    run(T{});
  });
  if (backward) tape.after_write(weight);
  return sums;
}

LossResult read_loss(const Tensor& sums, Stream& stream) {
  std::array<double, kLossSums> values{};
  if (!is_meta(sums.device())) {
    copy(sums, Tensor(values.data(), DType::f64, {kLossSums}), stream);
    stream.wait();
  }
  return {values[0], values[1], static_cast<int64_t>(values[2]), static_cast<int64_t>(values[3])};
}

}  // namespace ziggurat::ops
