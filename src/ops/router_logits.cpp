#include <ops/panels.h>

#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/bias_activation.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/router_logits.h>
#include <ziggurat/ops/router_logits.h>

namespace ziggurat::ops {

namespace {

// x' [N, C]: x in the accumulation dtype, times noise. x itself where that changes nothing.
template <Device D, class T>
const Accum<T>* router_input(const Tensor& x, double eps, const LatePhilox& rng, int64_t first,
                             Arena& workspace, Stream& stream) {
  if constexpr (std::is_same_v<T, Accum<T>>) {
    if (eps == 0) return x.data<T>();
  }
  auto* wide = allocate(workspace, accum_dtype(x.dtype()), x.shape()).template data<Accum<T>>();
  kernels::router_input_forward<D>(kernels::RouterInputArgs<T>{x.numel(), eps, rng, x.data<T>(), wide, first},
                                   stream);
  return wide;
}

double wide_bytes_of(const Tensor& x) {
  return static_cast<double>(x.numel() * size_of(accum_dtype(x.dtype())));
}

}  // namespace

Var router_logits(Tape& tape, Var x, const Param& weight, const Param* bias, double jitter_eps,
                  int64_t layer) {
  const Tensor& w = weight.value;
  const DType accum = accum_dtype(x.dtype());
  check(x.shape().rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(1), ErrorKind::argument,
        "[router_logits] expected x [N, C] and weight [E, C], got {} and {}", x.shape(), w.shape());
  check(bias == nullptr || bias->value.shape() == Shape{w.dim(0)}, ErrorKind::argument,
        "[router_logits] expected bias [{}], got {}", w.dim(0),
        bias == nullptr ? Shape{} : bias->value.shape());
  check(w.dtype() == accum && (bias == nullptr || bias->value.dtype() == accum), ErrorKind::argument,
        "[router_logits] x is {}: expected weight and bias {}, got {} and {}", to_string(x.dtype()),
        to_string(accum), to_string(w.dtype()), bias == nullptr ? "none" : to_string(bias->value.dtype()));
  check(0 <= jitter_eps && jitter_eps < 1, ErrorKind::argument,
        "[router_logits] expected 0 <= jitter_eps < 1, got {}", jitter_eps);
  const int64_t rows = x.dim(0), cols = x.dim(1), experts = w.dim(0);

  const bool wants_grad = x.wants_grad() || weight.trainable() || (bias != nullptr && bias->trainable());
  const Var logits = tape.output(accum, {rows, experts}, wants_grad);
  const double eps = tape.micro_batch().training ? jitter_eps : 0.0;
  const LatePhilox rng = tape.random(Purpose::router_jitter, layer);
  const int64_t first = tape.first_of_shard(x.value().numel());

  note_kernel("router_input", Pass::forward, x, wide_bytes_of(x.value()));
  note_product("router_logits", Pass::forward, {1, rows, experts, cols}, wide_bytes_of(x.value()), w, logits);
  const ArenaScope forward_scope(tape.workspace());
  visit_kernels<kernels::RouterLogitsKernels, kernels::GemmKernels, kernels::BiasActivationKernels>(
      x.value(), [&]<Device D, class T>() {
        using A = Accum<T>;
        const A* wide = router_input<D, T>(x.value(), eps, rng, first, tape.workspace(), tape.stream());
        if constexpr (kExists<kernels::PanelLinearKernels, D, A>) {
          if (weight.panels) {
            const int32_t all[] = {0, static_cast<int32_t>(rows)};
            return panel_product<D, A, A>(tape, {all}, wide, rows, weight, bias, kernels::Activation::none,
                                          logits.value());
          }
        }
        kernels::gemm<D>(kernels::GemmArgs<A, A>{false, true, rows, experts, cols, wide, cols, w.data<A>(),
                                                 cols, logits.value().data<A>(), experts},
                         tape.workspace(), tape.stream());
        if (bias != nullptr) {
          kernels::bias_activation_forward<D>(
              kernels::BiasActivationArgs<A>{kernels::Activation::none, rows, experts,
                                             logits.value().data<A>(), bias->value.data<A>()},
              tape.stream());
        }
      });

  // Saves nothing: x' is made again from x, which is half its size in bf16 and kept by its producer anyway.
  tape.record(logits, {&weight, bias}, [=, &weight](Tape& t, const Tensor& dlogits) {
    const ArenaScope scope(t.workspace());
    const GradSlot dx = t.grad_slot(x);
    const double wide_bytes = wide_bytes_of(x.value());
    if (weight.trainable()) {
      note_kernel("router_input", Pass::backward, x, wide_bytes);
      note_product("router_logits", Pass::weight, {1, experts, cols, rows}, dlogits, wide_bytes,
                   gradient_bytes(weight));
    }
    if (dx) {
      note_product("router_logits", Pass::backward, {1, rows, cols, experts}, dlogits, &weight, wide_bytes);
      note_kernel("router_input", Pass::backward, wide_bytes, dx);
    }
    visit_kernels<kernels::RouterLogitsKernels, kernels::GemmKernels, kernels::BiasActivationKernels>(
        x.value(), [&]<Device D, class T>() {
          using A = Accum<T>;
          // dbias += sum over rows of dlogits
          if (bias != nullptr && bias->trainable()) {
            kernels::bias_activation_backward<D>(
                kernels::BiasActivationGradArgs<A>{kernels::Activation::none, rows, experts, nullptr,
                                                   dlogits.data<A>(), nullptr, bias->grad.data<A>()},
                t.workspace(), t.stream());
          }
          // dweight += dlogits^T x'
          if (weight.trainable()) {
            const A* wide = router_input<D, T>(x.value(), eps, rng, first, t.workspace(), t.stream());
            kernels::gemm<D>(kernels::GemmArgs<A, A>{true, false, experts, cols, rows, dlogits.data<A>(),
                                                     experts, wide, cols, weight.grad.data<A>(), cols, true},
                             t.workspace(), t.stream());
          }
          // dx = (dlogits weight) * noise
          if (dx) {
            A* dwide = allocate(t.workspace(), accum, {rows, cols}).template data<A>();
            kernels::gemm<D>(kernels::GemmArgs<A, A>{false, false, rows, cols, experts, dlogits.data<A>(),
                                                     experts, weight.value.data<A>(), cols, dwide, cols},
                             t.workspace(), t.stream());
            kernels::router_input_backward<D>(
                kernels::RouterInputGradArgs<T>{rows * cols, eps, rng, dwide, dx.grad.data<T>(),
                                                dx.accumulate, first},
                t.stream());
          }
        });
  });
  return logits;
}

}  // namespace ziggurat::ops
