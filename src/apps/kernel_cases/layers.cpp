#include "apps/kernel_cases/lab.h"
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/cross_entropy.h>
#include <ziggurat/kernels/dropout.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/embedding.h>
#include <ziggurat/kernels/layer_norm.h>
#include <ziggurat/kernels/qk_norm.h>
#include <ziggurat/kernels/rms_norm.h>
#include <ziggurat/kernels/rope.h>
#include <ziggurat/kernels/swiglu.h>
#include <ziggurat/ops/cross_entropy.h>

namespace ziggurat::apps {

namespace {

using namespace kernels;

constexpr Device D = Device::cpu;

template <class T>
void list_layers(Cases& add) {
  using A = Accum<T>;
  constexpr size_t E = sizeof(T);
  constexpr int64_t kTile = kChunk * ops::kVocabularyTile;
  add("softmax_tile", "512 x 2112", traffic(kTile, sizeof(A), E), [](Lab& lab) {
    auto* const logits = lab.values<A>(kTile);
    T* exponentials = nullptr;
    if constexpr (std::is_same_v<T, A>) exponentials = logits;
    if constexpr (!std::is_same_v<T, A>) exponentials = lab.values<T>(kTile);
    const SoftmaxTileArgs<A, T> args{kChunk,
                                     ops::kVocabularyTile,
                                     ops::kVocabularyTile,
                                     logits,
                                     lab.scattered(kChunk, kVocab),
                                     0,
                                     nullptr,
                                     lab.values<A>(kChunk),
                                     lab.values<A>(kChunk),
                                     lab.values<double>(kChunk),
                                     lab.values<A>(kChunk),
                                     exponentials};
    return [=, &lab] { softmax_tile<D>(args, lab.stream()); };
  });
  add("scale_rows", "512 x 384", traffic(kChunk * kWidth, E, E), [](Lab& lab) {
    return
        [&lab, x = lab.values<T>(kChunk * kWidth), factor = lab.values<A>(kChunk),
         y = lab.values<T>(kChunk * kWidth)] { scale_rows<D>(x, factor, kChunk, kWidth, y, lab.stream()); };
  });
  add("subtract_targets", "512 x 384", traffic(kChunk * kWidth, E, E, 4 * sizeof(A)), [](Lab& lab) {
    const SubtractTargetsArgs<A, T> args{kChunk,
                                         kWidth,
                                         lab.scattered(kChunk, kVocab),
                                         -1,
                                         1e-3,
                                         lab.values<T>(kChunk * kWidth),
                                         lab.values<T>(kVocab * kWidth),
                                         lab.values<A>(kChunk * kWidth),
                                         lab.values<A>(kVocab * kWidth)};
    return [=, &lab] { subtract_targets<D>(args, lab.stream()); };
  });
  if constexpr (std::is_same_v<T, A>) {  // on sums, whatever the dtype of activations
    add("cross_entropy", "512 x 25 tiles", traffic(kChunk * 25, sizeof(A), sizeof(double), sizeof(A)),
        [](Lab& lab) {
          constexpr int64_t kTiles = 25;  // of the vocabulary
          static_assert(sizeof(TokenLoss) == 3 * sizeof(double));
          const CrossEntropyArgs<A> args{kChunk,
                                         kTiles,
                                         lab.values<A>(kTiles * kChunk),
                                         lab.values<A>(kTiles * kChunk),
                                         lab.values<double>(kTiles * kChunk),
                                         lab.values<A>(kChunk),
                                         lab.scattered(kChunk, kVocab),
                                         -1,
                                         1e-3,
                                         0,
                                         reinterpret_cast<TokenLoss*>(lab.values<double>(3 * kChunk)),
                                         lab.values<A>(kTiles * kChunk)};
          return [=, &lab] { kernels::cross_entropy<D>(args, lab.stream()); };
        });
    add("add_scaled_rows", "512 x 384", traffic(kChunk * kWidth, 3 * sizeof(A)), [](Lab& lab) {
      return [&lab, x = lab.values<A>(kChunk * kWidth), factor = lab.values<A>(kChunk),
              y = lab.values<A>(kChunk * kWidth)] {
        add_scaled_rows<D>(x, factor, kChunk, kWidth, y, lab.stream());
      };
    });
  }
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
  for (const bool per_head : {true, false}) {
    const QkNormShape shape{kHeads, per_head};
    const std::string text = per_head ? "8 x 256, 6 x 64" : "8 x 256, 384";
    add("qk_norm.forward", text, traffic(kQkv, E, E), [=](Lab& lab) {
      const QkNormArgs<T> args{shape,
                               1e-5f,
                               lab.values<T>(kQkv),
                               lab.values<A>(shape.q_cols()),
                               lab.values<A>(shape.k_cols()),
                               lab.values<T>(kQkv),
                               lab.values<A>(kTokens * shape.groups())};
      return [=, &lab] { qk_norm_forward<D>(args, lab.stream()); };
    });
    add("qk_norm.backward", text, traffic(kTokens * kWidth, 2 * E, 2 * E, 2 * E, E, E), [=](Lab& lab) {
      const QkNormGradArgs<T> args{shape,
                                   lab.values<T>(kQkv),
                                   lab.values<A>(shape.q_cols()),
                                   lab.values<A>(shape.k_cols()),
                                   lab.values<A>(kTokens * shape.groups()),
                                   lab.values<T>(kQkv),
                                   lab.values<T>(kQkv),
                                   false,
                                   lab.values<A>(shape.q_cols()),
                                   lab.values<A>(shape.k_cols())};
      return [=, &lab] { qk_norm_backward<D>(args, lab.workspace(), lab.stream()); };
    });
  }
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

}  // namespace

void add_layers(std::vector<KernelCase>& list) {
  Cases f32(list, DType::f32), bf16s(list, DType::bf16);
  list_layers<float>(f32);
  list_layers<bf16>(bf16s);
}

}  // namespace ziggurat::apps
