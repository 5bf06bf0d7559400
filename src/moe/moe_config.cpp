#include <ziggurat/moe/moe_config.h>

namespace ziggurat::moe {

void MoeConfig::validate(Problems& problems) const {
  if (choice_noise == ChoiceNoise::rsample && top_k != 1) {
    problems.add("choice_noise", fmt::format("rsample needs top_k 1, got {}", top_k));
  }
  if (choice_noise == ChoiceNoise::second_expert && top_k != 2) {
    problems.add("choice_noise", fmt::format("second_expert needs top_k 2, got {}", top_k));
  }
}

void check_strict(const MoeConfig& config) {
  check(config.balance_scope != BalanceScope::global_batch, ErrorKind::config,
        "moe.balance_scope: global_batch counts the tokens of all ranks, so it depends on their number by "
        "definition; "
        "with reproducible: strict use micro_batch or sequence");
}

}  // namespace ziggurat::moe
