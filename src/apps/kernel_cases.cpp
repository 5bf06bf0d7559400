#include "apps/kernel_cases.h"

#include <ziggurat/kernels/adamw.h>
#include <ziggurat/kernels/attention.h>
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/cached_attention.h>
#include <ziggurat/kernels/cross_entropy.h>
#include <ziggurat/kernels/dispatch.h>
#include <ziggurat/kernels/dropout.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/embedding.h>
#include <ziggurat/kernels/few_rows.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/layer_norm.h>
#include <ziggurat/kernels/mix.h>
#include <ziggurat/kernels/random_normal.h>
#include <ziggurat/kernels/rms_norm.h>
#include <ziggurat/kernels/rope.h>
#include <ziggurat/kernels/router.h>
#include <ziggurat/kernels/router_logits.h>
#include <ziggurat/kernels/swiglu.h>

namespace ziggurat::apps {

int32_t* Lab::scattered(int64_t n, int64_t limit) {
  auto* x = static_cast<int32_t*>(data_.allocate(n * int64_t{sizeof(int32_t)}));
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<int32_t>(i * 7919 % limit);
  return x;
}

kernels::Segment* Lab::equal_shares(int64_t n, int64_t experts) {
  auto* x = static_cast<kernels::Segment*>(data_.allocate(experts * int64_t{sizeof(kernels::Segment)}));
  const int64_t rows = n / experts;
  for (int64_t e = 0; e < experts; ++e) x[e] = {e * rows, rows, static_cast<int32_t>(e), 0};
  return x;
}

kernels::PackedWeights* Lab::packed(const Tensor& weight, int64_t count, int64_t out, int64_t in) {
  if (!kernels::PackedWeights::supported(weight.dtype(), out, in)) return nullptr;
  return &packed_.emplace_back(weight, count, out, in, data_);
}

namespace {

using namespace kernels;
constexpr Device D = Device::cpu;

// configs/bench/small_dense.yaml and small_moe.yaml
constexpr int64_t kTokens = 2048, kWidth = 384, kFfn = 4 * kWidth, kVocab = 50304, kChunk = 512, kExperts = 8;
constexpr AttentionShape kHeads{8, 256, 6, 6, 64};
constexpr int64_t kN = kTokens * kWidth, kHidden = kTokens * kFfn, kQkv = kTokens * 3 * kWidth;
constexpr int64_t kParameters = int64_t{1} << 24;
constexpr int64_t kTexts = 8, kContext = 1024;  // of generating
constexpr double kScale = 0.125;                // 1 / sqrt(head_dim)
const char *const kRows = "2048 x 384", *const kWide = "2048 x 1536", *const kHead = "512 x 50304 x 384";

template <class... Bytes>
Floor traffic(int64_t n, Bytes... of_an_element) {
  return {Floor::Kind::traffic, static_cast<double>(n) * static_cast<double>((of_an_element + ... + 0))};
}
Floor reads(int64_t n, size_t bytes) { return {Floor::Kind::reads, double(n) * double(bytes)}; }
Floor products(double flops) { return {Floor::Kind::products, flops}; }

class Cases {
 public:
  explicit Cases(std::vector<KernelCase>& list, DType dtype) : list_(list), dtype_(dtype) {}

  // setup(lab): operands, and a function that calls the kernel once.
  template <class Setup>
  void operator()(const char* name, const std::string& shape, Floor floor, const Setup& setup) {
    list_.push_back({name, shape, dtype_, floor, setup});
  }

 private:
  std::vector<KernelCase>& list_;
  DType dtype_;
};

// y = x W^T, dx = dy W from packed weights; dW += dy^T x.
template <class T, class TY>
void add_linear(Cases& add, const std::string& name, const std::string& shape, int64_t rows, int64_t in,
                int64_t out) {
  using A = Accum<T>;
  const Floor floor = products(2.0 * double(rows) * double(in) * double(out));
  const auto weight = [=](Lab& lab) { return Tensor(lab.values<T>(in * out), dtype_of<T>(), {out, in}); };
  const auto product = [=](Side side) {
    return [=](Lab& lab) {
      const Tensor w = weight(lab);
      const bool forward = side == Side::forward;
      const WeightProduct<T, TY> args{side,
                                      rows,
                                      out,
                                      in,
                                      lab.values<T>(rows * (forward ? in : out)),
                                      w.data<T>(),
                                      lab.packed(w, 1, out, in),
                                      0,
                                      lab.values<TY>(rows * (forward ? out : in))};
      return [=, &lab] { weight_product<D>(args, lab.workspace(), lab.stream()); };
    };
  };
  add((name + ".forward").c_str(), shape, floor, product(Side::forward));
  add((name + ".backward").c_str(), shape, floor, product(Side::backward));
  add((name + ".gradient").c_str(), shape, floor, [=](Lab& lab) {
    const GemmArgs<T, A> args{true, false,
                              out,  in,
                              rows, lab.values<T>(rows * out),
                              out,  lab.values<T>(rows * in),
                              in,   lab.values<A>(out * in),
                              in,   true};
    return [=, &lab] { gemm<D>(args, lab.workspace(), lab.stream()); };
  });
}

template <class T>
void add_products(Cases& add) {
  using A = Accum<T>;
  add("gemm", "1024 x 1024 x 1024", products(2.0 * 1024 * 1024 * 1024), [](Lab& lab) {
    constexpr int64_t n = 1024;
    const GemmArgs<T, A> args{
        false, true, n, n, n, lab.values<T>(n * n), n, lab.values<T>(n * n), n, lab.values<A>(n * n), n};
    return [=, &lab] { gemm<D>(args, lab.workspace(), lab.stream()); };
  });
  add_linear<T, T>(add, "linear", "2048 x 1536 x 384", kTokens, kWidth, kFfn);
  add_linear<T, A>(add, "head", kHead, kChunk, kWidth, kVocab);
  add("packed_weights.prepare", "1536 x 384", traffic(kFfn * kWidth, sizeof(T), sizeof(T)), [](Lab& lab) {
    const Tensor w(lab.values<T>(kFfn * kWidth), dtype_of<T>(), {kFfn, kWidth});
    PackedWeights* const packed = lab.packed(w, 1, kFfn, kWidth);
    return [=] {
      if (packed != nullptr) packed->expire(), packed->prepare(0, Side::forward);
    };
  });
  const auto experts = [](Lab& lab) {
    const Tensor w(lab.values<T>(kExperts * kFfn * kWidth), dtype_of<T>(), {kExperts, kFfn, kWidth});
    return GroupedLinearArgs<T>{lab.equal_shares(kTokens, kExperts),
                                kExperts,
                                kTokens,
                                kWidth,
                                kFfn,
                                kExperts,
                                lab.values<T>(kN),
                                w.data<T>(),
                                lab.packed(w, kExperts, kFfn, kWidth),
                                lab.values<A>(kExperts * kFfn),
                                Activation::gelu_tanh,
                                lab.values<T>(kHidden),
                                lab.values<T>(kHidden)};
  };
  const double flops = 2.0 * kTokens * kWidth * kFfn;
  add("grouped_linear.forward", "8 x 256 x 1536 x 384", products(flops), [=](Lab& lab) {
    return [=, &lab, args = experts(lab)] { grouped_linear_forward<D>(args, lab.workspace(), lab.stream()); };
  });
  add("grouped_linear.backward", "8 x 256 x 1536 x 384", products(2 * flops), [=](Lab& lab) {
    const GroupedLinearGradArgs<T> args{experts(lab),
                                        lab.values<T>(kHidden),
                                        lab.values<T>(kN),
                                        false,
                                        lab.values<A>(kExperts * kFfn * kWidth),
                                        0,
                                        lab.values<A>(kExperts * kFfn)};
    return [=, &lab] { grouped_linear_backward<D>(args, lab.workspace(), lab.stream()); };
  });
  const double scores = double(kHeads.batch * kHeads.heads) * 256 * 256 * 64;  // B H T^2 d
  add("attention.forward", "8 x 256, 6 x 64", products(2 * scores), [](Lab& lab) {
    const AttentionArgs<T> args{kHeads,
                                kScale,
                                {},
                                nullptr,
                                lab.values<T>(kQkv),
                                lab.values<T>(kN),
                                lab.values<A>(kTokens * kHeads.heads)};
    return [=, &lab] { attention_forward<D>(args, lab.workspace(), lab.stream()); };
  });
  add("attention.backward", "8 x 256, 6 x 64", products(5 * scores), [](Lab& lab) {
    const AttentionGradArgs<T> args{kHeads,
                                    kScale,
                                    {},
                                    nullptr,
                                    lab.values<T>(kQkv),
                                    lab.values<T>(kN),
                                    lab.values<A>(kTokens * kHeads.heads),
                                    lab.values<T>(kN),
                                    lab.values<T>(kQkv)};
    return [=, &lab] { attention_backward<D>(args, lab.workspace(), lab.stream()); };
  });
}

template <class T>
void add_layers(Cases& add) {
  using A = Accum<T>;
  constexpr size_t E = sizeof(T);
  add("cross_entropy", "512 x 50304", traffic(kChunk * kVocab, sizeof(A), E), [](Lab& lab) {
    auto* logits = lab.values<A>(kChunk * kVocab);
    T* dlogits = nullptr;
    if constexpr (std::is_same_v<T, A>) dlogits = logits;
    if constexpr (!std::is_same_v<T, A>) dlogits = lab.values<T>(kChunk * kVocab);
    auto* losses = reinterpret_cast<TokenLoss*>(lab.values<double>(kChunk * 3));
    static_assert(sizeof(TokenLoss) == 3 * sizeof(double));
    const CrossEntropyArgs<A, T> args{kChunk, kVocab, kVocab, logits, lab.scattered(kChunk, kVocab),
                                      -1,     1e-3,   0,      losses, dlogits};
    return [=, &lab] { cross_entropy<D>(args, lab.stream()); };
  });
  add("layer_norm.forward", kRows, traffic(kN, E, E), [](Lab& lab) {
    const LayerNormArgs<T> args{kTokens,
                                kWidth,
                                1e-5f,
                                lab.values<T>(kN),
                                lab.values<A>(kWidth),
                                lab.values<A>(kWidth),
                                lab.values<T>(kN),
                                lab.values<A>(kTokens),
                                lab.values<A>(kTokens)};
    return [=, &lab] { layer_norm_forward<D>(args, lab.stream()); };
  });
  add("layer_norm.backward", kRows, traffic(kN, E, E, E), [](Lab& lab) {
    const LayerNormGradArgs<T> args{kTokens,
                                    kWidth,
                                    lab.values<T>(kN),
                                    lab.values<A>(kWidth),
                                    lab.values<A>(kTokens),
                                    lab.values<A>(kTokens),
                                    lab.values<T>(kN),
                                    lab.values<T>(kN),
                                    false,
                                    lab.values<A>(kWidth),
                                    lab.values<A>(kWidth)};
    return [=, &lab] { layer_norm_backward<D>(args, lab.workspace(), lab.stream()); };
  });
  add("rms_norm.forward", kRows, traffic(kN, E, E), [](Lab& lab) {
    const RmsNormArgs<T> args{kTokens,
                              kWidth,
                              1e-5f,
                              lab.values<T>(kN),
                              lab.values<A>(kWidth),
                              lab.values<T>(kN),
                              lab.values<A>(kTokens)};
    return [=, &lab] { rms_norm_forward<D>(args, lab.stream()); };
  });
  add("rms_norm.backward", kRows, traffic(kN, E, E, E), [](Lab& lab) {
    const RmsNormGradArgs<T> args{kTokens,
                                  kWidth,
                                  lab.values<T>(kN),
                                  lab.values<A>(kWidth),
                                  lab.values<A>(kTokens),
                                  lab.values<T>(kN),
                                  lab.values<T>(kN),
                                  false,
                                  lab.values<A>(kWidth)};
    return [=, &lab] { rms_norm_backward<D>(args, lab.workspace(), lab.stream()); };
  });
  add("bias_activation.forward", kWide, traffic(kHidden, E, E, E), [](Lab& lab) {
    const BiasActivationArgs<T> args{
        Activation::gelu_tanh, kTokens, kFfn, lab.values<T>(kHidden), lab.values<A>(kFfn),
        lab.values<T>(kHidden)};
    return [=, &lab] { bias_activation_forward<D>(args, lab.stream()); };
  });
  add("bias_activation.backward", kWide, traffic(kHidden, E, E, E), [](Lab& lab) {
    const BiasActivationGradArgs<T> args{Activation::gelu_tanh,
                                         kTokens,
                                         kFfn,
                                         lab.values<T>(kHidden),
                                         lab.values<T>(kHidden),
                                         lab.values<T>(kHidden),
                                         lab.values<A>(kFfn)};
    return [=, &lab] { bias_activation_backward<D>(args, lab.workspace(), lab.stream()); };
  });
  add("swiglu.forward", kWide, traffic(kHidden, E, E, E), [](Lab& lab) {
    const SwigluArgs<T> args{kHidden, lab.values<T>(kHidden), lab.values<T>(kHidden), lab.values<T>(kHidden)};
    return [=, &lab] { swiglu_forward<D>(args, lab.stream()); };
  });
  add("swiglu.backward", kWide, traffic(kHidden, E, E, E, E, E), [](Lab& lab) {
    const SwigluGradArgs<T> args{kHidden,
                                 lab.values<T>(kHidden),
                                 lab.values<T>(kHidden),
                                 lab.values<T>(kHidden),
                                 lab.values<T>(kHidden),
                                 false,
                                 lab.values<T>(kHidden),
                                 false};
    return [=, &lab] { swiglu_backward<D>(args, lab.stream()); };
  });
  add("rope", "8 x 256, 6 x 64", traffic(kQkv, E, E), [](Lab& lab) {
    const RopeArgs<T> args{kHeads, 10000, false, nullptr, lab.values<T>(kQkv), lab.values<T>(kQkv)};
    return [=, &lab] { rope<D>(args, lab.workspace(), lab.stream()); };
  });
  add("embedding.forward", kRows, traffic(kN, E, E), [](Lab& lab) {  // the 256 positions stay in cache
    const EmbeddingArgs<T> args{kTokens,
                                kWidth,
                                lab.scattered(kTokens, kVocab),
                                256,
                                nullptr,
                                lab.values<T>(kVocab * kWidth),
                                lab.values<T>(256 * kWidth),
                                lab.values<T>(kN)};
    return [=, &lab] { embedding_forward<D>(args, lab.stream()); };
  });
  add("embedding.backward", kRows, traffic(kN, E, sizeof(A), sizeof(A)), [](Lab& lab) {
    const EmbeddingGradArgs<T> args{kTokens,
                                    kWidth,
                                    lab.scattered(kTokens, kVocab),
                                    256,
                                    nullptr,
                                    lab.values<T>(kN),
                                    lab.values<A>(kVocab * kWidth),
                                    lab.values<A>(256 * kWidth)};
    return [=, &lab] { embedding_backward<D>(args, lab.stream()); };
  });
  add("dropout", kRows, traffic(kN, E, E), [](Lab& lab) {
    const DropoutArgs<T> args{
        kN, 0.1, Philox(1, Purpose::test), lab.values<T>(kN), nullptr, lab.values<T>(kN)};
    return [=, &lab] { dropout<D>(args, lab.stream()); };
  });
  add("elementwise.accumulate", kRows, traffic(kN, E, E, E), [](Lab& lab) {
    return [&lab, x = lab.values<T>(kN), y = lab.values<T>(kN)] { accumulate<D>(x, y, kN, lab.stream()); };
  });
  add("elementwise.add", kRows, traffic(kN, E, E, E), [](Lab& lab) {
    return [&lab, a = lab.values<T>(kN), b = lab.values<T>(kN), y = lab.values<T>(kN)] {
      kernels::add<D>(a, b, y, kN, lab.stream());
    };
  });
}

template <class T>
void add_moe(Cases& add) {
  using A = Accum<T>;
  constexpr size_t E = sizeof(T);
  add("gather_rows", kRows, traffic(kN, E, E), [](Lab& lab) {
    const GatherRowsArgs<T> args{kTokens, kWidth, lab.values<T>(kN), lab.scattered(kTokens, kTokens),
                                 lab.values<T>(kN)};
    return [=, &lab] { gather_rows<D>(args, lab.stream()); };
  });
  add("scatter_rows", kRows, traffic(kN, E, E), [](Lab& lab) {
    const ScatterRowsArgs<T> args{
        kTokens, kWidth, lab.values<T>(kN), lab.scattered(kTokens, kTokens), false, lab.values<T>(kN)};
    return [=, &lab] { scatter_rows<D>(args, lab.stream()); };
  });
  const auto combine = [](Lab& lab) {
    return CombineRowsArgs<T>{kTokens,
                              1,
                              kWidth,
                              lab.values<T>(kN),
                              lab.scattered(kTokens, kTokens),
                              lab.values<A>(kTokens),
                              false,
                              lab.values<T>(kN)};
  };
  add("combine_rows.forward", kRows, traffic(kN, E, E),
      [=](Lab& lab) { return [&lab, args = combine(lab)] { combine_rows<D>(args, lab.stream()); }; });
  add("combine_rows.backward", kRows, traffic(kN, E, E, E), [=](Lab& lab) {
    const CombineRowsGradArgs<T> args{combine(lab), lab.values<T>(kN), lab.values<T>(kN), false,
                                      lab.values<A>(kTokens)};
    return [=, &lab] { combine_rows_backward<D>(args, lab.stream()); };
  });
  add("mix.forward", kRows, traffic(kN, E, E, E), [](Lab& lab) {
    const MixArgs<T> args{
        kTokens, kWidth, lab.values<T>(kN), lab.values<T>(kN), lab.values<A>(2 * kTokens), lab.values<T>(kN)};
    return [=, &lab] { mix_forward<D>(args, lab.stream()); };
  });
  add("mix.backward", kRows, traffic(kN, E, E, E, E, E), [](Lab& lab) {
    const MixGradArgs<T> args{kTokens,
                              kWidth,
                              lab.values<T>(kN),
                              lab.values<T>(kN),
                              lab.values<A>(2 * kTokens),
                              lab.values<T>(kN),
                              lab.values<T>(kN),
                              false,
                              lab.values<T>(kN),
                              false,
                              lab.values<A>(2 * kTokens)};
    return [=, &lab] { mix_backward<D>(args, lab.stream()); };
  });
  add("router_input.forward", kRows, traffic(kN, E, sizeof(A)), [](Lab& lab) {
    const RouterInputArgs<T> args{kN, 0, Philox(1, Purpose::test), lab.values<T>(kN), lab.values<A>(kN)};
    return [=, &lab] { router_input_forward<D>(args, lab.stream()); };
  });
  add("router_input.backward", kRows, traffic(kN, E, sizeof(A)), [](Lab& lab) {
    const RouterInputGradArgs<T> args{kN, 0, Philox(1, Purpose::test), lab.values<A>(kN), lab.values<T>(kN)};
    return [=, &lab] { router_input_backward<D>(args, lab.stream()); };
  });
}

// Logits, probabilities and tables are f32 and int32 beside activations of any dtype.
void add_router(Cases& add) {
  constexpr int64_t n = kTokens * kExperts;
  const char* const shape = "2048 x 8";
  add("router_softmax", shape, traffic(n, 4, 4), [](Lab& lab) {
    const RouterSoftmaxArgs<float> args{kTokens,
                                        kExperts,
                                        lab.values<float>(n),
                                        lab.values<float>(n),
                                        lab.values<float>(kTokens),
                                        lab.values<float>(kTokens)};
    return [=, &lab] { router_softmax<D>(args, lab.stream()); };
  });
  add("router_choose", shape, reads(n, 4), [](Lab& lab) {
    const RouterChooseArgs<float> args{kTokens,
                                       kExperts,
                                       1,
                                       ChoiceNoise::none,
                                       lab.values<float>(n),
                                       nullptr,
                                       lab.scattered(kTokens, kExperts)};
    return [=, &lab] { router_choose<D>(args, lab.stream()); };
  });
  add("router_assign", shape, traffic(kTokens, 4, 4, 4, 4), [](Lab& lab) {
    const auto counts = [&] { return reinterpret_cast<int64_t*>(lab.values<double>(kExperts)); };
    const auto table = [&] { return lab.scattered(kTokens, kExperts); };
    const RouterAssignArgs<float> args{kTokens,  kExperts, 1,       DropPolicy::none, SlotOrder::choice_first,
                                       0,        table(),  nullptr, nullptr,          counts(),
                                       counts(), table(),  table(), table()};
    return [=, &lab] { router_assign<D>(args, lab.workspace(), lab.stream()); };
  });
  const auto weights = [](Lab& lab) {
    return RouterWeightArgs<float>{kTokens,
                                   kExperts,
                                   1,
                                   Renormalise::none,
                                   lab.values<float>(n),
                                   lab.scattered(kTokens, kExperts),
                                   lab.scattered(kTokens, kTokens),
                                   lab.values<float>(kTokens)};
  };
  add("router_weights", shape, traffic(kTokens, 4, 4, 4, 4),
      [=](Lab& lab) { return [&lab, args = weights(lab)] { router_weights<D>(args, lab.stream()); }; });
  add("router_means", shape, reads(n, 4), [](Lab& lab) {
    const RouterMeanArgs<float> args{kTokens,
                                     kExperts,
                                     1,
                                     1,
                                     1,
                                     lab.values<float>(n),
                                     lab.scattered(kTokens, kExperts),
                                     lab.values<double>(kExperts),
                                     lab.values<double>(kExperts)};
    return [=, &lab] { router_means<D>(args, lab.stream()); };
  });
  add("router_backward", shape, traffic(n, 4, 4), [=](Lab& lab) {
    const RouterGradArgs<float> args{weights(lab),
                                     1,
                                     lab.values<float>(kTokens),
                                     lab.values<float>(kTokens),
                                     lab.values<double>(kExperts),
                                     1e-2,
                                     1e-3,
                                     false,
                                     lab.values<float>(n)};
    return [=, &lab] { router_backward<D>(args, lab.workspace(), lab.stream()); };
  });
  add("router_gumbel", shape, traffic(n, 4), [](Lab& lab) {
    return [&lab, y = lab.values<float>(n)] { router_gumbel<D>(RouterNoise{1, 0, 0}, y, n, lab.stream()); };
  });
  add("router_keys", shape, traffic(n, 4), [](Lab& lab) {
    return [&lab, y = lab.values<float>(n)] { router_keys<D>(RouterNoise{1, 0, 0}, y, n, lab.stream()); };
  });
}

template <class T>
void add_generating(Cases& add) {
  using A = Accum<T>;
  add("few_rows_linear", "1 x 50304 x 384", reads(kVocab * kWidth, sizeof(T)), [](Lab& lab) {
    auto* const all = lab.equal_shares(1, 1);
    const FewRowsArgs<T, A> args{all,
                                 1,
                                 1,
                                 kWidth,
                                 kVocab,
                                 lab.values<T>(kWidth),
                                 lab.values<T>(kVocab * kWidth),
                                 nullptr,
                                 Activation::none,
                                 lab.values<A>(kVocab)};
    return [=, &lab] { few_rows_linear<D>(args, lab.workspace(), lab.stream()); };
  });
  constexpr int64_t kCache = kTexts * kContext * kWidth;
  add("cached_attention", "8 x 1024, 6 x 64", reads(2 * kCache, sizeof(T)), [](Lab& lab) {
    int32_t* const position = lab.scattered(kTexts, kTexts);
    std::fill_n(position, kTexts, static_cast<int32_t>(kContext - 1));
    const CachedAttentionArgs<T> args{{kTexts, 1, 6, 6, 64},
                                      kScale,
                                      lab.values<T>(kTexts * 3 * kWidth),
                                      lab.scattered(kTexts, kTexts),
                                      position,
                                      lab.values<T>(kCache),
                                      lab.values<T>(kCache),
                                      kContext,
                                      nullptr,
                                      nullptr,
                                      lab.values<T>(kTexts * kWidth)};
    return [=, &lab] { cached_attention<D>(args, lab.workspace(), lab.stream()); };
  });
}

// On masters, moments and gradients, which are f32; with compute copies where those are bf16.
template <class T>
void add_optimizer(Cases& add) {
  constexpr bool copies = std::is_same_v<T, bf16>;
  add("adamw", "16777216", traffic(kParameters, 7 * 4, copies ? 2 : 0), [](Lab& lab) {
    const auto slab = [&] { return lab.values<float>(kParameters); };
    AdamWArgs<float> args{kParameters, slab(), slab(), slab(), slab()};
    if constexpr (copies) args.compute = lab.values<bf16>(kParameters);
    args.lr = 1e-4, args.weight_decay = 0.1;
    return [=, &lab] { adamw_update<D>(args, lab.stream()); };
  });
}

void add_slabs(Cases& add) {
  add("sum_of_squares", "16777216", reads(kParameters, 4), [](Lab& lab) {
    return [&lab, x = lab.values<float>(kParameters)] { sum_of_squares<D>(x, kParameters, lab.stream()); };
  });
  add("random_normal", "16777216", traffic(kParameters, 4), [](Lab& lab) {
    const RandomNormalArgs<float> args{Philox(1, Purpose::test), 0, 1, lab.values<float>(kParameters),
                                       kParameters};
    return [=, &lab] { random_normal<D>(args, lab.stream()); };
  });
  add("elementwise.convert", "16777216", traffic(kParameters, 4, 2), [](Lab& lab) {
    return [&lab, x = lab.values<float>(kParameters), y = lab.values<bf16>(kParameters)] {
      convert<D>(x, y, kParameters, lab.stream());
    };
  });
}

template <class T>
void add_all(std::vector<KernelCase>& list) {
  Cases add(list, dtype_of<T>());
  add_products<T>(add);
  add_layers<T>(add);
  add_moe<T>(add);
  add_generating<T>(add);
  add_optimizer<T>(add);
  if constexpr (std::is_same_v<T, float>) add_router(add), add_slabs(add);
}

}  // namespace

std::vector<KernelCase> kernel_cases() {
  std::vector<KernelCase> list;
  add_all<float>(list);
  add_all<bf16>(list);
  return list;
}

}  // namespace ziggurat::apps
