#include <ziggurat/core/philox.h>
#include <ziggurat/kernels/clip.h>
#include <ziggurat/optim/clip_groups.h>
#include <ziggurat/optim/optimizer.h>
#include <ziggurat/optim/rules.h>

namespace ziggurat {

namespace {

// One for all, and where there are groups one for the rest and each of them.
int64_t rows_of_clipped(const OptimizerConfig& config) {
  return config.clip_groups.empty() ? 1 : 2 + std::ssize(config.clip_groups);
}

}  // namespace

Optimizer::Optimizer(nn::ParamStore& store, const ProcessGroups& groups, const OptimizerConfig& config)
    : store_(store),
      config_(config),
      state_(store, groups,
             {[config](const nn::ParamSpec& spec) { return moments_for(config, spec); },
              config.moments == StateDtype::bf16, config.masters == StateDtype::bf16}),
      arena_("clip", Arena::kAlignment * (2 + std::ssize(config.clip_groups)), store.options().device),
      clip_groups_(clip_groups_of(config, store)),
      clipped_(allocate(arena_, DType::f64, {rows_of_clipped(config), 2})) {
  for (size_t i = 0; i < store.entries().size(); ++i) {
    const nn::ParamEntry& entry = store.entries()[i];
    const IndexRange owned = store.owned(entry);
    if (owned.size() == 0) continue;
    const int64_t row = config.clip_groups.empty() ? 0 : 1 + clip_groups_[i];
    items_.push_back({&entry,
                      state_.master(entry),
                      store.owned_gradient(entry),
                      state_.rounded(entry),
                      clipped_.data<double>() + 2 * row + 1,
                      {}});
    const bool draws = config.moments == StateDtype::bf16 || config.masters == StateDtype::bf16;
    if (!draws || entry.spec.cut.empty()) continue;
    nn::for_each_held_run(entry.spec, owned.begin, owned.end, [&](int64_t first, int64_t at, int64_t n) {
      items_.back().runs.push_back({at, at + n, entry.spec.decay, hash_name(entry.spec.name), first});
    });
  }
}

// Whether there is an update at all is decided by the norm of the whole model and the losses; the scale that
// tells it is then one of the losses of each group.
void Optimizer::clip(const Tensor& squared_norms, const Tensor& losses, const UpdateLimits& limits,
                     Stream& stream) {
  const int64_t groups = clipped_.dim(0) - 1, parts = squared_norms.numel() / std::max<int64_t>(groups, 1);
  double* const whole = clipped_.data<double>();
  visit_kernels<kernels::ClipKernels>(squared_norms, [&]<Device D, class T>() {
    kernels::clip<D>({squared_norms.numel(), squared_norms.data<double>(), groups > 0 ? 0 : config_.clip_grad,
                      losses ? losses.numel() : 0, losses ? losses.data<double>() : nullptr, whole,
                      limits.norm, limits.loss, losses ? losses.dim(1) : 1},
                     stream);
    for (int64_t g = 0; g < groups; ++g) {
      kernels::clip<D>({parts, squared_norms.data<double>() + g * parts,
                        clip_norm_of(config_, static_cast<size_t>(g)), 1, whole + 1, whole + 2 * (1 + g)},
                       stream);
    }
  });
}

Tensor Optimizer::update(double lr, const Tensor& squared_norms, const Tensor& losses, Arena& workspace,
                         Stream& stream, const UpdateLimits& limits, bool behind) {
  check(!losses || losses.shape().rank() == 2, ErrorKind::argument,
        "[optimizer] expected losses [n, parts of a loss], got {}", losses.shape());
  check(config_.clip_groups.empty() || squared_norms.dim(0) == clipped_.dim(0) - 1, ErrorKind::argument,
        "[optimizer] expected squared norms of {} clip groups, got {}", clipped_.dim(0) - 1,
        squared_norms.shape());
  ++steps_;
  store_.await_values();  // of the update before: a parameter that nobody has used since
  clip(squared_norms, losses, limits, stream);
  for (const Item& item : items_) {
    const nn::ParamEntry& entry = *item.entry;
    ziggurat::update(config_,
                     {entry.spec, entry.first + store_.owned(entry).begin, item.master, item.gradient,
                      item.rounded, state_.moments(entry), item.runs},
                     {lr, item.grad_scale, steps_, store_.options().seed}, workspace, stream);
  }
  state_.share(stream, behind);
  return clipped_;
}

}  // namespace ziggurat
