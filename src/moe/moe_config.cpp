#include <ziggurat/moe/moe_config.h>

namespace ziggurat::moe {

void check_strict(const MoeConfig& config) {
  check(config.balance_scope != BalanceScope::global_batch, ErrorKind::config,
        "moe.balance_scope: global_batch counts the tokens of all ranks, so it depends on their number by "
        "definition; "
        "with reproducible: strict use micro_batch or sequence");
}

}  // namespace ziggurat::moe
