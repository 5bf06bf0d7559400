#include <algorithm>

#include <ziggurat/bench/gemm_bound.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/kernels/attention.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/ops/cross_entropy.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::bench {

namespace {

void fill(const Tensor& t, double value) {  // small numbers: zeros would cost less power, and so less time
  visit_float_dtype(t.dtype(), [&]<class T>() { std::fill_n(t.data<T>(), t.numel(), T(value)); });
}

}  // namespace

GemmBound::GemmBound(const train::RunConfig& config, int world_size)
    : data_("bound", Arena::all_memory()),
      workspace_("bound workspace", Arena::all_memory()),
      operands_(train::compute_dtype(config.precision)),
      sums_(accum_dtype(operands_)) {
  if (kernels::bf16_gemm() == kernels::Bf16Gemm::widened && operands_ == DType::bf16) operands_ = DType::f32;
  const model::ModelConfig m = train::model_of(config, world_size);
  const int64_t tokens = config.batch.micro_batch * config.batch.sequence_length;
  passes_ = train::tokens_of_rank(config, train::layout_of(config, world_size).dp().size) / tokens;
  // Of what tensor parallelism cuts, a rank's part.
  const int64_t tp = config.parallel.tensor, width = m.hidden, q = m.heads / tp * m.head_width(),
                kv = m.key_value_heads() / tp * m.head_width();
  const auto add_ffn = [&](double Times::*part, int64_t groups, int64_t rows, int64_t ffn) {
    add(part, groups, rows, width, ffn);
    if (nn::is_gated(m.activation)) add(part, groups, rows, width, ffn);
    if (m.activation == nn::MlpKind::swiglu_linear) add(part, groups, rows, width, ffn);
    add(part, groups, rows, ffn, width);
  };
  for (const model::BlockSpec& layer : m.layers()) {
    add(&Times::linear, 1, tokens, width, q + 2 * kv);
    add(&Times::linear, 1, tokens, q, width);
    if (layer.ffn == model::FfnKind::dense) {
      add_ffn(&Times::linear, 1, tokens, m.ffn_width() / tp);
      continue;
    }
    if (layer.ffn == model::FfnKind::residual_moe) {
      add_ffn(&Times::linear, 1, tokens, m.residual_width() / tp);
    }
    // Of experts' matrices a rank has a part, for the tokens of all that share them.
    const int64_t held = layer.experts / layer.expert_parallel, cut = config.parallel.expert_tensor;
    add_ffn(&Times::expert, held, cut * tokens / tp * m.moe.top_k / held, m.expert_width() / cut);
  }
  add(&Times::head, 1, tokens, width, tp == 1 ? m.vocab_size : m.padded_vocab() / tp);
  attention_ = {static_cast<int64_t>(m.layers().size()), config.batch.micro_batch * m.heads / tp,
                config.batch.sequence_length, m.head_width()};
  const int64_t head_elements = attention_.count * attention_.length * attention_.width;
  int64_t inputs = 4 * head_elements, outputs = thread_count() * attention_tile();
  for (const Linear& layer : layers_) {
    const int64_t rows = layer.part == &Times::head ? std::min(ops::kLogitsRows, layer.rows) : layer.rows;
    inputs = std::max(inputs, layer.groups * layer.rows * layer.in);
    outputs = std::max(outputs, layer.groups * rows * layer.out);
  }
  x_ = allocate(data_, operands_, {inputs});
  dy_ = allocate(data_, operands_, {outputs});
  y_ = allocate(data_, sums_, {std::max(inputs, outputs)});
  for (const Tensor& t : {x_, dy_, y_}) fill(t, 0.01);
  for (const Linear& layer : layers_) {
    flops_ += 6.0 * static_cast<double>(layer.groups * layer.rows * layer.in * layer.out);
  }
  for (int64_t begin = 0; begin < attention_.length; begin += kernels::kAttentionQueries) {
    const int64_t end = std::min(begin + kernels::kAttentionQueries, attention_.length);
    flops_ += 12.0 * static_cast<double>(attention_.layers * attention_.count * (end - begin) * end *
                                         attention_.width);
  }
  flops_ *= static_cast<double>(passes_);
}

int64_t GemmBound::attention_tile() const {
  return attention_.length * (kernels::kAttentionQueries + attention_.width);
}

void GemmBound::add(double Times::*part, int64_t groups, int64_t rows, int64_t in, int64_t out) {
  const int64_t tile = part == &Times::head ? std::min(out, ops::kVocabularyTile) : out;
  Linear layer{part,
               groups,
               rows,
               in,
               out,
               tile,
               allocate(data_, operands_, {groups, out, in}),
               allocate(data_, sums_, {groups, out, in}),
               nullptr};
  fill(layer.weight, 0.01);
  fill_zero(layer.dweight);
  visit_float_dtype(operands_, [&]<class T>() {
    if constexpr (!std::is_same_v<T, double>) {
      const auto copies = part == &Times::expert ? std::optional(kernels::Copies::both)
                                                 : kernels::copies_that_pay<T>(passes_ * rows);
      if (!copies || !kernels::PackedWeights::supported<T>(groups * out, tile, in, *copies)) return;
      layer.packed = std::make_unique<kernels::PackedWeights>(layer.weight.data<T>(), groups * out, tile, in,
                                                              *copies, data_);
    }
  });
  layers_.push_back(std::move(layer));
}

// y = x w^T, dx = dy w, dw += dy^T x; in the first micro-batch dw = dy^T x. As in a step, products
// with packed copies on both sides are written in the operands' dtype, but logits and sums of experts' units.
void GemmBound::run_linear(const Linear& l, bool first) {
  visit_float_dtype(x_.dtype(), [&]<class T>() {
    const bool both = l.packed != nullptr && l.packed->has(kernels::Side::backward);
    if (l.part == &Times::linear && both) return run_products<T, T>(l, first);
    run_products<T, Accum<T>>(l, first);
  });
}

template <class T, class TC>
void GemmBound::run_products(const Linear& l, bool first) {
  using A = Accum<T>;
  using Args = kernels::GemmArgs<T, A>;
  using Product = kernels::WeightProduct<T, TC>;
  const int64_t chunk = l.part == &Times::head ? std::min(ops::kLogitsRows, l.rows) : l.rows;
  const int64_t tiles = (l.out + l.tile - 1) / l.tile;
  const auto products = [&](int64_t group, const auto& gemm, const auto& weight_product) {
    TC* y = reinterpret_cast<TC*>(y_.data<A>() + group * l.rows * std::max(l.out, l.in));
    TC* dx = y;  // nobody reads either
    const T* dy = dy_.data<T>() + group * l.rows * l.out;
    for (int64_t begin = 0; begin < l.rows; begin += chunk) {
      const int64_t n = std::min(chunk, l.rows - begin);
      const T* x = x_.data<T>() + (group * l.rows + begin) * l.in;
      const auto product = [&](kernels::Side side, int64_t t) {
        const int64_t row = t * l.tile;
        const bool forward = side == kernels::Side::forward;
        return Product{side,
                       n,
                       std::min(l.tile, l.out - row),
                       l.in,
                       forward ? x : dy + row * n,
                       l.weight.data<T>() + (group * l.out + row) * l.in,
                       l.packed.get(),
                       group * tiles + t,
                       forward ? y + row * n : dx};
      };
      for (int64_t t = 0; t < tiles; ++t) weight_product(product(kernels::Side::forward, t));
      for (int64_t t = 0; t < tiles; ++t) {
        const Product p = product(kernels::Side::backward, t);
        A* dw = l.dweight.data<A>() + (group * l.out + t * l.tile) * l.in;
        gemm(Args{true, false, p.out, l.in, n, p.a, p.out, x, l.in, dw, l.in, begin > 0 || !first});
        weight_product(p);
      }
    }
  };
  if (l.groups == 1) {
    products(
        0, [&](const Args& g) { kernels::gemm<Device::cpu>(g, workspace_, stream_); },
        [&](const Product& p) { kernels::weight_product<Device::cpu>(p, workspace_, stream_); });
  } else if constexpr (std::is_same_v<TC, A>) {
    parallel_for(l.groups, [&](int64_t group) {
      const OneThread alone;
      products(
          group, [](const Args& g) { kernels::gemm_on_this_thread<Device::cpu>(g); },
          [&](const Product& p) {  // packed ones take no scratch, which threads could not share
            if (p.packed != nullptr) return kernels::weight_product<Device::cpu>(p, workspace_, stream_);
            kernels::gemm_on_this_thread<Device::cpu>(kernels::without_copy(p));
          });
    });
  }
}

// Per head and block of queries: scores = q k^T, y = p v; dp = dy v^T, dv += p^T dy, dk += ds^T q, dq = ds k.
void GemmBound::run_attention() {
  const auto [layers, count, length, width] = attention_;
  visit_float_dtype(x_.dtype(), [&, count = count, length = length, width = width]<class T>() {
    using A = Accum<T>;
    using Args = kernels::GemmArgs<T, A>;
    parallel_for(count, [&](int64_t head) {
      const int64_t size = length * width;
      const T *q = x_.data<T>() + head * size, *k = q + count * size, *v = k + count * size,
              *dy = v + count * size;
      const T* p = dy_.data<T>() + thread_index() * attention_tile();
      A* scores = y_.data<A>() + thread_index() * attention_tile();
      A* out = scores + kernels::kAttentionQueries * length;
      const auto gemm = [](const Args& g) { kernels::gemm_on_this_thread<Device::cpu>(g); };
      for (int64_t begin = 0; begin < length; begin += kernels::kAttentionQueries) {
        const int64_t n = std::min(kernels::kAttentionQueries, length - begin), end = begin + n;
        gemm({false, true, n, end, width, q + begin * width, width, k, width, scores, length});
        gemm({false, false, n, width, end, p, length, v, width, out, width});
        gemm({false, true, n, end, width, dy + begin * width, width, v, width, scores, length});
        gemm({true, false, end, width, n, p, length, dy + begin * width, width, out, width, true});
        gemm({true, false, end, width, n, p, length, q + begin * width, width, out, width, true});
        gemm({false, false, n, width, end, p, length, k, width, out, width});
      }
    });
  });
}

GemmBound::Times GemmBound::run() {
  Times times;
  for (const Linear& layer : layers_) {
    if (layer.packed) layer.packed->expire();  // as after an update of the weights
  }
  for (int64_t pass = 0; pass < passes_; ++pass) {
    for (const Linear& layer : layers_) {
      const Timer timer;
      run_linear(layer, pass == 0);
      times.*layer.part += timer.seconds();
    }
    const Timer timer;
    for (int64_t layer = 0; layer < attention_.layers; ++layer) run_attention();
    times.attention += timer.seconds();
  }
  return times;
}

}  // namespace ziggurat::bench
