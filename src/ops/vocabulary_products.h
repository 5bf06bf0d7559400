// The products of a vocabulary head: hidden states with tiles of its weight, a chunk of rows at a time, so
// that logits of all rows never exist.
#pragma once

#include <algorithm>

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/weight_copies.h>
#include <ziggurat/ops/cross_entropy.h>

namespace ziggurat::ops {

// T: the dtype of x and the weight. G: the one in which their products are computed, wider on a CPU without
// bf16 products.
template <Device D, class T, class G>
class VocabularyProducts {
 public:
  using A = Accum<T>;

  // x [N, C], weight [V padded, C]. `backward`: also asked for dx.
  VocabularyProducts(const Tensor& x, const Param& weight, int64_t vocab_size, bool backward,
                     Arena& workspace, Stream& stream)
      : x_(x.data<T>()),
        weight_(weight.value.data<T>()),
        packed_(kernels::weight_copies(kernels::WeightRole::shared, weight_, weight.trained_version(),
                                       weight.value.dim(0), kVocabularyTile, x.dim(1), stream)),
        width_(x.dim(1)),
        table_rows_(weight.value.dim(0)),
        vocab_size_(vocab_size),
        workspace_(workspace),
        stream_(stream) {
    if constexpr (std::is_same_v<T, G>) {
      operand_weight_ = weight_;
    } else {  // once here rather than in every product; not where all of them have a copy
      wide_x_ = workspace.take_on_device<G>(std::min(kLogitsRows, x.dim(0)) * width_);
      const bool reads = packed_ == nullptr || (backward && !packed_->has(kernels::Side::backward));
      if (!reads) return;
      G* const wide = workspace.take_on_device<G>(table_rows_ * width_);
      kernels::convert<D>(weight_, wide, table_rows_ * width_, stream_);
      operand_weight_ = wide;
    }
  }

  int64_t tiles() const { return (vocab_size_ + kVocabularyTile - 1) / kVocabularyTile; }
  // Columns of tile t in the products, with the padding of the vocabulary, and those of the vocabulary
  // itself.
  int64_t columns(int64_t t) const { return std::min(kVocabularyTile, table_rows_ - t * kVocabularyTile); }
  int64_t words(int64_t t) const { return std::min(kVocabularyTile, vocab_size_ - t * kVocabularyTile); }

  // The rows that the products from now on are of.
  void begin_chunk(int64_t begin, int64_t rows) {
    rows_ = rows;
    if constexpr (std::is_same_v<T, G>) {
      chunk_x_ = x_ + begin * width_;
    } else {
      kernels::convert<D>(x_ + begin * width_, wide_x_, rows * width_, stream_);
      chunk_x_ = wide_x_;
    }
  }
  void logits(int64_t t, A* to) { multiply(kernels::Side::forward, t, chunk_x_, to, false); }
  // dx [rows, C] = dlogits weight, or added to it; dlogits [rows, columns(t)].
  void backward(int64_t t, const G* dlogits, A* dx, bool add) {
    multiply(kernels::Side::backward, t, dlogits, dx, add);
  }
  // The tile's rows of dweight [V padded, C] = dlogits^T x, or added to it; `x` [rows, C]: chunk(), or what
  // takes its place.
  void weight_gradient(int64_t t, const G* dlogits, const G* x, A* dweight, bool add) {
    kernels::gemm<D>(kernels::GemmArgs<G, A>{true, false, words(t), width_, rows_, dlogits, columns(t), x,
                                             width_, dweight + t * kVocabularyTile * width_, width_, add},
                     workspace_, stream_);
  }
  const G* chunk() const { return chunk_x_; }

 private:
  template <class TC>
  void multiply(kernels::Side side, int64_t t, const G* a, TC* c, bool add) {
    const G* weight = operand_weight_ == nullptr ? nullptr : operand_weight_ + t * kVocabularyTile * width_;
    kernels::weight_product<D>(
        kernels::WeightProduct<G, TC>{side, rows_, columns(t), width_, a, weight, packed_, t, c, add},
        workspace_, stream_);
  }

  const T *x_, *weight_;
  kernels::PackedWeights* packed_;
  int64_t width_, table_rows_, vocab_size_, rows_ = 0;
  Arena& workspace_;
  Stream& stream_;
  const G *operand_weight_ = nullptr, *chunk_x_ = nullptr;
  G* wide_x_ = nullptr;
};

// The gradient of x [N, C], summed up a chunk of rows at a time: in place, unless it is rounded in the end.
template <Device D, class T>
class HiddenGradient {
 public:
  using A = Accum<T>;

  // dx: empty where nobody wants it.
  HiddenGradient(const GradSlot& dx, const Tensor& x, Arena& workspace, Stream& stream)
      : dx_(dx), width_(x.dim(1)), device_(x.device()), workspace_(workspace), stream_(stream) {
    if (dx && !kInPlace) sum_ = workspace.take_on_device<A>(std::min(kLogitsRows, x.dim(0)) * width_);
  }
  explicit operator bool() const { return static_cast<bool>(dx_); }

  // Where to add to: [rows, C].
  A* begin_chunk(int64_t begin, int64_t rows) {
    begin_ = begin, rows_ = rows;
    A* sum = sum_;
    if constexpr (kInPlace) sum = dx_.grad.template data<A>() + begin * width_;
    if (!kInPlace || !dx_.accumulate) {
      fill_zero(Tensor(sum, dtype_of<A>(), {rows * width_}, device_), stream_);
    }
    return sum;
  }
  void end_chunk() {
    if constexpr (!kInPlace) {
      const ArenaScope scope(workspace_);
      const int64_t n = rows_ * width_;
      T* const dx = dx_.grad.template data<T>() + begin_ * width_;
      T* const rounded = dx_.accumulate ? workspace_.take_on_device<T>(n) : dx;
      kernels::convert<D>(sum_, rounded, n, stream_);
      if (dx_.accumulate) kernels::accumulate<D>(rounded, dx, n, stream_);
    }
  }

 private:
  static constexpr bool kInPlace = std::is_same_v<T, A>;

  GradSlot dx_;
  int64_t width_, begin_ = 0, rows_ = 0;
  Device device_;  // D, or the meta device that stands for it
  Arena& workspace_;
  Stream& stream_;
  A* sum_ = nullptr;
};

}  // namespace ziggurat::ops
