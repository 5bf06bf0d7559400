#include "apps/kernel_cases/lab.h"
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/cross_entropy.h>
#include <ziggurat/kernels/distillation.h>
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

template <Device D, class S, class T>
void list_layers(Cases& add) {
  using A = Accum<T>;
  const std::string rows = shape_of({S::kTokens, S::kWidth}), wide = shape_of({S::kTokens, S::kFfn});
  constexpr size_t E = sizeof(T);
  constexpr int64_t kTile = S::kChunk * ops::kVocabularyTile;
  add("softmax_tile", shape_of({S::kChunk, ops::kVocabularyTile}), traffic(kTile, sizeof(A), E),
      [](Lab& lab) {
        auto* const logits = lab.values<A>(kTile);
        T* exponentials = nullptr;
        if constexpr (std::is_same_v<T, A>) exponentials = logits;
        if constexpr (!std::is_same_v<T, A>) exponentials = lab.values<T>(kTile);
        const SoftmaxTileArgs<A, T> args{S::kChunk,
                                         ops::kVocabularyTile,
                                         ops::kVocabularyTile,
                                         logits,
                                         lab.scattered(S::kChunk, S::kVocab),
                                         0,
                                         nullptr,
                                         lab.values<A>(S::kChunk),
                                         lab.values<A>(S::kChunk),
                                         lab.values<double>(S::kChunk),
                                         lab.values<A>(S::kChunk),
                                         exponentials};
        return [=, &lab] { softmax_tile<D>(args, lab.stream()); };
      });
  add("distillation_tile", shape_of({S::kChunk, ops::kVocabularyTile}),
      traffic(kTile, sizeof(A), sizeof(A), E), [](Lab& lab) {
        auto* const logits = lab.values<A>(kTile);
        T* gradient = nullptr;
        if constexpr (std::is_same_v<T, A>) gradient = logits;
        if constexpr (!std::is_same_v<T, A>) gradient = lab.values<T>(kTile);
        const DistillationTileArgs<A, T> args{S::kChunk,
                                              ops::kVocabularyTile,
                                              ops::kVocabularyTile,
                                              ops::kVocabularyTile,
                                              logits,
                                              lab.values<A>(kTile),
                                              1,
                                              lab.scattered(S::kChunk, S::kVocab),
                                              -1,
                                              reinterpret_cast<TokenLoss*>(lab.values<double>(3 * S::kChunk)),
                                              lab.values<A>(S::kChunk),
                                              {},
                                              {lab.values<A>(S::kChunk), lab.values<double>(S::kChunk)},
                                              0,
                                              lab.constant(1, 1e-3),
                                              lab.constant(1, 1.0),
                                              true,
                                              lab.values<double>(S::kChunk),
                                              gradient};
        return [=, &lab] { distillation_tile<D>(args, lab.stream()); };
      });
  add("scale_rows", shape_of({S::kChunk, S::kWidth}), traffic(S::kChunk * S::kWidth, E, E), [](Lab& lab) {
    return [&lab, x = lab.values<T>(S::kChunk * S::kWidth), factor = lab.values<A>(S::kChunk),
            y = lab.values<T>(S::kChunk * S::kWidth)] {
      scale_rows<D>(x, factor, S::kChunk, S::kWidth, y, lab.stream());
    };
  });
  add("subtract_targets", shape_of({S::kChunk, S::kWidth}),
      traffic(S::kChunk * S::kWidth, E, E, 4 * sizeof(A)), [](Lab& lab) {
        const SubtractTargetsArgs<A, T> args{S::kChunk,
                                             S::kWidth,
                                             lab.scattered(S::kChunk, S::kVocab),
                                             -1,
                                             lab.constant(1, 1e-3),
                                             lab.values<T>(S::kChunk * S::kWidth),
                                             lab.values<T>(S::kVocab * S::kWidth),
                                             lab.values<A>(S::kChunk * S::kWidth),
                                             lab.values<A>(S::kVocab * S::kWidth)};
        return [=, &lab] { subtract_targets<D>(args, lab.stream()); };
      });
  if constexpr (std::is_same_v<T, A>) {  // on sums, whatever the dtype of activations
    add("cross_entropy", shape_of({S::kChunk}) + " x 25 tiles",
        traffic(S::kChunk * 25, sizeof(A), sizeof(double), sizeof(A)), [](Lab& lab) {
          constexpr int64_t kTiles = 25;  // of the vocabulary
          static_assert(sizeof(TokenLoss) == 3 * sizeof(double));
          const CrossEntropyArgs<A> args{S::kChunk,
                                         kTiles,
                                         lab.values<A>(kTiles * S::kChunk),
                                         lab.values<A>(kTiles * S::kChunk),
                                         lab.values<double>(kTiles * S::kChunk),
                                         lab.values<A>(S::kChunk),
                                         lab.scattered(S::kChunk, S::kVocab),
                                         -1,
                                         lab.constant(1, 1e-3),
                                         0,
                                         reinterpret_cast<TokenLoss*>(lab.values<double>(3 * S::kChunk)),
                                         lab.values<A>(kTiles * S::kChunk)};
          return [=, &lab] { kernels::cross_entropy<D>(args, lab.stream()); };
        });
    add("add_exponentials", shape_of({S::kChunk, ops::kVocabularyTile}), traffic(kTile, sizeof(A)),
        [](Lab& lab) {
          const AddExponentialsArgs<A> args{S::kChunk,
                                            ops::kVocabularyTile,
                                            ops::kVocabularyTile,
                                            lab.values<A>(kTile),
                                            1,
                                            true,
                                            {lab.values<A>(S::kChunk), lab.values<double>(S::kChunk)}};
          return [=, &lab] { add_exponentials<D>(args, lab.stream()); };
        });
    constexpr int64_t kParts = 4;  // of the vocabulary
    add("join_exponentials", shape_of({kParts, S::kChunk}),
        traffic(S::kChunk, (2 * kParts + 1) * (sizeof(A) + sizeof(double))), [](Lab& lab) {
          const auto sums = [&lab](int64_t n) {
            return ExponentialSums<A>{lab.values<A>(n), lab.values<double>(n)};
          };
          const JoinExponentialsArgs<A> args{S::kChunk, kParts, sums(kParts * S::kChunk), sums(S::kChunk)};
          return [=, &lab] { join_exponentials<D>(args, lab.stream()); };
        });
    add("add_scaled_rows", shape_of({S::kChunk, S::kWidth}), traffic(S::kChunk * S::kWidth, 3 * sizeof(A)),
        [](Lab& lab) {
          return [&lab, x = lab.values<A>(S::kChunk * S::kWidth), factor = lab.values<A>(S::kChunk),
                  y = lab.values<A>(S::kChunk * S::kWidth)] {
            add_scaled_rows<D>(x, factor, S::kChunk, S::kWidth, y, lab.stream());
          };
        });
  }
  add("layer_norm.forward", rows, traffic(S::kN, E, E), [](Lab& lab) {
    const LayerNormArgs<T> args{S::kTokens,
                                S::kWidth,
                                1e-5f,
                                lab.values<T>(S::kN),
                                lab.values<A>(S::kWidth),
                                lab.values<A>(S::kWidth),
                                lab.values<T>(S::kN),
                                lab.values<A>(S::kTokens),
                                lab.values<A>(S::kTokens)};
    return [=, &lab] { layer_norm_forward<D>(args, lab.stream()); };
  });
  add("layer_norm.backward", rows, traffic(S::kN, E, E, E), [](Lab& lab) {
    const LayerNormGradArgs<T> args{S::kTokens,
                                    S::kWidth,
                                    lab.values<T>(S::kN),
                                    lab.values<A>(S::kWidth),
                                    lab.values<A>(S::kTokens),
                                    lab.values<A>(S::kTokens),
                                    lab.values<T>(S::kN),
                                    lab.values<T>(S::kN),
                                    false,
                                    lab.values<A>(S::kWidth),
                                    lab.values<A>(S::kWidth)};
    return [=, &lab] { layer_norm_backward<D>(args, lab.workspace(), lab.stream()); };
  });
  add("rms_norm.forward", rows, traffic(S::kN, E, E), [](Lab& lab) {
    const RmsNormArgs<T> args{S::kTokens,
                              S::kWidth,
                              1e-5f,
                              lab.values<T>(S::kN),
                              lab.values<A>(S::kWidth),
                              lab.values<T>(S::kN),
                              lab.values<A>(S::kTokens)};
    return [=, &lab] { rms_norm_forward<D>(args, lab.stream()); };
  });
  add("rms_norm.backward", rows, traffic(S::kN, E, E, E), [](Lab& lab) {
    const RmsNormGradArgs<T> args{S::kTokens,
                                  S::kWidth,
                                  lab.values<T>(S::kN),
                                  lab.values<A>(S::kWidth),
                                  lab.values<A>(S::kTokens),
                                  lab.values<T>(S::kN),
                                  lab.values<T>(S::kN),
                                  false,
                                  lab.values<A>(S::kWidth)};
    return [=, &lab] { rms_norm_backward<D>(args, lab.workspace(), lab.stream()); };
  });
  for (const bool per_head : {true, false}) {
    const QkNormShape shape{S::kHeads, per_head};
    const std::string text =
        per_head ? shape_of(S::kHeads)
                 : shape_of({S::kHeads.batch, S::kHeads.length}) + ", " + shape_of({S::kWidth});
    add("qk_norm.forward", text, traffic(S::kQkv, E, E), [=](Lab& lab) {
      const QkNormArgs<T> args{shape,
                               1e-5f,
                               lab.values<T>(S::kQkv),
                               lab.values<A>(shape.q_cols()),
                               lab.values<A>(shape.k_cols()),
                               lab.values<T>(S::kQkv),
                               lab.values<A>(S::kTokens * shape.groups())};
      return [=, &lab] { qk_norm_forward<D>(args, lab.stream()); };
    });
    add("qk_norm.backward", text, traffic(S::kTokens * S::kWidth, 2 * E, 2 * E, 2 * E, E, E), [=](Lab& lab) {
      const QkNormGradArgs<T> args{shape,
                                   lab.values<T>(S::kQkv),
                                   lab.values<A>(shape.q_cols()),
                                   lab.values<A>(shape.k_cols()),
                                   lab.values<A>(S::kTokens * shape.groups()),
                                   lab.values<T>(S::kQkv),
                                   lab.values<T>(S::kQkv),
                                   false,
                                   lab.values<A>(shape.q_cols()),
                                   lab.values<A>(shape.k_cols())};
      return [=, &lab] { qk_norm_backward<D>(args, lab.workspace(), lab.stream()); };
    });
  }
  {  // of heads that ranks share
    const QkNormShape shape{S::kHeads, false};
    const std::string text = shape_of({S::kHeads.batch, S::kHeads.length}) + ", " + shape_of({S::kWidth});
    constexpr int64_t kQk = 2 * S::kTokens * S::kWidth;  // of as many key heads
    add("qk_norm.squares", text, traffic(kQk, E), [=](Lab& lab) {
      const auto* x = lab.values<T>(S::kQkv);
      auto* squares = lab.values<A>(S::kTokens * shape.groups());
      return [=, &lab] { qk_norm_squares<D>(shape, x, squares, lab.stream()); };
    });
    add("qk_norm.products", text, traffic(kQk, E, E), [=](Lab& lab) {
      const QkNormGradArgs<T> args{shape,
                                   lab.values<T>(S::kQkv),
                                   lab.values<A>(shape.q_cols()),
                                   lab.values<A>(shape.k_cols()),
                                   lab.values<A>(S::kTokens * shape.groups()),
                                   lab.values<T>(S::kQkv)};
      auto* products = lab.values<A>(S::kTokens * shape.groups());
      return [=, &lab] { qk_norm_products<D>(args, products, lab.stream()); };
    });
  }
  add("bias_activation.forward", wide, traffic(S::kHidden, E, E, E), [](Lab& lab) {
    const BiasActivationArgs<T> args{
        Activation::gelu_tanh,    S::kTokens, S::kFfn, lab.values<T>(S::kHidden), lab.values<A>(S::kFfn),
        lab.values<T>(S::kHidden)};
    return [=, &lab] { bias_activation_forward<D>(args, lab.stream()); };
  });
  add("bias_activation.backward", wide, traffic(S::kHidden, E, E, E), [](Lab& lab) {
    const BiasActivationGradArgs<T> args{Activation::gelu_tanh,
                                         S::kTokens,
                                         S::kFfn,
                                         lab.values<T>(S::kHidden),
                                         lab.values<T>(S::kHidden),
                                         lab.values<T>(S::kHidden),
                                         lab.values<A>(S::kFfn)};
    return [=, &lab] { bias_activation_backward<D>(args, lab.workspace(), lab.stream()); };
  });
  add("swiglu.forward", wide, traffic(S::kHidden, E, E, E), [](Lab& lab) {
    const SwigluArgs<T> args{S::kHidden, lab.values<T>(S::kHidden), lab.values<T>(S::kHidden),
                             lab.values<T>(S::kHidden)};
    return [=, &lab] { swiglu_forward<D>(args, lab.stream()); };
  });
  add("swiglu.backward", wide, traffic(S::kHidden, E, E, E, E, E), [](Lab& lab) {
    const SwigluGradArgs<T> args{S::kHidden,
                                 lab.values<T>(S::kHidden),
                                 lab.values<T>(S::kHidden),
                                 lab.values<T>(S::kHidden),
                                 lab.values<T>(S::kHidden),
                                 false,
                                 lab.values<T>(S::kHidden),
                                 false};
    return [=, &lab] { swiglu_backward<D>(args, lab.stream()); };
  });
  add("rope", shape_of(S::kHeads), traffic(S::kQkv, E, E), [](Lab& lab) {
    const RopeArgs<T> args{S::kHeads, 10000, false, nullptr, lab.values<T>(S::kQkv), lab.values<T>(S::kQkv)};
    return [=, &lab] { rope<D>(args, lab.workspace(), lab.stream()); };
  });
  add("embedding.forward", rows, traffic(S::kN, E, E), [](Lab& lab) {  // the positions stay in cache
    const EmbeddingArgs<T> args{S::kTokens,
                                S::kWidth,
                                lab.scattered(S::kTokens, S::kVocab),
                                S::kHeads.length,
                                nullptr,
                                lab.values<T>(S::kVocab * S::kWidth),
                                lab.values<T>(S::kHeads.length * S::kWidth),
                                lab.values<T>(S::kN)};
    return [=, &lab] { embedding_forward<D>(args, lab.stream()); };
  });
  add("embedding.backward", rows, traffic(S::kN, E, sizeof(A), sizeof(A)), [](Lab& lab) {
    const EmbeddingGradArgs<T> args{S::kTokens,
                                    S::kWidth,
                                    lab.scattered(S::kTokens, S::kVocab),
                                    S::kHeads.length,
                                    nullptr,
                                    lab.values<T>(S::kN),
                                    lab.values<A>(S::kVocab * S::kWidth),
                                    lab.values<A>(S::kHeads.length * S::kWidth)};
    return [=, &lab] { embedding_backward<D>(args, lab.stream()); };
  });
  add("dropout", rows, traffic(S::kN, E, E), [](Lab& lab) {
    const DropoutArgs<T> args{S::kN,
                              0.1,
                              LatePhilox(1, Purpose::test, 0, lab.constant<uint64_t>(1, 0)),
                              lab.values<T>(S::kN),
                              nullptr,
                              lab.values<T>(S::kN)};
    return [=, &lab] { dropout<D>(args, lab.stream()); };
  });
  add("rows_of_part", shape_of({S::kTokens}), traffic(S::kTokens, 4, 4), [](Lab& lab) {
    const RowsOfPartArgs args{S::kTokens, lab.scattered(S::kTokens, S::kVocab), 0, S::kVocab / 2,
                              -1,         lab.scattered(S::kTokens, S::kVocab)};
    return [=, &lab] { rows_of_part<D>(args, lab.stream()); };
  });
  add("elementwise.fill", rows, traffic(S::kN, E), [](Lab& lab) {
    return [&lab, y = lab.values<T>(S::kN)] { fill<D>(T(1.0F), y, S::kN, lab.stream()); };
  });
  add("elementwise.accumulate", rows, traffic(S::kN, E, E, E), [](Lab& lab) {
    return [&lab, x = lab.values<T>(S::kN), y = lab.values<T>(S::kN)] {
      accumulate<D>(x, y, S::kN, lab.stream());
    };
  });
  add("elementwise.multiply", rows, traffic(S::kN, E, E, E), [](Lab& lab) {
    return [&lab, a = lab.values<T>(S::kN), b = lab.values<T>(S::kN), y = lab.values<T>(S::kN)] {
      multiply<D>(a, b, y, false, S::kN, lab.stream());
    };
  });
  add("elementwise.add", rows, traffic(S::kN, E, E, E), [](Lab& lab) {
    return [&lab, a = lab.values<T>(S::kN), b = lab.values<T>(S::kN), y = lab.values<T>(S::kN)] {
      kernels::add<D>(a, b, y, S::kN, lab.stream());
    };
  });
}

}  // namespace

void add_layers(std::vector<KernelCase>& list, Device device, CaseSize size) {
  Cases f32(list, DType::f32), bf16s(list, DType::bf16);
  list_for(device, size, [&]<Device D, class S>() {
    list_layers<D, S, float>(f32);
    list_layers<D, S, bf16>(bf16s);
  });
}

}  // namespace ziggurat::apps
