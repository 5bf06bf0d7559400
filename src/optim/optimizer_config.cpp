#include <algorithm>

#include <fmt/format.h>

#include <ziggurat/config/problems.h>
#include <ziggurat/optim/optimizer_config.h>

namespace ziggurat {

void OptimizerConfig::validate(Problems& problems) const {
  const bool has_floor = schedule != LrScheduleKind::constant;
  if (has_floor && min_lr > lr)
    problems.add("min_lr", fmt::format("expected at most lr = {}, got {}", lr, min_lr));
  const bool decays = schedule == LrScheduleKind::cosine || schedule == LrScheduleKind::linear ||
                      schedule == LrScheduleKind::wsd;
  if (decays && decay_tokens < warmup_tokens) {
    problems.add("decay_tokens",
                 fmt::format("expected at least warmup_tokens = {}, got {}", warmup_tokens, decay_tokens));
  }
  if (schedule == LrScheduleKind::wsd &&
      (wsd_decay_tokens < 1 || wsd_decay_tokens > decay_tokens - warmup_tokens)) {
    problems.add("wsd_decay_tokens",
                 fmt::format("expected from 1 to decay_tokens - warmup_tokens = {}, got {}",
                             decay_tokens - warmup_tokens, wsd_decay_tokens));
  }
  if (schedule == LrScheduleKind::rsqrt && warmup_tokens < 1) {
    problems.add("warmup_tokens", "expected at least 1: schedule rsqrt falls from the end of the warm-up");
  }
  if (schedule == LrScheduleKind::flat_rsqrt && warmup_tokens < 1) {
    problems.add("warmup_tokens", "expected at least 1: schedule flat_rsqrt falls from there on");
  }
  for (size_t i = 0; i < clip_groups.size(); ++i) {
    const std::string& name = clip_groups[i].name;
    const auto is_named_so = [&](const ClipGroup& other) { return other.name == name; };
    const bool taken =
        name == kRestOfGradient ||
        std::any_of(clip_groups.begin(), clip_groups.begin() + static_cast<ptrdiff_t>(i), is_named_so);
    if (taken) {
      problems.add(fmt::format("clip_groups.{}.name", i),
                   fmt::format("expected a name of its own, {} is that of {}", name,
                               name == kRestOfGradient ? "all other parameters" : "an earlier group"));
    }
  }
  if (kind == OptimizerKind::adamw) return;
  for (const auto& [key, dtype] : {std::pair("moments", moments), {"masters", masters}}) {
    if (dtype == StateDtype::fp32) continue;
    problems.add(key, "bf16 is rounded by kind adamw only: remove it, or use that");
  }
}

void BatchRampupConfig::validate(Problems& problems) const {
  if (!enabled()) return;
  if (increment < 1) problems.add("increment", fmt::format("expected at least 1, got {}", increment));
  if (samples < 1) problems.add("samples", fmt::format("expected at least 1, got {}", samples));
}

}  // namespace ziggurat
