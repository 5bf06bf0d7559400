#include "apps/kernel_cases/lab.h"
#include <ziggurat/kernels/attention.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/packed_linear.h>
#include <ziggurat/ops/cross_entropy.h>

namespace ziggurat::apps {

namespace {

using namespace kernels;

constexpr Device D = Device::cpu;

// y = x W^T, dx = dy W from packed copies where those pay; dW += dy^T x.
template <class T, class TY>
void add_linear(Cases& add, const std::string& name, const std::string& shape, int64_t rows, int64_t in,
                int64_t out) {
  using A = Accum<T>;
  const Floor floor = products(2.0 * double(rows) * double(in) * double(out));
  const auto product = [=](Side side) {
    return [=](Lab& lab) {
      const T* const w = lab.values<T>(in * out);
      const bool forward = side == Side::forward;
      const WeightProduct<T, TY> args{side,
                                      rows,
                                      out,
                                      in,
                                      lab.values<T>(rows * (forward ? in : out)),
                                      w,
                                      lab.packed(w, out, out, in, copies_that_pay<T>(kTokens).value()),
                                      0,
                                      lab.values<TY>(rows * (forward ? out : in))};
      return [=, &lab] { weight_product<D>(args, lab.workspace(), lab.stream()); };
    };
  };
  add(name + ".forward", shape, floor, product(Side::forward));
  add(name + ".backward", shape, floor, product(Side::backward));
  add(name + ".gradient", shape, floor, [=](Lab& lab) {
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
void list_products(Cases& add) {
  using A = Accum<T>;
  add("gemm", "1024 x 1024 x 1024", products(2.0 * 1024 * 1024 * 1024), [](Lab& lab) {
    constexpr int64_t n = 1024;
    const GemmArgs<T, A> args{
        false, true, n, n, n, lab.values<T>(n * n), n, lab.values<T>(n * n), n, lab.values<A>(n * n), n};
    return [=, &lab] { gemm<D>(args, lab.workspace(), lab.stream()); };
  });
  add_linear<T, T>(add, "linear", "2048 x 1536 x 384", kTokens, kWidth, kFfn);
  add_linear<T, A>(add, "head", "512 x 2112 x 384", kChunk, kWidth, ops::kVocabularyTile);
  add("packed_weights.prepare", "1536 x 384", traffic(kFfn * kWidth, sizeof(T), sizeof(T)), [](Lab& lab) {
    const T* const w = lab.values<T>(kFfn * kWidth);
    PackedWeights* const packed = lab.packed(w, kFfn, kFfn, kWidth, Copies::forward);
    return [=] {
      if (packed != nullptr) packed->expire(), packed->prepare(0, Side::forward);
    };
  });
  add("packed_linear", "2048 x 384 to 1536", products(2.0 * kTokens * kWidth * kFfn), [](Lab& lab) {
    const T* const w = lab.values<T>(kFfn * kWidth);
    const PackedLinearArgs<T> args{kTokens,
                                   kWidth,
                                   kFfn,
                                   lab.values<T>(kN),
                                   lab.packed(w, kFfn, kPackedColumns, kWidth, Copies::forward),
                                   lab.values<A>(kFfn),
                                   Activation::gelu_tanh,
                                   lab.values<T>(kHidden)};
    return [=, &lab] {
      if (args.packed != nullptr) packed_linear<D>(args, lab.workspace(), lab.stream());
    };
  });
  const auto experts = [](Lab& lab) {
    const T* const w = lab.values<T>(kExperts * kFfn * kWidth);
    return GroupedLinearArgs<T>{lab.equal_shares(kTokens, kExperts),
                                kExperts,
                                kTokens,
                                kWidth,
                                kFfn,
                                kExperts,
                                lab.values<T>(kN),
                                w,
                                lab.packed(w, kExperts * kFfn, kFfn, kWidth, Copies::both),
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

}  // namespace

void add_products(std::vector<KernelCase>& list) {
  Cases f32(list, DType::f32), bf16s(list, DType::bf16);
  list_products<float>(f32);
  list_products<bf16>(bf16s);
}

}  // namespace ziggurat::apps
