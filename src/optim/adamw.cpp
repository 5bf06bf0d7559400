#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/adamw.h>
#include <ziggurat/optim/adamw.h>

namespace ziggurat {

namespace {

void check_params(const FlatParams& p, std::span<const ParamRange> ranges, const AdamWStep& step) {
  const int64_t n = p.gradient.numel();
  const DType exact = p.gradient.dtype();
  for (const Tensor& slab : {p.master, p.moment1, p.moment2}) {
    const bool rounded = slab.dtype() == DType::bf16 && exact == DType::f32;
    check(slab.numel() == n && (slab.dtype() == exact || rounded), ErrorKind::internal,
          "[adamw] gradient {} {} beside a slab {} {}", to_string(exact), p.gradient.shape(),
          to_string(slab.dtype()), slab.shape());
  }
  check(p.moment1.dtype() == p.moment2.dtype(), ErrorKind::internal, "[adamw] moments of {} and {}",
        to_string(p.moment1.dtype()), to_string(p.moment2.dtype()));
  check(!p.compute ||
            (p.compute.numel() == n && p.compute.dtype() == DType::bf16 && p.master.dtype() == DType::f32),
        ErrorKind::internal, "[adamw] compute copy {} {} of master {} {}", to_string(p.compute.dtype()),
        p.compute.shape(), to_string(p.master.dtype()), p.master.shape());
  check(step.step >= 1, ErrorKind::internal, "[adamw] steps count from 1, got {}", step.step);
  check(step.grad_scale != nullptr, ErrorKind::internal, "[adamw] there is no clip factor");
  for (const ParamRange& range : ranges) {
    check(0 <= range.begin && range.begin <= range.end && range.end <= n, ErrorKind::internal,
          "[adamw] range [{}, {}) of {}", range.begin, range.end, n);
  }
}

template <Device D, class T, class P, class M>
void update(const FlatParams& p, const ParamRange& range, const OptimizerConfig& config,
            const AdamWStep& step, Stream& stream) {
  kernels::AdamWArgs<T, P, M> args;
  args.n = range.end - range.begin;
  args.gradient = p.gradient.data<T>() + range.begin;
  args.master = p.master.data<P>() + range.begin;
  args.moment1 = p.moment1.data<M>() + range.begin;
  args.moment2 = p.moment2.data<M>() + range.begin;
  args.compute = p.compute ? p.compute.data<bf16>() + range.begin : nullptr;
  args.lr = step.lr;
  args.beta1 = config.beta1;
  args.beta2 = config.beta2;
  args.eps = config.eps;
  args.weight_decay = range.decay ? config.weight_decay * step.decay_scale : 0;
  args.grad_scale = step.grad_scale;
  args.step = step.step;
  args.random = Philox(step.seed, Purpose::state_rounding, range.name, static_cast<uint64_t>(step.step));
  args.first = static_cast<uint64_t>(range.first);
  kernels::adamw_update<D>(args, stream);
}

}  // namespace

void adamw_step(const FlatParams& p, std::span<const ParamRange> ranges, const OptimizerConfig& config,
                const AdamWStep& step, Stream& stream) {
  check_params(p, ranges, step);
  // Master and moments are read and written.
  note_kernel("adamw", Pass::backward, p.gradient, 2 * bytes_touched(p.master), 2 * bytes_touched(p.moment1),
              2 * bytes_touched(p.moment2), p.compute);
  const bool masters = p.master.dtype() == DType::bf16, moments = p.moment1.dtype() == DType::bf16;
  visit_kernels<kernels::AdamWKernels>(p.gradient, [&]<Device D, class T>() {
    for (const ParamRange& range : ranges) {
      if (range.begin == range.end) continue;
      if constexpr (std::is_same_v<T, float>) {
        if (masters && moments) {
          update<D, T, bf16, bf16>(p, range, config, step, stream);
        } else if (masters) {
          update<D, T, bf16, T>(p, range, config, step, stream);
        } else if (moments) {
          update<D, T, T, bf16>(p, range, config, step, stream);
        } else {
          update<D, T, T, T>(p, range, config, step, stream);
        }
      } else {
        update<D, T, T, T>(p, range, config, step, stream);
      }
    }
  });
}

}  // namespace ziggurat
