#include "apps/kernel_cases/lab.h"
#include <ziggurat/kernels/dispatch.h>
#include <ziggurat/kernels/expert_blocks.h>
#include <ziggurat/kernels/gated_add.h>
#include <ziggurat/kernels/mix.h>
#include <ziggurat/kernels/own_tokens.h>
#include <ziggurat/kernels/router.h>
#include <ziggurat/kernels/router_logits.h>

namespace ziggurat::apps {

namespace {

using namespace kernels;

template <Device D, class S, class T>
void list_moe(Cases& add) {
  using A = Accum<T>;
  const std::string rows = shape_of({S::kTokens, S::kWidth});
  constexpr size_t E = sizeof(T);
  add("gather_rows", rows, traffic(S::kN, E, E), [](Lab& lab) {
    const GatherRowsArgs<T> args{S::kTokens, S::kWidth, lab.values<T>(S::kN),
                                 lab.scattered(S::kTokens, S::kTokens), lab.values<T>(S::kN)};
    return [=, &lab] { gather_rows<D>(args, lab.stream()); };
  });
  add("scatter_rows", rows, traffic(S::kN, E, E), [](Lab& lab) {
    const ScatterRowsArgs<T> args{
        S::kTokens, S::kWidth,           lab.values<T>(S::kN), lab.scattered(S::kTokens, S::kTokens),
        false,      lab.values<T>(S::kN)};
    return [=, &lab] { scatter_rows<D>(args, lab.stream()); };
  });
  const auto combine = [](Lab& lab) {
    return CombineRowsArgs<T>{S::kTokens,
                              1,
                              S::kWidth,
                              lab.values<T>(S::kN),
                              lab.scattered(S::kTokens, S::kTokens),
                              lab.values<A>(S::kTokens),
                              false,
                              lab.values<T>(S::kN)};
  };
  add("combine_rows.forward", rows, traffic(S::kN, E, E),
      [=](Lab& lab) { return [&lab, args = combine(lab)] { combine_rows<D>(args, lab.stream()); }; });
  add("combine_rows.backward", rows, traffic(S::kN, E, E, E), [=](Lab& lab) {
    const CombineRowsGradArgs<T> args{combine(lab), lab.values<T>(S::kN), lab.values<T>(S::kN), false,
                                      lab.values<A>(S::kTokens)};
    return [=, &lab] { combine_rows_backward<D>(args, lab.stream()); };
  });
  add("mix.forward", rows, traffic(S::kN, E, E, E), [](Lab& lab) {
    const MixArgs<T> args{S::kTokens,
                          S::kWidth,
                          lab.values<T>(S::kN),
                          lab.values<T>(S::kN),
                          lab.values<A>(2 * S::kTokens),
                          lab.values<T>(S::kN)};
    return [=, &lab] { mix_forward<D>(args, lab.stream()); };
  });
  add("mix.backward", rows, traffic(S::kN, E, E, E, E, E), [](Lab& lab) {
    const MixGradArgs<T> args{S::kTokens,
                              S::kWidth,
                              lab.values<T>(S::kN),
                              lab.values<T>(S::kN),
                              lab.values<A>(2 * S::kTokens),
                              lab.values<T>(S::kN),
                              lab.values<T>(S::kN),
                              false,
                              lab.values<T>(S::kN),
                              false,
                              lab.values<A>(2 * S::kTokens)};
    return [=, &lab] { mix_backward<D>(args, lab.stream()); };
  });
  add("gated_add.forward", rows, traffic(S::kN, E, E, E), [](Lab& lab) {
    const GatedAddArgs<T> args{
        S::kTokens,          S::kWidth, lab.values<T>(S::kN), lab.values<T>(S::kN), lab.values<A>(S::kTokens),
        lab.values<T>(S::kN)};
    return [=, &lab] { gated_add_forward<D>(args, lab.stream()); };
  });
  add("gated_add.backward", rows, traffic(S::kN, E, E, E), [](Lab& lab) {
    const GatedAddGradArgs<T> args{S::kTokens,
                                   S::kWidth,
                                   lab.values<T>(S::kN),
                                   lab.values<A>(S::kTokens),
                                   lab.values<T>(S::kN),
                                   lab.values<T>(S::kN),
                                   false,
                                   lab.values<A>(S::kTokens)};
    return [=, &lab] { gated_add_backward<D>(args, lab.stream()); };
  });
  add("router_input.forward", rows, traffic(S::kN, E, sizeof(A)), [](Lab& lab) {
    const RouterInputArgs<T> args{S::kN, 0, LatePhilox(), lab.values<T>(S::kN), lab.values<A>(S::kN)};
    return [=, &lab] { router_input_forward<D>(args, lab.stream()); };
  });
  add("router_input.backward", rows, traffic(S::kN, E, sizeof(A)), [](Lab& lab) {
    const RouterInputGradArgs<T> args{S::kN, 0, LatePhilox(), lab.values<A>(S::kN), lab.values<T>(S::kN)};
    return [=, &lab] { router_input_backward<D>(args, lab.stream()); };
  });
}

// Logits, probabilities and tables are f32 and int32 beside activations of any dtype.
template <Device D, class S>
void list_router(Cases& add) {
  constexpr int64_t n = S::kTokens * S::kExperts;
  const std::string shape = shape_of({S::kTokens, S::kExperts});
  add("router_softmax", shape, traffic(n, 4, 4), [](Lab& lab) {
    const RouterSoftmaxArgs<float> args{S::kTokens,
                                        S::kExperts,
                                        lab.values<float>(n),
                                        lab.values<float>(n),
                                        lab.values<float>(S::kTokens),
                                        lab.values<float>(S::kTokens)};
    return [=, &lab] { router_softmax<D>(args, lab.stream()); };
  });
  add("router_sigmoid", shape, traffic(n, 4, 4), [](Lab& lab) {
    const RouterSigmoidArgs<float> args{S::kTokens,
                                        S::kExperts,
                                        lab.values<float>(n),
                                        lab.values<float>(n),
                                        lab.values<float>(S::kTokens),
                                        lab.values<float>(S::kTokens)};
    return [=, &lab] { router_sigmoid<D>(args, lab.stream()); };
  });
  add("router_choose_limited", shape, reads(n, 4), [](Lab& lab) {
    const RouterLimitedChoiceArgs<float> args{S::kTokens,
                                              S::kExperts,
                                              2,
                                              4,
                                              2,
                                              2,
                                              lab.values<float>(n),
                                              lab.values<float>(S::kExperts),
                                              lab.scattered(2 * S::kTokens, S::kExperts)};
    return [=, &lab] { router_choose_limited<D>(args, lab.workspace(), lab.stream()); };
  });
  add("router_choose", shape, reads(n, 4), [](Lab& lab) {
    const RouterChooseArgs<float> args{S::kTokens,
                                       S::kExperts,
                                       1,
                                       ChoiceNoise::none,
                                       lab.values<float>(n),
                                       nullptr,
                                       lab.scattered(S::kTokens, S::kExperts)};
    return [=, &lab] { router_choose<D>(args, lab.stream()); };
  });
  add("router_assign", shape, traffic(S::kTokens, 4, 4, 4, 4), [](Lab& lab) {
    const auto table = [&] { return lab.scattered(S::kTokens, S::kExperts); };
    RouterAssignArgs<float> args{S::kTokens, S::kExperts, 1, DropPolicy::none, SlotOrder::choice_first,
                                 0,          S::kTokens};
    args.expert = table();
    args.counts_before = table(), args.counts = table(), args.offsets = table();
    args.row_of_choice = table(), args.token_of_row = table(), args.choice_of_row = table();
    return [=, &lab] { router_assign<D>(args, lab.workspace(), lab.stream()); };
  });
  constexpr int64_t kOwn = S::kTokens / 2;  // of two ranks
  add("own_tokens", shape, traffic(S::kTokens, 4, 4, 4, 4), [](Lab& lab) {
    const auto table = [&] { return lab.scattered(S::kTokens, S::kTokens); };
    OwnTokensArgs args{kOwn, kOwn, 1, S::kExperts};
    args.all_offsets = lab.equal_shares(S::kTokens, S::kExperts).offsets;
    args.all_token_of_row = table(), args.all_choice_of_row = lab.constant<int32_t>(S::kTokens, 0);
    args.counts = table(), args.offsets = table(), args.rows = kOwn;
    args.row_of_choice = table(), args.token_of_row = table(), args.choice_of_row = table();
    return [=, &lab] { own_tokens<D>(args, lab.stream()); };
  });
  add("expert_blocks", shape, traffic(S::kTokens, 4, 4, 4, 4, 4, 4, 4), [](Lab& lab) {
    const auto table = [&] { return lab.scattered(S::kTokens, S::kTokens); };
    ExpertBlocksArgs args{S::kTokens, 1, S::kExperts, S::kTokens / S::kExperts};
    args.offsets = lab.equal_shares(S::kTokens, S::kExperts).offsets;
    args.expert = lab.scattered(S::kTokens, S::kExperts), args.row_of_choice = table();
    args.token_of_row = table(), args.choice_of_row = table();
    args.place_of_choice = table(), args.token_of_place = table(), args.choice_of_place = table();
    return [=, &lab] { expert_blocks<D>(args, lab.stream()); };
  });
  const auto weights = [](Lab& lab) {
    return RouterWeightArgs<float>{S::kTokens,
                                   S::kExperts,
                                   1,
                                   Renormalise::none,
                                   lab.values<float>(n),
                                   lab.scattered(S::kTokens, S::kExperts),
                                   lab.scattered(S::kTokens, S::kTokens),
                                   lab.values<float>(S::kTokens)};
  };
  add("router_weights", shape, traffic(S::kTokens, 4, 4, 4, 4),
      [=](Lab& lab) { return [&lab, args = weights(lab)] { router_weights<D>(args, lab.stream()); }; });
  add("router_means", shape, reads(n, 4), [](Lab& lab) {
    const RouterMeanArgs<float> args{S::kTokens,
                                     S::kExperts,
                                     1,
                                     1,
                                     1,
                                     lab.values<float>(n),
                                     lab.scattered(S::kTokens, S::kExperts),
                                     lab.values<double>(S::kExperts),
                                     lab.values<double>(S::kExperts)};
    return [=, &lab] { router_means<D>(args, lab.stream()); };
  });
  add("router_backward", shape, traffic(n, 4, 4), [=](Lab& lab) {
    const RouterGradArgs<float> args{weights(lab),
                                     1,
                                     lab.values<float>(S::kTokens),
                                     lab.values<float>(S::kTokens),
                                     lab.values<double>(S::kExperts),
                                     1e-2,
                                     1e-3,
                                     lab.constant(1, 1.0),
                                     false,
                                     lab.values<float>(n)};
    return [=, &lab] { router_backward<D>(args, lab.workspace(), lab.stream()); };
  });
  add("router_gumbel", shape, traffic(n, 4), [](Lab& lab) {
    const RouterNoise noise{1, 0, lab.constant<uint64_t>(1, 0)};
    return [=, &lab, y = lab.values<float>(n)] { router_gumbel<D>(noise, y, n, lab.stream()); };
  });
  add("router_keys", shape, traffic(n, 4), [](Lab& lab) {
    const RouterNoise noise{1, 0, lab.constant<uint64_t>(1, 0)};
    return [=, &lab, y = lab.values<float>(n)] { router_keys<D>(noise, y, n, lab.stream()); };
  });
}

}  // namespace

void add_moe(std::vector<KernelCase>& list, Device device, CaseSize size) {
  Cases f32(list, DType::f32), bf16s(list, DType::bf16);
  list_for(device, size, [&]<Device D, class S>() {
    list_moe<D, S, float>(f32);
    list_moe<D, S, bf16>(bf16s);
    list_router<D, S>(f32);
  });
}

}  // namespace ziggurat::apps
