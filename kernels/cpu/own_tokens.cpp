#include <algorithm>

#include <ziggurat/kernels/own_tokens.h>
#include <ziggurat/runtime/dry_run.h>

namespace ziggurat::kernels {

template <Device D>
void own_tokens(const OwnTokensArgs& g, Stream& stream) {
  const Span span(stream.profile(), "own_tokens");
  if (DryRun::on()) return;
  std::fill_n(g.row_of_choice, g.tokens * g.top_k, -1);
  int32_t rows = 0;
  for (int64_t e = 0; e < g.experts; ++e) {
    g.offsets[e] = rows;
    for (int32_t r = g.all_offsets[e]; r < g.all_offsets[e + 1]; ++r) {
      const int64_t token = g.all_token_of_row[r] - g.first;
      if (token < 0 || token >= g.tokens) continue;
      g.token_of_row[rows] = static_cast<int32_t>(token);
      g.choice_of_row[rows] = g.all_choice_of_row[r];
      g.row_of_choice[token * g.top_k + g.all_choice_of_row[r]] = rows++;
    }
    g.counts[e] = rows - g.offsets[e];
  }
  g.offsets[g.experts] = rows;
  std::fill(g.token_of_row + rows, g.token_of_row + g.rows, -1);
  std::fill(g.choice_of_row + rows, g.choice_of_row + g.rows, -1);
}

template void own_tokens<Device::cpu>(const OwnTokensArgs&, Stream&);

}  // namespace ziggurat::kernels
