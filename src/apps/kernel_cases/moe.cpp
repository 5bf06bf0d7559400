#include "apps/kernel_cases/lab.h"
#include <ziggurat/kernels/dispatch.h>
#include <ziggurat/kernels/gated_add.h>
#include <ziggurat/kernels/mix.h>
#include <ziggurat/kernels/router.h>
#include <ziggurat/kernels/router_logits.h>

namespace ziggurat::apps {

namespace {

using namespace kernels;

constexpr Device D = Device::cpu;

template <class T>
void list_moe(Cases& add) {
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
  add("gated_add.forward", kRows, traffic(kN, E, E, E), [](Lab& lab) {
    const GatedAddArgs<T> args{
        kTokens, kWidth, lab.values<T>(kN), lab.values<T>(kN), lab.values<A>(kTokens), lab.values<T>(kN)};
    return [=, &lab] { gated_add_forward<D>(args, lab.stream()); };
  });
  add("gated_add.backward", kRows, traffic(kN, E, E, E), [](Lab& lab) {
    const GatedAddGradArgs<T> args{
        kTokens,           kWidth, lab.values<T>(kN),     lab.values<A>(kTokens), lab.values<T>(kN),
        lab.values<T>(kN), false,  lab.values<A>(kTokens)};
    return [=, &lab] { gated_add_backward<D>(args, lab.stream()); };
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
void list_router(Cases& add) {
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

}  // namespace

void add_moe(std::vector<KernelCase>& list) {
  Cases f32(list, DType::f32), bf16s(list, DType::bf16);
  list_moe<float>(f32);
  list_moe<bf16>(bf16s);
  list_router(f32);
}

}  // namespace ziggurat::apps
