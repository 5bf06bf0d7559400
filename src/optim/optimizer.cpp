#include <ziggurat/optim/optimizer.h>

namespace ziggurat {

Optimizer::Optimizer(nn::ParamStore& store, const OptimizerConfig& config)
    : store_(store), config_(config), ranges_(store.groups().size()) {
  for (const nn::ParamEntry& entry : store.entries()) {
    ranges_[static_cast<size_t>(entry.group)].push_back(
        {entry.offset, entry.offset + entry.numel, entry.spec.decay});
  }
}

void Optimizer::update(double lr, double grad_norm, Stream& stream) {
  ++steps_;
  const Clip clipped = clip(grad_norm * grad_norm, config_.clip_grad);
  for (size_t g = 0; g < ranges_.size(); ++g) {
    const nn::ParamGroup& group = store_.groups()[g];
    adamw_step(
        {group.master, group.gradient.rows(0, group.numel), group.moment1, group.moment2, group.compute},
        ranges_[g], config_, {lr, clipped.scale, steps_}, stream);
  }
  store_.expire_packed();
}

}  // namespace ziggurat
