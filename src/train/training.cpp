#include <ziggurat/core/log.h>
#include <ziggurat/train/teacher.h>
#include <ziggurat/train/training.h>

namespace ziggurat::train {

namespace {

// Between the model, which registers the parameters, and those who need their slabs.
nn::ParamStore& finalized(nn::ParamStore& store, const ProcessGroups& groups, const RunConfig& config) {
  // In strict mode gradients are summed over a rank's micro-batches before those of ranks are: it keeps them.
  const bool scatter = config.parallel.zero == 2 && config.reproducible != Reproducible::strict;
  if (config.parallel.zero > 0) store.shard(groups, scatter);
  store.finalize();
  return store;
}

}  // namespace

int64_t Cursor::skipped_samples() const {
  int64_t all = 0;
  for (const IndexRange& range : skipped) all += range.size();
  return all;
}

Training::Training(const RunConfig& config, ProcessGroups its_groups, Device device)
    : groups(std::move(its_groups)),
      store({.compute = compute_dtype(config.precision),
             .device = device,
             .seed = static_cast<uint64_t>(config.seed),
             .reproducible = config.reproducible,
             .group_bytes = config.parallel.bucket}),
      model(model_of(config, groups.plan().world_size()), store, groups, config.train.recompute),
      objective(make_objective(config, groups, model, device)),
      optimizer(finalized(store, groups, config), groups, config.optimizer) {}

Training::Training(const RunConfig& config, Communicator& world)
    : Training(config, ProcessGroups(world, layout_of(config, world.size())), config.device) {
  if (config.parallel.zero > 0 && world.size() == 1) {
    warn("parallel.zero {} shares nothing on one rank: remove it, or start more", config.parallel.zero);
  }
}

}  // namespace ziggurat::train
