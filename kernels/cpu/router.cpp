#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <ziggurat/core/philox.h>
#include <ziggurat/kernels/router.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kTokens = 64;        // tokens a thread takes at once
constexpr int64_t kNoiseBlock = 4096;  // elements; a multiple of Philox's four

template <class Transform>
void fill_noise(const LatePhilox& stream, float* out, int64_t n, const Transform& transform) {
  parallel_for_blocks(n, kNoiseBlock, [&](int64_t begin, int64_t end) {
    const Philox rng = stream.now();
    for (int64_t i = begin; i < end; i += 4) {
      const Philox::Block bits = rng.block(static_cast<uint64_t>(i / 4));
      for (int64_t j = 0; j < std::min<int64_t>(4, end - i); ++j) {
        out[i + j] = transform(Philox::to_uniform(bits[static_cast<size_t>(j)]));
      }
    }
  });
}

// Tokens of each group of a balancing loss. No tokens may make up no groups.
int64_t group_length(int64_t tokens, int64_t groups) { return groups == 0 ? 0 : tokens / groups; }

// The largest value whose expert is not yet among chosen[0, taken); of equals, and of NaNs, the first.
template <class Value>
int32_t best_of_rest(int64_t experts, const int32_t* chosen, int64_t taken, const Value& value) {
  int32_t best = -1;
  for (int32_t e = 0; e < experts; ++e) {
    if (std::find(chosen, chosen + taken, e) != chosen + taken) continue;
    if (best < 0 || value(e) > value(best)) best = e;
  }
  return best;
}

// body(choice) for every choice = token * k + j of tokens [first, last), in slot order.
template <class Body>
void in_slot_order(int64_t first, int64_t last, int64_t k, SlotOrder order, const Body& body) {
  if (order == SlotOrder::token_first) {
    for (int64_t c = first * k; c < last * k; ++c) body(c);
    return;
  }
  for (int64_t j = 0; j < k; ++j) {
    for (int64_t s = first; s < last; ++s) body(s * k + j);
  }
}

// The same, group by group.
template <class T, class Body>
void in_slot_order(const RouterAssignArgs<T>& g, const Body& body) {
  const int64_t length = g.tokens / g.groups;
  for (int64_t group = 0; group < g.groups; ++group) {
    in_slot_order(group * length, (group + 1) * length, g.top_k, g.order, body);
  }
}

// Marks in `kept` the candidates of one expert in one group, a list in slot order, that keep their place.
// Returns how many do.
template <class T>
int64_t keep_best(const RouterAssignArgs<T>& g, int64_t expert, int32_t* candidates, int64_t n, bool* kept) {
  if (g.drop != DropPolicy::none && n > g.capacity) {
    const auto score = [&](int32_t choice) {
      const int64_t element = choice / g.top_k * g.experts + expert;
      const T value =
          g.drop == DropPolicy::random ? static_cast<T>(g.keys[element]) : g.probabilities[element];
      return value >= T(0) ? value : T(-1);  // a NaN has no order; it goes first
    };
    if (g.drop != DropPolicy::position) {  // equal scores: the lower choice stays
      std::nth_element(candidates, candidates + g.capacity, candidates + n, [&](int32_t a, int32_t b) {
        return score(a) > score(b) || (score(a) == score(b) && a < b);
      });
    }
    n = g.capacity;
  }
  for (int64_t i = 0; i < n; ++i) kept[candidates[i]] = true;
  return n;
}

}  // namespace

template <Device D, class T>
void router_softmax(const RouterSoftmaxArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_softmax");
  parallel_for_blocks(g.tokens, kTokens, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const T* z = g.logits + s * g.experts;
      T* p = g.probabilities + s * g.experts;
      const T top = *std::max_element(z, z + g.experts);
      T sum = 0;
      for (int64_t e = 0; e < g.experts; ++e) sum += p[e] = std::exp(z[e] - top);
      T mean_logit = 0;
      for (int64_t e = 0; e < g.experts; ++e) {
        p[e] /= sum;
        mean_logit += p[e] * (z[e] - top);
      }
      g.lse[s] = top + std::log(sum);
      g.entropy[s] = std::log(sum) - mean_logit;  // -sum p log p, with log p = z - lse
    }
  });
}

template <Device D, class T>
void router_sigmoid(const RouterSigmoidArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_sigmoid");
  parallel_for_blocks(g.tokens, kTokens, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const T* z = g.logits + s * g.experts;
      T* score = g.scores + s * g.experts;
      T sum = 0, entropy = 0;
      for (int64_t e = 0; e < g.experts; ++e) sum += score[e] = 1 / (1 + std::exp(-z[e]));
      for (int64_t e = 0; e < g.experts; ++e) {
        if (score[e] > 0) entropy -= score[e] / sum * std::log(score[e] / sum);
      }
      g.sum[s] = sum;
      g.entropy[s] = entropy;
    }
  });
}

template <Device D, class T>
void router_choose_limited(const RouterLimitedChoiceArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "router_choose_limited");
  const ArenaScope scope(workspace);
  const int64_t size = g.experts / g.groups, stride = g.experts + g.groups;
  const int64_t threads = thread_count();  // asked here: inside the loop there is one
  auto* const groups_of = workspace.take<int32_t>(threads * (g.chosen_groups + size));
  T* const values_of = workspace.take_on_device<T>(threads * stride);
  parallel_for_blocks(g.tokens, kTokens, [&](int64_t begin, int64_t end) {
    const int64_t thread = threads == 1 ? 0 : thread_index();
    T *const value = values_of + thread * stride, *const of_group = value + g.experts;
    int32_t *const chosen_groups = groups_of + thread * (g.chosen_groups + size), *const best =
                                                                                      chosen_groups +
                                                                                      g.chosen_groups;
    for (int64_t s = begin; s < end; ++s) {
      const T* score = g.scores + s * g.experts;
      int32_t* chosen = g.expert + s * g.top_k;
      for (int64_t e = 0; e < g.experts; ++e) value[e] = score[e] + (g.bias == nullptr ? T(0) : g.bias[e]);
      if (g.chosen_groups < g.groups) {
        for (int64_t group = 0; group < g.groups; ++group) {
          const T* const own = value + group * size;
          of_group[group] = 0;
          for (int64_t i = 0; i < std::min(g.best_of_group, size); ++i) {
            best[i] = best_of_rest(size, best, i, [&](int32_t e) { return own[e]; });
            of_group[group] += own[best[i]];
          }
        }
        for (int64_t i = 0; i < g.chosen_groups; ++i) {
          chosen_groups[i] =
              best_of_rest(g.groups, chosen_groups, i, [&](int32_t group) { return of_group[group]; });
        }
        for (int64_t e = 0; e < g.experts; ++e) {
          const auto group = static_cast<int32_t>(e / size);
          const auto* const end_of_chosen = chosen_groups + g.chosen_groups;
          if (std::find(static_cast<const int32_t*>(chosen_groups), end_of_chosen, group) == end_of_chosen) {
            value[e] = -std::numeric_limits<T>::infinity();
          }
        }
      }
      for (int64_t j = 0; j < g.top_k; ++j) {
        chosen[j] = best_of_rest(g.experts, chosen, j, [&](int32_t e) { return value[e]; });
      }
    }
  });
}

template <Device D, class T>
void router_choose(const RouterChooseArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_choose");
  parallel_for_blocks(g.tokens, kTokens, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const T* z = g.logits + s * g.experts;
      int32_t* chosen = g.expert + s * g.top_k;
      for (int64_t j = 0; j < g.top_k; ++j) {
        const bool noisy =
            g.noise == ChoiceNoise::rsample || (g.noise == ChoiceNoise::second_expert && j == 1);
        if (noisy) {
          const float* gumbel = g.gumbel + s * g.experts;
          chosen[j] = best_of_rest(g.experts, chosen, j, [&](int32_t e) { return z[e] + T(gumbel[e]); });
        } else {
          chosen[j] = best_of_rest(g.experts, chosen, j, [&](int32_t e) { return z[e]; });
        }
      }
    }
  });
}

template <Device D, class T>
void router_assign(const RouterAssignArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "router_assign");
  const ArenaScope scope(workspace);
  const int64_t choices = g.tokens * g.top_k;
  auto* begin = workspace.take<int64_t>(g.experts + 1);
  auto* next = workspace.take<int64_t>(g.experts);
  auto* candidates = workspace.take<int32_t>(choices);
  auto* kept = workspace.take<bool>(choices);
  if (DryRun::on()) return;
  std::fill(g.counts_before, g.counts_before + g.experts, 0);
  for (int64_t c = 0; c < choices; ++c) ++g.counts_before[g.expert[c]];

  // The choices sorted by expert, in slot order.
  begin[0] = 0;
  std::partial_sum(g.counts_before, g.counts_before + g.experts, begin + 1);
  std::copy(begin, begin + g.experts, next);
  in_slot_order(g, [&](int64_t c) { candidates[next[g.expert[c]]++] = static_cast<int32_t>(c); });

  std::fill(kept, kept + choices, false);
  // Of a few texts that are written the tables are made in a microsecond: less than a loop of threads takes.
  const bool few = choices <= kTokens;
  const auto keep_of_expert = [&](int64_t e) {
    const int64_t group_choices = g.tokens / g.groups * g.top_k;
    int32_t *at = candidates + begin[e], *const last = candidates + begin[e + 1];
    g.counts[e] = 0;
    for (int64_t group = 0; group < g.groups; ++group) {
      int32_t* const end = g.groups == 1 ? last : std::find_if(at, last, [&](int32_t choice) {
        return choice >= (group + 1) * group_choices;
      });
      g.counts[e] += static_cast<int32_t>(keep_best(g, e, at, end - at, kept));
      at = end;
    }
  };
  if (few) {
    for (int64_t e = 0; e < g.experts; ++e) keep_of_expert(e);
  } else {
    parallel_for(g.experts, keep_of_expert);
  }

  g.offsets[0] = 0;
  std::partial_sum(g.counts, g.counts + g.experts, g.offsets + 1);
  std::copy(g.offsets, g.offsets + g.experts, next);
  in_slot_order(g, [&](int64_t c) {
    g.row_of_choice[c] = -1;
    if (!kept[c]) return;
    const int64_t row = next[g.expert[c]]++;
    g.row_of_choice[c] = static_cast<int32_t>(row);
    g.token_of_row[row] = static_cast<int32_t>(c / g.top_k);
    g.choice_of_row[row] = static_cast<int32_t>(c % g.top_k);
  });
  for (int32_t* table : {g.token_of_row, g.choice_of_row}) {
    std::fill(table + g.offsets[g.experts], table + g.rows, -1);
  }
}

namespace {

// What a token's probabilities are divided by; 1 without renormalisation.
template <class T>
T weight_divisor(const RouterWeightArgs<T>& g, int64_t s) {
  if (g.renormalise == Renormalise::none) return T(1);
  T sum = 0;
  for (int64_t j = 0; j < g.top_k; ++j) {
    const int64_t c = s * g.top_k + j;
    const bool counts = g.renormalise == Renormalise::chosen || g.row_of_choice[c] >= 0;
    if (counts) sum += g.probabilities[s * g.experts + g.expert[c]];
  }
  return std::max(sum, std::numeric_limits<T>::epsilon());
}

}  // namespace

template <Device D, class T>
void router_weights(const RouterWeightArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_weights");
  parallel_for_blocks(g.tokens, kTokens, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const T divisor = weight_divisor(g, s);
      for (int64_t j = 0; j < g.top_k; ++j) {
        const int64_t c = s * g.top_k + j;
        const T p = g.probabilities[s * g.experts + g.expert[c]];
        g.weights[c] = g.row_of_choice[c] < 0 ? T(0) : g.scale * p / divisor;
      }
    }
  });
}

template <Device D, class T>
void router_means(const RouterMeanArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_means");
  const int64_t length = group_length(g.tokens, g.groups);
  parallel_for(g.groups, [&](int64_t group) {
    double* mean = g.mean_probability + group * g.experts;
    double* fraction = g.fraction + group * g.experts;
    std::fill(mean, mean + g.experts, 0.0);
    std::fill(fraction, fraction + g.experts, 0.0);
    for (int64_t s = group * length; s < (group + 1) * length; ++s) {
      const T divisor = g.sum == nullptr ? T(1) : g.sum[s];
      for (int64_t e = 0; e < g.experts; ++e)
        mean[e] += static_cast<double>(g.probabilities[s * g.experts + e] / divisor);
      for (int64_t j = 0; j < g.counted_choices; ++j) fraction[g.expert[s * g.top_k + j]] += 1;
    }
    const double tokens = static_cast<double>(std::max<int64_t>(length, 1));
    for (int64_t e = 0; e < g.experts; ++e) {
      mean[e] /= tokens;
      fraction[e] /= tokens * static_cast<double>(g.counted_choices);
    }
  });
}

template <Device D, class T>
void router_token_losses(const RouterTokenLossArgs<T>& g, Stream& stream) {
  const Span span(stream.profile(), "router_token_losses");
  if (DryRun::on()) return;
  double z = 0, entropy = 0;
  for (int64_t s = 0; s < g.tokens; ++s) {
    const double lse = g.lse == nullptr ? 0.0 : static_cast<double>(g.lse[s]);
    z += lse * lse;
    entropy += static_cast<double>(g.entropy[s]);
  }
  const auto tokens = static_cast<double>(g.tokens);
  g.losses->z = g.tokens == 0 ? 0 : z / tokens;
  g.losses->entropy = g.tokens == 0 ? 0 : entropy / tokens;
}

template <Device D>
void router_balance(const RouterBalanceArgs& g, Stream& stream) {
  const Span span(stream.profile(), "router_balance");
  if (DryRun::on()) return;
  double sum = 0;
  for (int64_t i = 0; i < g.groups * g.experts; ++i) sum += g.fraction[i] * g.mean_probability[i];
  g.losses->balance =
      g.groups == 0 ? 0 : sum * static_cast<double>(g.experts) / static_cast<double>(g.groups);
}

template <Device D>
void router_assignments(const double* fraction, int64_t experts, int64_t tokens, double* assignments,
                        Stream& stream) {
  const Span span(stream.profile(), "router_assignments");
  if (DryRun::on()) return;
  for (int64_t e = 0; e < experts; ++e) assignments[e] = fraction[e] * static_cast<double>(tokens);
}

template <Device D>
void router_fractions(const RouterFractionArgs& g, Stream& stream) {
  const Span span(stream.profile(), "router_fractions");
  if (DryRun::on()) return;
  double total = 0;
  for (int64_t e = 0; e < g.experts; ++e) {
    if (g.first) g.of_step[e] = 0;
    if (g.assignments != nullptr) g.of_step[e] += g.assignments[e];
    total += g.of_step[e];
  }
  for (int64_t e = 0; e < g.experts; ++e) g.fraction[e] = g.of_step[e] / std::max(total, 1.0);
}

template <Device D>
void router_statistics(const RouterStatisticsArgs& g, Stream& stream) {
  const Span span(stream.profile(), "router_statistics");
  if (DryRun::on()) return;
  auto& sums = *reinterpret_cast<RouterSums*>(g.sums);
  const auto tokens = static_cast<double>(g.tokens);
  sums.tokens += tokens;
  sums.choices += tokens * static_cast<double>(g.top_k);
  sums.micro_batches += 1;
  sums.entropy += g.losses->entropy * tokens;
  sums.balance += g.losses->balance;
  sums.z += g.losses->z;
  sums.latest_balance = g.balance_coefficient * g.losses->balance;
  sums.latest_z = g.z_coefficient * g.losses->z;
  double* before = g.sums + router_sums_size(0);
  for (int64_t e = 0; e < g.experts; ++e) {
    before[e] += g.counts_before[e];
    before[g.experts + e] += g.counts[e];
  }
}

template <Device D>
void router_add_losses(const double* sums, double* total, Stream& stream) {
  const Span span(stream.profile(), "router_add_losses");
  if (DryRun::on()) return;
  total[0] += reinterpret_cast<const RouterSums*>(sums)->latest_balance;
  total[1] += reinterpret_cast<const RouterSums*>(sums)->latest_z;
}

template <Device D>
void router_loads(const double* sums, int64_t experts, double* loads, Stream& stream) {
  const Span span(stream.profile(), "router_loads");
  if (DryRun::on()) return;
  const double* before = sums + router_sums_size(0);
  std::copy(before, before + experts, loads);
}

template <Device D, class T>
void router_move_bias(const double* loads, int64_t experts, double rate, T* bias, Stream& stream) {
  const Span span(stream.profile(), "router_move_bias");
  if (DryRun::on()) return;
  const double mean = std::accumulate(loads, loads + experts, 0.0) / static_cast<double>(experts);
  for (int64_t e = 0; e < experts; ++e) {
    if (loads[e] != mean) bias[e] += T(loads[e] < mean ? rate : -rate);
  }
}

template <Device D, class T>
void router_backward(const RouterGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "router_backward");
  const RouterWeightArgs<T>& f = g.forward;
  const ArenaScope scope(workspace);
  T* dp_all = workspace.take_on_device<T>(f.tokens * f.experts);
  const int64_t length = std::max<int64_t>(group_length(f.tokens, g.groups), 1);
  const double per_token = 1.0 / static_cast<double>(std::max<int64_t>(f.tokens, 1));
  parallel_for_blocks(f.tokens, kTokens, [&](int64_t begin, int64_t end) {
    const double scale = *g.loss_scale;
    const double balance = g.balance_coefficient * scale * static_cast<double>(f.experts) * per_token;
    for (int64_t s = begin; s < end; ++s) {
      const T* p = f.probabilities + s * f.experts;
      T* dp = dp_all + s * f.experts;
      // d balance / dp_se = E fraction_e / S
      const double* fraction = g.fraction + s / length * f.experts;
      for (int64_t e = 0; e < f.experts; ++e) dp[e] = balance == 0 ? T(0) : T(balance * fraction[e]);
      if (g.score == RouterScore::sigmoid) {  // n = s / sum:  ds_e = (dn_e - sum_i n_i dn_i) / sum
        const T sum = g.lse[s];
        T n_dn = 0;
        for (int64_t e = 0; e < f.experts; ++e) n_dn += p[e] / sum * dp[e];
        for (int64_t e = 0; e < f.experts; ++e) dp[e] = (dp[e] - n_dn) / sum;
      }

      // w_j = kept_j p_j / q, q the sum over the counted choices:  dp_j += (kept_j dw_j - counted_j sum_i
      // dw_i w_i) / q
      const T q = weight_divisor(f, s);
      const bool clamped = q <= std::numeric_limits<T>::epsilon();  // then q is a constant
      T dw_w = 0;
      for (int64_t j = 0; j < f.top_k; ++j) dw_w += g.dweights[s * f.top_k + j] * f.weights[s * f.top_k + j];
      for (int64_t j = 0; j < f.top_k; ++j) {
        const int64_t c = s * f.top_k + j;
        const bool kept = f.row_of_choice[c] >= 0;
        const bool counted = !clamped && (f.renormalise == Renormalise::chosen ||
                                          (f.renormalise == Renormalise::survivors && kept));
        dp[f.expert[c]] += ((kept ? f.scale * g.dweights[c] : T(0)) - (counted ? dw_w : T(0))) / q;
      }
      T* dlogits = g.dlogits + s * f.experts;
      if (g.score == RouterScore::sigmoid) {
        for (int64_t e = 0; e < f.experts; ++e) {
          const T d = p[e] * (1 - p[e]) * dp[e];
          dlogits[e] = g.accumulate ? dlogits[e] + d : d;
        }
        continue;
      }

      // dlogit_e = p_e (dp_e - sum_i p_i dp_i) + z_coefficient 2 lse p_e / S
      T dot = 0;
      for (int64_t e = 0; e < f.experts; ++e) dot += p[e] * dp[e];
      const T z = T(g.z_coefficient * scale * 2 * per_token) * g.lse[s];
      for (int64_t e = 0; e < f.experts; ++e) {
        const T d = p[e] * (dp[e] - dot + z);
        dlogits[e] = g.accumulate ? dlogits[e] + d : d;
      }
    }
  });
}

template <Device D>
void router_keys(const RouterNoise& noise, float* keys, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "router_keys");
  fill_noise(LatePhilox(noise.seed, Purpose::token_selection, noise.layer, noise.moment), keys, n,
             [](float u) { return u; });
}

template <Device D>
void router_gumbel(const RouterNoise& noise, float* gumbel, int64_t n, Stream& stream) {
  const Span span(stream.profile(), "router_gumbel");
  fill_noise(LatePhilox(noise.seed, Purpose::router_gumbel, noise.layer, noise.moment), gumbel, n,
             [](float u) { return -std::log(-std::log(u)); });
}

template void router_softmax<Device::cpu>(const RouterSoftmaxArgs<float>&, Stream&);
template void router_softmax<Device::cpu>(const RouterSoftmaxArgs<double>&, Stream&);
template void router_sigmoid<Device::cpu>(const RouterSigmoidArgs<float>&, Stream&);
template void router_sigmoid<Device::cpu>(const RouterSigmoidArgs<double>&, Stream&);
template void router_choose_limited<Device::cpu>(const RouterLimitedChoiceArgs<float>&, Arena&, Stream&);
template void router_choose_limited<Device::cpu>(const RouterLimitedChoiceArgs<double>&, Arena&, Stream&);
template void router_loads<Device::cpu>(const double*, int64_t, double*, Stream&);
template void router_move_bias<Device::cpu>(const double*, int64_t, double, float*, Stream&);
template void router_move_bias<Device::cpu>(const double*, int64_t, double, double*, Stream&);
template void router_choose<Device::cpu>(const RouterChooseArgs<float>&, Stream&);
template void router_choose<Device::cpu>(const RouterChooseArgs<double>&, Stream&);
template void router_assign<Device::cpu>(const RouterAssignArgs<float>&, Arena&, Stream&);
template void router_assign<Device::cpu>(const RouterAssignArgs<double>&, Arena&, Stream&);
template void router_weights<Device::cpu>(const RouterWeightArgs<float>&, Stream&);
template void router_weights<Device::cpu>(const RouterWeightArgs<double>&, Stream&);
template void router_means<Device::cpu>(const RouterMeanArgs<float>&, Stream&);
template void router_means<Device::cpu>(const RouterMeanArgs<double>&, Stream&);
template void router_token_losses<Device::cpu>(const RouterTokenLossArgs<float>&, Stream&);
template void router_token_losses<Device::cpu>(const RouterTokenLossArgs<double>&, Stream&);
template void router_balance<Device::cpu>(const RouterBalanceArgs&, Stream&);
template void router_assignments<Device::cpu>(const double*, int64_t, int64_t, double*, Stream&);
template void router_fractions<Device::cpu>(const RouterFractionArgs&, Stream&);
template void router_statistics<Device::cpu>(const RouterStatisticsArgs&, Stream&);
template void router_add_losses<Device::cpu>(const double*, double*, Stream&);
template void router_backward<Device::cpu>(const RouterGradArgs<float>&, Arena&, Stream&);
template void router_backward<Device::cpu>(const RouterGradArgs<double>&, Arena&, Stream&);
template void router_keys<Device::cpu>(const RouterNoise&, float*, int64_t, Stream&);
template void router_gumbel<Device::cpu>(const RouterNoise&, float*, int64_t, Stream&);

}  // namespace ziggurat::kernels
