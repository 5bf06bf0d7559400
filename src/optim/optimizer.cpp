#include <ziggurat/core/philox.h>
#include <ziggurat/kernels/clip.h>
#include <ziggurat/optim/optimizer.h>
#include <ziggurat/optim/rules.h>

namespace ziggurat {

Optimizer::Optimizer(nn::ParamStore& store, const ProcessGroups& groups, const OptimizerConfig& config)
    : store_(store),
      config_(config),
      state_(store, groups,
             {[config](const nn::ParamSpec& spec) { return moments_for(config, spec); },
              config.moments == StateDtype::bf16, config.masters == StateDtype::bf16}),
      arena_("clip", Arena::kAlignment, store.options().device),
      clipped_(allocate(arena_, DType::f64, {2})) {
  for (const nn::ParamEntry& entry : store.entries()) {
    const IndexRange owned = store.owned(entry);
    if (owned.size() == 0) continue;
    items_.push_back({&entry, state_.master(entry), store.owned_gradient(entry), state_.rounded(entry), {}});
    const bool draws = config.moments == StateDtype::bf16 || config.masters == StateDtype::bf16;
    if (!draws || entry.spec.cut.empty()) continue;
    nn::for_each_held_run(entry.spec, owned.begin, owned.end, [&](int64_t first, int64_t at, int64_t n) {
      items_.back().runs.push_back({at, at + n, entry.spec.decay, hash_name(entry.spec.name), first});
    });
  }
}

Tensor Optimizer::update(double lr, const Tensor& squared_norms, const Tensor& losses, Arena& workspace,
                         Stream& stream, const UpdateLimits& limits, bool behind) {
  check(!losses || losses.shape().rank() == 2, ErrorKind::argument,
        "[optimizer] expected losses [n, parts of a loss], got {}", losses.shape());
  ++steps_;
  store_.await_values();  // of the update before: a parameter that nobody has used since
  visit_kernels<kernels::ClipKernels>(squared_norms, [&]<Device D, class T>() {
    kernels::clip<D>({squared_norms.numel(), squared_norms.data<double>(), config_.clip_grad,
                      losses ? losses.numel() : 0, losses ? losses.data<double>() : nullptr,
                      clipped_.data<double>(), limits.norm, limits.loss, losses ? losses.dim(1) : 1},
                     stream);
  });
  const UpdateStep step{lr, clipped_.data<double>() + 1, steps_, store_.options().seed};
  for (const Item& item : items_) {
    const nn::ParamEntry& entry = *item.entry;
    ziggurat::update(config_,
                     {entry.spec, entry.first + store_.owned(entry).begin, item.master, item.gradient,
                      item.rounded, state_.moments(entry), item.runs},
                     step, workspace, stream);
  }
  state_.share(stream, behind);
  return clipped_;
}

}  // namespace ziggurat
