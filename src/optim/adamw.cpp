#include <algorithm>
#include <cmath>

#include <ziggurat/kernels/adamw.h>
#include <ziggurat/optim/adamw.h>

namespace ziggurat {

namespace {

void check_params(const FlatParams& p, std::span<const ParamRange> ranges, const AdamWStep& step) {
  const int64_t n = p.master.numel();
  for (const Tensor& slab : {p.gradient, p.moment1, p.moment2}) {
    check(slab.numel() == n && slab.dtype() == p.master.dtype(), ErrorKind::internal,
          "[adamw] master {} {} beside a slab {} {}", to_string(p.master.dtype()), p.master.shape(),
          to_string(slab.dtype()), slab.shape());
  }
  check(!p.compute ||
            (p.compute.numel() == n && p.compute.dtype() == DType::bf16 && p.master.dtype() == DType::f32),
        ErrorKind::internal, "[adamw] compute copy {} {} of master {} {}", to_string(p.compute.dtype()),
        p.compute.shape(), to_string(p.master.dtype()), p.master.shape());
  check(step.step >= 1, ErrorKind::internal, "[adamw] steps count from 1, got {}", step.step);
  for (const ParamRange& range : ranges) {
    check(0 <= range.begin && range.begin <= range.end && range.end <= n, ErrorKind::internal,
          "[adamw] range [{}, {}) of {}", range.begin, range.end, n);
  }
}

}  // namespace

void adamw_step(const FlatParams& p, std::span<const ParamRange> ranges, const OptimizerConfig& config,
                const AdamWStep& step, Stream& stream) {
  check_params(p, ranges, step);
  visit_kernels<kernels::AdamWKernels>(p.master, [&]<Device D, class T>() {
    for (const ParamRange& range : ranges) {
      if (range.begin == range.end) continue;
      kernels::AdamWArgs<T> args;
      args.n = range.end - range.begin;
      args.gradient = p.gradient.data<T>() + range.begin;
      args.master = p.master.data<T>() + range.begin;
      args.moment1 = p.moment1.data<T>() + range.begin;
      args.moment2 = p.moment2.data<T>() + range.begin;
      args.compute = p.compute ? p.compute.data<bf16>() + range.begin : nullptr;
      args.lr = step.lr;
      args.beta1 = config.beta1;
      args.beta2 = config.beta2;
      args.eps = config.eps;
      args.weight_decay = range.decay ? config.weight_decay : 0;
      args.grad_scale = step.grad_scale;
      args.step = step.step;
      kernels::adamw_update<D, T>(args, stream);
    }
  });
}

double sum_of_squares(const Tensor& flat, Stream& stream) {
  double sum = 0;
  visit_kernels<kernels::SumOfSquaresKernels>(flat, [&]<Device D, class T>() {
    sum = kernels::sum_of_squares<D, T>(flat.data<T>(), flat.numel(), stream);
  });
  return sum;
}

Clip clip(double sum, double max_norm) {
  const double norm = std::sqrt(sum);
  if (!std::isfinite(norm)) return {norm, norm};
  const double scale = max_norm > 0 ? std::min(1.0, max_norm / norm) : 1.0;
  return {norm, scale};
}

}  // namespace ziggurat
