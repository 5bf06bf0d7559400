#include "apps/kernel_cases/lab.h"
#include <ziggurat/kernels/adamw.h>
#include <ziggurat/kernels/cached_attention.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/few_rows.h>
#include <ziggurat/kernels/random_normal.h>

namespace ziggurat::apps {

namespace {

using namespace kernels;

constexpr Device D = Device::cpu;

template <class T>
void list_generating(Cases& add) {
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
void list_optimizer(Cases& add) {
  constexpr bool copies = std::is_same_v<T, bf16>;
  add("adamw", "16777216", traffic(kParameters, 7 * 4, copies ? 2 : 0), [](Lab& lab) {
    const auto slab = [&] { return lab.values<float>(kParameters); };
    AdamWArgs<float> args{kParameters, slab(), slab(), slab(), slab()};
    if constexpr (copies) args.compute = lab.values<bf16>(kParameters);
    args.lr = 1e-4, args.weight_decay = 0.1;
    return [=, &lab] { adamw_update<D>(args, lab.stream()); };
  });
}

void list_slabs(Cases& add) {
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

}  // namespace

void add_slabs(std::vector<KernelCase>& list) {
  Cases f32(list, DType::f32), bf16s(list, DType::bf16);
  list_generating<float>(f32);
  list_generating<bf16>(bf16s);
  list_optimizer<float>(f32);
  list_optimizer<bf16>(bf16s);
  list_slabs(f32);
}

}  // namespace ziggurat::apps
