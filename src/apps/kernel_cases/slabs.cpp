#include <algorithm>

#include "apps/kernel_cases/lab.h"
#include <ziggurat/kernels/adafactor.h>
#include <ziggurat/kernels/adamw.h>
#include <ziggurat/kernels/cached_attention.h>
#include <ziggurat/kernels/clip.h>
#include <ziggurat/kernels/device_roof.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/few_rows.h>
#include <ziggurat/kernels/label_smoothing.h>
#include <ziggurat/kernels/lion.h>
#include <ziggurat/kernels/micro_batch_numbers.h>
#include <ziggurat/kernels/muon.h>
#include <ziggurat/kernels/panel_linear.h>
#include <ziggurat/kernels/random_normal.h>
#include <ziggurat/kernels/weight_average.h>

namespace ziggurat::apps {

namespace {

using namespace kernels;

template <Device D, class S, class T>
void list_generating(Cases& add) {
  using A = Accum<T>;
  if constexpr (kExists<FewRowsKernels, D, T>) {
    add("few_rows_linear", shape_of({1, S::kVocab, S::kWidth}), reads(S::kVocab * S::kWidth, sizeof(T)),
        [](Lab& lab) {
          const FewRowsArgs<T, A> args{lab.equal_shares(1, 1),
                                       1,
                                       S::kWidth,
                                       S::kVocab,
                                       lab.values<T>(S::kWidth),
                                       lab.values<T>(S::kVocab * S::kWidth),
                                       nullptr,
                                       Activation::none,
                                       lab.values<A>(S::kVocab)};
          return [=, &lab] { few_rows_linear<D>(args, lab.workspace(), lab.stream()); };
        });
  }
  if constexpr (kExists<PanelLinearKernels, D, T>) {
    // Weights of any values are in panels already.
    for (const int64_t rows : {int64_t{1}, int64_t{16}, S::kTokens / 4}) {
      constexpr int64_t kWeight = S::kWidth * S::kFfn;
      const double flop = 2.0 * static_cast<double>(rows * kWeight);
      add("panel_linear", shape_of({rows, S::kFfn, S::kWidth}),
          rows == 1 ? reads(kWeight, sizeof(T)) : products(flop, double(kWeight * sizeof(T))),
          [rows](Lab& lab) {
            const PanelLinearArgs<T, T> args{lab.equal_shares(rows, 1),
                                             rows,
                                             S::kWidth,
                                             S::kFfn,
                                             lab.values<T>(rows * S::kWidth),
                                             lab.values<T>(kWeight),
                                             lab.values<A>(S::kFfn),
                                             Activation::gelu_tanh,
                                             lab.values<T>(rows * S::kFfn)};
            return [=, &lab] { panel_linear<D>(args, lab.workspace(), lab.stream()); };
          });
    }
    static constexpr int64_t kRows = S::kFfn, kIn = S::kWidth;
    add("panel_linear.int8", shape_of({1, kRows, kIn}), reads(kRows * kIn, 1), [](Lab& lab) {
      auto* const memory = lab.values<float>(Int8Weights::bytes(kRows, kIn) / int64_t{sizeof(float)});
      quantise<D>(lab.values<T>(kRows * kIn), 1, kRows, kIn, memory);
      const PanelLinearArgs<T, T> args{lab.equal_shares(1, 1),
                                       1,
                                       kIn,
                                       kRows,
                                       lab.values<T>(kIn),
                                       nullptr,
                                       nullptr,
                                       Activation::none,
                                       lab.values<T>(kRows),
                                       Int8Weights::at(memory, kRows, kIn)};
      return [=, &lab] { panel_linear<D>(args, lab.workspace(), lab.stream()); };
    });
  }
  if constexpr (kExists<CachedAttentionKernels, D, T>) {
    static constexpr AttentionShape H = S::kHeads;
    constexpr int64_t kCache = S::kTexts * S::kContext * S::kWidth;
    add("cached_attention", shape_of(AttentionShape{S::kTexts, S::kContext, H.heads, H.kv_heads, H.head_dim}),
        reads(2 * kCache, sizeof(T)), [](Lab& lab) {
          // Text t lies in block t, which is as long as it.
          const BlockTables tables{S::kContext, S::kTexts, lab.scattered(S::kTexts, S::kTexts),
                                   lab.equal_shares(S::kTexts, S::kTexts).offsets,
                                   lab.constant(S::kTexts, 0)};
          const CachedAttentionArgs<T> args{{S::kTexts, 1, H.heads, H.kv_heads, H.head_dim},
                                            kScale,
                                            lab.values<T>(S::kTexts * 3 * S::kWidth),
                                            lab.scattered(S::kTexts, S::kTexts),
                                            lab.constant(S::kTexts, static_cast<int32_t>(S::kContext - 1)),
                                            tables,
                                            0,
                                            lab.values<T>(kCache),
                                            lab.values<T>(kCache),
                                            nullptr,
                                            nullptr,
                                            lab.values<T>(S::kTexts * S::kWidth)};
          return [=, &lab] { cached_attention<D>(args, lab.workspace(), lab.stream()); };
        });
  }
  if constexpr (kExists<LabelSmoothingKernels, D, T>) {  // beside the vocabulary head
    constexpr int64_t kWeight = S::kVocab * S::kWidth;
    add("label_smoothing", shape_of({S::kChunk, S::kVocab, S::kWidth}),
        traffic(kWeight, sizeof(T), 2 * sizeof(A)), [](Lab& lab) {
          const int32_t* targets = lab.scattered(S::kChunk, S::kVocab);
          const LabelSmoothingArgs<T> args{S::kChunk,
                                           S::kWidth,
                                           S::kVocab,
                                           S::kVocab,
                                           0.1,
                                           lab.values<T>(S::kChunk * S::kWidth),
                                           lab.values<T>(kWeight),
                                           targets,
                                           -1,
                                           targets,
                                           -1,
                                           lab.values<double>(1),
                                           lab.constant(1, 1e-3),
                                           lab.values<T>(S::kChunk * S::kWidth),
                                           false,
                                           lab.values<A>(kWeight)};
          return [=, &lab] { label_smoothing<D>(args, lab.workspace(), lab.stream()); };
        });
  }
}

// On masters, moments and gradients, which are f32; with compute copies where those are bf16.
template <Device D, class S, class T>
void list_optimizer(Cases& add) {
  constexpr bool copies = std::is_same_v<T, bf16>;
  if constexpr (kExists<WeightAverageKernels, D, float>) {
    add("weight_average", shape_of({S::kParameters}), traffic(S::kParameters, 3 * 4), [](Lab& lab) {
      const WeightAverageArgs<float> args{S::kParameters,
                                          lab.values<float>(S::kParameters),
                                          lab.values<float>(S::kParameters),
                                          0.999,
                                          1000,
                                          lab.constant(1, 1.0)};
      return [=, &lab] { weight_average<D>(args, lab.stream()); };
    });
  }
  add("adamw", shape_of({S::kParameters}), traffic(S::kParameters, 7 * 4, copies ? 2 : 0), [](Lab& lab) {
    const auto slab = [&] { return lab.values<float>(S::kParameters); };
    AdamWArgs<float> args{S::kParameters, slab(), slab(), slab(), slab()};
    if constexpr (copies) args.compute = lab.values<bf16>(S::kParameters);
    args.lr = 1e-4, args.weight_decay = 0.1;
    args.grad_scale = lab.constant(1, 1.0);
    return [=, &lab] { adamw_update<D>(args, lab.stream()); };
  });
  if constexpr (copies) {  // without masters, and all that is kept rounded
    add("adamw.rounded", shape_of({S::kParameters}), traffic(S::kParameters, 4 + 6 * 2), [](Lab& lab) {
      const auto slab = [&] { return lab.values<bf16>(S::kParameters); };
      AdamWArgs<float, bf16, bf16> args{S::kParameters, lab.values<float>(S::kParameters), slab(), slab(),
                                        slab()};
      args.lr = 1e-4, args.weight_decay = 0.1;
      args.grad_scale = lab.constant(1, 1.0);
      return [=, &lab] { adamw_update<D>(args, lab.stream()); };
    });
  }
}

// Of a matrix, in f32.
template <Device D, class S>
void list_matrix_optimizers(Cases& add) {
  constexpr int64_t kRows = S::kWidth, kCols = 4 * S::kWidth, kElements = kRows * kCols;
  if constexpr (kExists<LionKernels, D, float>) {
    add("lion", shape_of({S::kParameters}), traffic(S::kParameters, 5 * 4), [](Lab& lab) {
      const auto slab = [&] { return lab.values<float>(S::kParameters); };
      LionArgs<float> args{S::kParameters, slab(), slab(), slab()};
      args.lr = 1e-4, args.weight_decay = 0.1;
      args.grad_scale = lab.constant(1, 1.0);
      return [=, &lab] { lion_update<D>(args, lab.stream()); };
    });
  }
  if constexpr (kExists<AdafactorKernels, D, float>) {
    add("adafactor", shape_of({kRows, kCols}), traffic(kElements, 5 * 4), [](Lab& lab) {
      AdafactorArgs<float> args;
      args.rows = kRows, args.cols = kCols;
      args.gradient = lab.values<float>(kElements), args.master = lab.values<float>(kElements);
      args.row_squares = lab.values<float>(kRows), args.col_squares = lab.values<float>(kCols);
      args.lr = 1e-4;
      args.grad_scale = lab.constant(1, 1.0);
      return [=, &lab] { adafactor_update<D>(args, lab.workspace(), lab.stream()); };
    });
  }
  if constexpr (kExists<MuonKernels, D, float>) {
    constexpr double kFlops = 5.0 * (4.0 * kRows * kRows * kCols + 2.0 * kRows * kRows * kRows);
    add("muon", shape_of({kRows, kCols}), products(kFlops, 5.0 * 4 * kElements), [](Lab& lab) {
      MuonArgs<float> args{kRows, kCols, lab.values<float>(kElements), lab.values<float>(kElements),
                           lab.values<float>(kElements)};
      args.lr = args.length = 1e-4;
      args.grad_scale = lab.constant(1, 1.0);
      return [=, &lab] { muon_update<D>(args, lab.workspace(), lab.stream()); };
    });
  }
}

template <Device D, class S>
void list_slabs(Cases& add) {
  add("sum_of_squares", shape_of({S::kParameters}), reads(S::kParameters, 4), [](Lab& lab) {
    return [&lab, x = lab.values<float>(S::kParameters), sum = lab.values<double>(1)] {
      sum_of_squares<D>(x, S::kParameters, sum, lab.workspace(), lab.stream());
    };
  });
  constexpr int64_t kParts = 4096;  // parameters and experts of a large model
  add("clip", "4096", reads(kParts, 8), [](Lab& lab) {
    const ClipArgs args{kParts, lab.values<double>(kParts), 1.0, 0, nullptr, lab.values<double>(2)};
    return [=, &lab] { clip<D>(args, lab.stream()); };
  });
  add("write_numbers", "1", traffic(1, sizeof(MicroBatchNumbers)), [](Lab& lab) {
    return [&lab, to = lab.constant(1, MicroBatchNumbers())] {
      write_numbers<D>(MicroBatchNumbers(), to, lab.stream());
    };
  });
  if constexpr (kExists<RandomNormalKernels, D, float>) {
    add("random_normal", shape_of({S::kParameters}), traffic(S::kParameters, 4), [](Lab& lab) {
      const RandomNormalArgs<float> args{Philox(1, Purpose::test), 0, 1, lab.values<float>(S::kParameters),
                                         S::kParameters};
      return [=, &lab] { random_normal<D>(args, lab.stream()); };
    });
  }
  if constexpr (kExists<DeviceRoofKernels, D, float>) {
    constexpr int64_t kReads = std::max(S::kParameters, int64_t{1} << 20);  // beside which its sums are few
    add("read_all", shape_of({kReads}), reads(kReads, 4), [](Lab& lab) {
      return [&lab, x = lab.values<float>(kReads), sums = lab.values<float>(kReadSums)] {
        read_all<D>(x, kReads, sums, lab.stream());
      };
    });
  }
  add("elementwise.convert", shape_of({S::kParameters}), traffic(S::kParameters, 4, 2), [](Lab& lab) {
    return [&lab, x = lab.values<float>(S::kParameters), y = lab.values<bf16>(S::kParameters)] {
      convert<D>(x, y, S::kParameters, lab.stream());
    };
  });
}

}  // namespace

void add_slabs(std::vector<KernelCase>& list, Device device, CaseSize size) {
  Cases f32(list, DType::f32), bf16s(list, DType::bf16);
  list_for(device, size, [&]<Device D, class S>() {
    list_generating<D, S, float>(f32);
    list_generating<D, S, bf16>(bf16s);
    list_optimizer<D, S, float>(f32);
    list_optimizer<D, S, bf16>(bf16s);
    list_matrix_optimizers<D, S>(f32);
    list_slabs<D, S>(f32);
  });
}

}  // namespace ziggurat::apps
