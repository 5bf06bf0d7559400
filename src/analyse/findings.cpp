#include <algorithm>
#include <cmath>
#include <map>

#include <ziggurat/analyse/findings.h>

namespace ziggurat::analyse {

namespace {

int64_t tokens_of(const RoutedLayer& layer) {
  return layer.top_k == 0 ? 0 : static_cast<int64_t>(layer.expert.size()) / layer.top_k;
}

struct Choices {
  int64_t tokens = 0;
  std::vector<double> of_expert;  // how many went there

  std::vector<double> shares() const {
    double all = 0;
    for (const double n : of_expert) all += n;
    std::vector<double> out = of_expert;
    for (double& n : out) n = all > 0 ? n / all : 0;
    return out;
  }
};

// By kind, which is not negative; `counted`: the first so many choices of each token.
std::map<int32_t, Choices> by_kind(const RoutedLayer& layer, const std::vector<int32_t>& kind,
                                   int64_t counted) {
  std::map<int32_t, Choices> kinds;
  for (int64_t t = 0; t < tokens_of(layer); ++t) {
    const int32_t of_token = kind[static_cast<size_t>(t)];
    if (of_token < 0) continue;
    Choices& choices = kinds[of_token];
    choices.of_expert.resize(static_cast<size_t>(layer.experts));
    ++choices.tokens;
    for (int64_t j = 0; j < counted; ++j) {
      ++choices.of_expert[static_cast<size_t>(layer.expert[static_cast<size_t>(t * layer.top_k + j)])];
    }
  }
  return kinds;
}

// The mean of value(choices) over kinds with `least` tokens, and how many there are; of none it is no number.
template <class Value>
std::pair<double, int64_t> mean_over(const std::map<int32_t, Choices>& kinds, int64_t least,
                                     const Value& value) {
  double sum = 0;
  int64_t n = 0;
  for (const auto& [kind, choices] : kinds) {
    if (choices.tokens < least) continue;
    sum += value(kind, choices);
    ++n;
  }
  return {n == 0 ? NAN : sum / static_cast<double>(n), n};
}

}  // namespace

std::vector<double> loads(const RoutedLayer& layer) {
  const std::vector<int32_t> all(static_cast<size_t>(tokens_of(layer)), 0);
  const auto kinds = by_kind(layer, all, layer.top_k);
  return kinds.empty() ? std::vector<double>(static_cast<size_t>(layer.experts))
                       : kinds.begin()->second.shares();
}

Matrix loads_by_source(const RoutedTokens& routed, const RoutedLayer& layer, int64_t sources) {
  const auto kinds = by_kind(layer, routed.source, layer.top_k);
  Matrix out(static_cast<size_t>(sources), std::vector<double>(static_cast<size_t>(layer.experts)));
  for (const auto& [source, choices] : kinds) out.at(static_cast<size_t>(source)) = choices.shares();
  return out;
}

double drop_rate(const RoutedLayer& layer) {
  const auto dropped = std::count(layer.kept.begin(), layer.kept.end(), 0);
  return layer.kept.empty() ? 0 : static_cast<double>(dropped) / static_cast<double>(layer.kept.size());
}

std::vector<double> drop_by_position(const RoutedTokens& routed, const RoutedLayer& layer, int64_t length,
                                     int64_t bins) {
  std::vector<double> dropped(static_cast<size_t>(bins)), choices(static_cast<size_t>(bins));
  for (size_t c = 0; c < layer.kept.size(); ++c) {
    const int64_t position = routed.position[c / static_cast<size_t>(layer.top_k)];
    const auto bin = static_cast<size_t>(position * bins / length);
    choices.at(bin) += 1;
    dropped.at(bin) += layer.kept[c] == 0 ? 1 : 0;
  }
  for (size_t i = 0; i < dropped.size(); ++i) dropped[i] = choices[i] > 0 ? dropped[i] / choices[i] : 0;
  return dropped;
}

Deviation deviation_over_experts(const RoutedLayer& layer, const std::vector<int32_t>& kind, int64_t least) {
  const auto [deviation, kinds] =
      mean_over(by_kind(layer, kind, layer.top_k), least, [&](int32_t, const Choices& choices) {
        const double mean = 1.0 / static_cast<double>(layer.experts);
        double squares = 0;
        for (const double share : choices.shares()) squares += (share - mean) * (share - mean);
        return std::sqrt(squares / static_cast<double>(layer.experts));
      });
  return {deviation, kinds};
}

double specialisation(const RoutedLayer& layer, const std::vector<int32_t>& kind, int64_t least) {
  return mean_over(by_kind(layer, kind, 1), least,
                   [](int32_t, const Choices& choices) {
                     return *std::max_element(choices.of_expert.begin(), choices.of_expert.end()) /
                            static_cast<double>(choices.tokens);
                   })
      .first;
}

Matrix coactivation(const RoutedLayer& layer) {
  const auto experts = static_cast<size_t>(layer.experts), k = static_cast<size_t>(layer.top_k);
  Matrix pairs(experts, std::vector<double>(experts));
  std::vector<double> chosen(experts);
  for (size_t t = 0; t < static_cast<size_t>(tokens_of(layer)); ++t) {
    const int32_t* expert = layer.expert.data() + t * k;
    for (size_t i = 0; i < k; ++i) {
      chosen[static_cast<size_t>(expert[i])] += 1;
      for (size_t j = 0; j < k; ++j) {
        if (i != j) pairs[static_cast<size_t>(expert[i])][static_cast<size_t>(expert[j])] += 1;
      }
    }
  }
  for (size_t i = 0; i < experts; ++i) {
    for (double& n : pairs[i]) n = chosen[i] > 0 ? n / chosen[i] : 0;
  }
  return pairs;
}

std::vector<std::vector<OwnToken>> own_tokens(const RoutedTokens& routed, const RoutedLayer& layer,
                                              int64_t least, int64_t most) {
  std::vector<std::vector<OwnToken>> own(static_cast<size_t>(layer.experts));
  for (const auto& [token, choices] : by_kind(layer, routed.token, layer.top_k)) {
    if (choices.tokens < least) continue;
    const std::vector<double> shares = choices.shares();
    for (size_t e = 0; e < own.size(); ++e) own[e].push_back({token, shares[e], choices.tokens});
  }
  for (std::vector<OwnToken>& tokens : own) {
    std::sort(tokens.begin(), tokens.end(), [](const OwnToken& a, const OwnToken& b) {
      return std::tuple(-a.share, -a.count, a.token) < std::tuple(-b.share, -b.count, b.token);
    });
    if (static_cast<int64_t>(tokens.size()) > most) tokens.resize(static_cast<size_t>(most));
    std::erase_if(tokens, [](const OwnToken& t) { return t.share == 0; });
  }
  return own;
}

Saturation saturation(const RoutedLayer& at, const RoutedLayer& last) {
  check(at.expert.size() == last.expert.size() && at.top_k == last.top_k, ErrorKind::internal,
        "saturation: {} choices of {} and {} of {} are not of the same tokens", at.expert.size(), at.top_k,
        last.expert.size(), last.top_k);
  const auto k = static_cast<size_t>(at.top_k);
  double same = 0, same_first = 0;
  for (size_t t = 0; t * k < at.expert.size(); ++t) {
    const auto* const mine = at.expert.data() + t * k;
    const auto* const theirs = last.expert.data() + t * k;
    same_first += mine[0] == theirs[0] ? 1 : 0;
    for (size_t j = 0; j < k; ++j) same += std::find(theirs, theirs + k, mine[j]) != theirs + k ? 1 : 0;
  }
  const auto choices = static_cast<double>(std::max<size_t>(at.expert.size(), 1));
  return {same / choices, same_first * static_cast<double>(k) / choices};
}

double distance_of_tokens(const RoutedTokens& routed, const RoutedLayer& at, const RoutedLayer& last,
                          int64_t least) {
  const auto theirs = by_kind(last, routed.token, last.top_k);
  return mean_over(by_kind(at, routed.token, at.top_k), least,
                   [&](int32_t token, const Choices& choices) {
                     const std::vector<double> a = choices.shares(), b = theirs.at(token).shares();
                     double sum = 0;
                     for (size_t e = 0; e < a.size(); ++e) sum += std::abs(a[e] - b[e]);
                     return sum / 2;
                   })
      .first;
}

}  // namespace ziggurat::analyse
