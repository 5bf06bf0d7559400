// What is found in routed tokens. The measures are those of OpenMoE (arXiv 2402.01739, section 4 and appendix
// E) and of OLMoE (arXiv 2409.02060, section 5; its scripts/run_moe_analysis.py).
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/analyse/routed_tokens.h>

namespace ziggurat::analyse {

using Matrix = std::vector<std::vector<double>>;

// Share of all choices that went to each expert; they add up to 1.
std::vector<double> loads(const RoutedLayer& layer);
// The same of the tokens of each of `sources` texts (OpenMoE's E_i by domain).
Matrix loads_by_source(const RoutedTokens& routed, const RoutedLayer& layer, int64_t sources);

// Share of choices that found their expert full: of all, and by position, in `bins` equal parts of a sequence
// (OpenMoE: it grows towards the end).
double drop_rate(const RoutedLayer& layer);
std::vector<double> drop_by_position(const RoutedTokens& routed, const RoutedLayer& layer, int64_t length,
                                     int64_t bins);

// How differently tokens of one kind are treated: over experts the standard deviation of the shares of their
// choices, averaged over kinds of which there are at least `least` tokens (OpenMoE, appendix E). `kinds`
// counts those; without any `deviation` is no number.
struct Deviation {
  double deviation = 0;
  int64_t kinds = 0;
};
// `kind` [tokens], not negative: token ids, or positions.
Deviation deviation_over_experts(const RoutedLayer& layer, const std::vector<int32_t>& kind, int64_t least);

// Vocabulary specialisation (OLMoE, equation 5): the largest share that one expert has of the first choices
// of a kind, averaged over kinds of which there are at least `least` tokens; 1 / experts if nobody
// specialises. Negative kinds are left out; without any it is no number.
double specialisation(const RoutedLayer& layer, const std::vector<int32_t>& kind, int64_t least);

// P(j | i): of the tokens that chose expert i the share that also chose j (OLMoE, equation 4); all pairs of a
// token's choices count. The diagonal is 0.
Matrix coactivation(const RoutedLayer& layer);

// The tokens of which an expert has the largest share of the choices, best first.
struct OwnToken {
  int32_t token = 0;
  double share = 0;
  int64_t count = 0;  // how often it was read
};
std::vector<std::vector<OwnToken>> own_tokens(const RoutedTokens& routed, const RoutedLayer& layer,
                                              int64_t least, int64_t most);

// Router saturation (OLMoE, equation 3): the mean share of a token's choices that are those of the last
// checkpoint already, and the share of tokens whose first choice is. Both layers saw the same tokens.
struct Saturation {
  double top_k = 0, top_1 = 0;
};
Saturation saturation(const RoutedLayer& at, const RoutedLayer& last);

// Early learning (OpenMoE, figure 8): half the sum of differences between the shares with which a token id's
// choices go to the experts at one checkpoint and at the last, averaged over ids of which there are `least`
// tokens: 0 alike, 1 disjoint.
double distance_of_tokens(const RoutedTokens& routed, const RoutedLayer& at, const RoutedLayer& last,
                          int64_t least);

}  // namespace ziggurat::analyse
