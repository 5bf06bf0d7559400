#include "apps/kernel_cases/lab.h"
#include <ziggurat/kernels/attention.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/grouped_linear.h>
#include <ziggurat/kernels/linear.h>
#include <ziggurat/kernels/packed_linear.h>
#include <ziggurat/ops/cross_entropy.h>

namespace ziggurat::apps {

namespace {

using namespace kernels;

// y = x W^T, dx = dy W from packed copies where those pay; dW += dy^T x.
template <Device D, class S, class T, class TY>
void add_linear(Cases& add, const std::string& name, int64_t rows, int64_t in, int64_t out) {
  using A = Accum<T>;
  const std::string shape = shape_of({rows, out, in});
  const auto floor = [=](size_t of_x, size_t of_y, size_t of_weight) {  // bytes of their elements
    return products(2.0 * double(rows) * double(in) * double(out), double(rows * in) * double(of_x) +
                                                                       double(rows * out) * double(of_y) +
                                                                       double(in * out) * double(of_weight));
  };
  constexpr size_t E = sizeof(T);
  const auto product = [=](Side side) {
    return [=](Lab& lab) {
      const T* const w = lab.values<T>(in * out);
      const bool forward = side == Side::forward;
      const WeightProduct<T, TY> args{
          side,
          rows,
          out,
          in,
          lab.values<T>(rows * (forward ? in : out)),
          w,
          lab.packed(w, out, out, in, copies_that_pay<T>(S::kTokens).value_or(Copies::forward)),
          0,
          lab.values<TY>(rows * (forward ? out : in))};
      return [=, &lab] { weight_product<D>(args, lab.workspace(), lab.stream()); };
    };
  };
  add(name + ".forward", shape, floor(E, sizeof(TY), E), product(Side::forward));
  add(name + ".backward", shape, floor(sizeof(TY), E, E), product(Side::backward));
  add(name + ".gradient", shape, floor(E, E, 2 * sizeof(A)), [=](Lab& lab) {
    const GemmArgs<T, A> args{true, false,
                              out,  in,
                              rows, lab.values<T>(rows * out),
                              out,  lab.values<T>(rows * in),
                              in,   lab.values<A>(out * in),
                              in,   true};
    return [=, &lab] { gemm<D>(args, lab.workspace(), lab.stream()); };
  });
}

template <Device D, class S, class T>
void list_products(Cases& add) {
  using A = Accum<T>;
  constexpr size_t E = sizeof(T);
  constexpr int64_t n = S::kSquare;
  constexpr double kFlops = 2.0 * S::kTokens * S::kWidth * S::kFfn;
  add("gemm", shape_of({n, n, n}), products(2.0 * n * n * n, double(n * n) * (2 * E + sizeof(A))),
      [](Lab& lab) {
        const GemmArgs<T, A> args{
            false, true, n, n, n, lab.values<T>(n * n), n, lab.values<T>(n * n), n, lab.values<A>(n * n), n};
        return [=, &lab] { gemm<D>(args, lab.workspace(), lab.stream()); };
      });
  add_linear<D, S, T, T>(add, "linear", S::kTokens, S::kWidth, S::kFfn);
  add_linear<D, S, T, A>(add, "head", S::kChunk, S::kWidth, ops::kVocabularyTile);
  if constexpr (D == Device::cpu) {  // a device's library counts its products, not what surrounds them
    add("linear_layer", shape_of({S::kTokens, S::kFfn, S::kWidth}),
        products(kFlops, E * (S::kN + S::kFfn * S::kWidth + 2 * S::kHidden)), [](Lab& lab) {
          const T* const w = lab.values<T>(S::kFfn * S::kWidth);
          const LinearArgs<T> args{S::kTokens,
                                   S::kWidth,
                                   S::kFfn,
                                   lab.values<T>(S::kN),
                                   w,
                                   lab.version(S::kTokens),
                                   lab.values<A>(S::kFfn),
                                   Activation::gelu_tanh,
                                   lab.values<T>(S::kHidden),
                                   lab.values<T>(S::kHidden)};
          return [=, &lab] { linear_forward<D>(args, lab.workspace(), lab.stream()); };
        });
  }
  if constexpr (kExists<PackedLinearKernels, D, T>) {
    add("packed_weights.prepare", shape_of({S::kFfn, S::kWidth}), traffic(S::kFfn * S::kWidth, E, E),
        [](Lab& lab) {
          const T* const w = lab.values<T>(S::kFfn * S::kWidth);
          PackedWeights* const packed = lab.packed(w, S::kFfn, S::kFfn, S::kWidth, Copies::forward);
          return [=] {
            if (packed != nullptr) packed->expire(), packed->prepare(0, Side::forward);
          };
        });
    add("packed_linear", shape_of({S::kTokens, S::kWidth}) + " to " + shape_of({S::kFfn}),
        products(kFlops, E * (S::kN + S::kFfn * S::kWidth + S::kHidden)), [](Lab& lab) {
          const T* const w = lab.values<T>(S::kFfn * S::kWidth);
          const PackedLinearArgs<T> args{S::kTokens,
                                         S::kWidth,
                                         S::kFfn,
                                         lab.values<T>(S::kN),
                                         lab.packed(w, S::kFfn, kPackedColumns, S::kWidth, Copies::forward),
                                         lab.values<A>(S::kFfn),
                                         Activation::gelu_tanh,
                                         lab.values<T>(S::kHidden)};
          return [=, &lab] {
            if (args.packed != nullptr) packed_linear<D>(args, lab.workspace(), lab.stream());
          };
        });
  }
  constexpr int64_t kExpertWeights = S::kExperts * S::kFfn * S::kWidth;
  const auto experts = [](Lab& lab) {
    const T* const w = lab.values<T>(kExpertWeights);
    return GroupedLinearArgs<T>{lab.equal_shares(S::kTokens, S::kExperts),
                                S::kTokens,
                                S::kWidth,
                                S::kFfn,
                                lab.values<T>(S::kN),
                                w,
                                lab.version(S::kTokens),
                                lab.values<A>(S::kExperts * S::kFfn),
                                Activation::gelu_tanh,
                                lab.values<T>(S::kHidden),
                                lab.values<T>(S::kHidden)};
  };
  const std::string experts_shape = shape_of({S::kExperts, S::kTokens / S::kExperts, S::kFfn, S::kWidth});
  add("grouped_linear.forward", experts_shape,
      products(kFlops, E * (S::kN + kExpertWeights + 2 * S::kHidden)), [=](Lab& lab) {
        return [=, &lab, args = experts(lab)] {
          grouped_linear_forward<D>(args, lab.workspace(), lab.stream());
        };
      });
  add("grouped_linear.backward", experts_shape,
      products(2 * kFlops, E * (2 * S::kN + 2 * S::kHidden) + (E + 2 * sizeof(A)) * kExpertWeights),
      [=](Lab& lab) {
        const GroupedLinearGradArgs<T> args{experts(lab),
                                            lab.values<T>(S::kHidden),
                                            lab.values<T>(S::kN),
                                            false,
                                            lab.values<A>(kExpertWeights),
                                            0,
                                            lab.values<A>(S::kExperts * S::kFfn)};
        return [=, &lab] { grouped_linear_backward<D>(args, lab.workspace(), lab.stream()); };
      });
  const double scores = double(S::kTokens * S::kHeads.heads) * S::kHeads.length * S::kHeads.head_dim;
  add("attention.forward", shape_of(S::kHeads), products(2 * scores, E * (S::kQkv + S::kN)), [](Lab& lab) {
    const AttentionArgs<T> args{S::kHeads,
                                kScale,
                                {},
                                nullptr,
                                lab.values<T>(S::kQkv),
                                lab.values<T>(S::kN),
                                lab.values<A>(S::kTokens * S::kHeads.heads)};
    return [=, &lab] { attention_forward<D>(args, lab.workspace(), lab.stream()); };
  });
  add("attention.backward", shape_of(S::kHeads), products(5 * scores, E * (2 * S::kQkv + 2 * S::kN)),
      [](Lab& lab) {
        const AttentionGradArgs<T> args{S::kHeads,
                                        kScale,
                                        {},
                                        nullptr,
                                        lab.values<T>(S::kQkv),
                                        lab.values<T>(S::kN),
                                        lab.values<A>(S::kTokens * S::kHeads.heads),
                                        lab.values<T>(S::kN),
                                        lab.values<T>(S::kQkv)};
        return [=, &lab] { attention_backward<D>(args, lab.workspace(), lab.stream()); };
      });
}

}  // namespace

void add_products(std::vector<KernelCase>& list, Device device, CaseSize size) {
  Cases f32(list, DType::f32), bf16s(list, DType::bf16);
  list_for(device, size, [&]<Device D, class S>() {
    list_products<D, S, float>(f32);
    list_products<D, S, bf16>(bf16s);
  });
}

}  // namespace ziggurat::apps
