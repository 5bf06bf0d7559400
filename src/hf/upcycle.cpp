#include <ziggurat/core/error.h>
#include <ziggurat/hf/upcycle.h>

namespace ziggurat::hf {

using model::FfnKind;

model::ModelConfig upcycled(const model::ModelConfig& dense, const Upcycling& u) {
  std::vector<model::BlockSpec> layers = dense.layers();
  const auto n = static_cast<int64_t>(layers.size());
  check(u.experts >= 1 && 1 <= u.top_k && u.top_k <= u.experts, ErrorKind::argument,
        "--upcycle: expected experts of at least top_k ({}), got {}", u.top_k, u.experts);
  check(1 <= u.every && u.every <= n, ErrorKind::argument,
        "--upcycle: expected every from 1 to {}, the model's layers, got {}", n, u.every);
  for (const model::BlockSpec& layer : layers) {
    check(layer.ffn == FfnKind::dense, ErrorKind::argument,
          "--upcycle: expected a dense model; this one has experts already");
  }
  std::vector<model::BlockSpec> pattern(static_cast<size_t>(u.every));
  pattern.back() = {u.residual ? FfnKind::residual_moe : FfnKind::moe, u.experts};
  model::ModelConfig config = dense;
  config.blocks = {{n / u.every, pattern}};
  if (n % u.every > 0) config.blocks.push_back({n % u.every, {model::BlockSpec{}}});
  config.moe.top_k = u.top_k;
  config.moe.renormalise = moe::Renormalise::chosen;
  config.moe.drop = moe::DropPolicy::none;
  config.moe.choice_noise = moe::ChoiceNoise::none;
  config.moe.jitter = 0;
  config.moe.expert_hidden = config.moe.residual_hidden = 0;
  config.moe.residual_mix = moe::ResidualMix::softmax;
  return config;
}

}  // namespace ziggurat::hf
