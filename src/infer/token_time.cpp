#include <algorithm>
#include <cmath>

#include <ziggurat/infer/token_time.h>
#include <ziggurat/plan/exchange.h>
#include <ziggurat/plan/step_time.h>

namespace ziggurat::infer {

namespace {

using Kind = WorkItem::Kind;
constexpr int64_t kBytes = 2;  // of a bf16 number

double number(int64_t n) { return static_cast<double>(n); }

// Adds up what one rank does.
class Forward {
 public:
  Forward(const model::ModelConfig& config, const TokenTimeOptions& options, const ClusterConfig& cluster)
      : c_(config),
        options_(options),
        cluster_(cluster),
        placed_(model::place(config, options.layout, options.ranks)),
        tensor_(placed_.plan.tp().size),
        slice_(placed_.plan.expert_tp().size),
        rows_(options.texts * tensor_) {}

  TokenTime run() {
    for (const model::BlockSpec& layer : placed_.config.layers()) {
      attention();
      if (layer.ffn != model::FfnKind::moe) {
        mlp(layer.ffn == model::FfnKind::dense ? c_.ffn_width() : c_.residual_width());
      }
      if (layer.ffn != model::FfnKind::dense) experts(layer);
    }
    kernel("norms, sums and gates", rows_ * c_.hidden * 2);
    product("matrices but experts'", 1, rows_, c_.padded_vocab() / tensor_, c_.hidden);
    gather(rows_ * c_.padded_vocab() / tensor_ * 2, placed_.plan.tp());  // logits in f32
    for (const TokenTerm& term : time_.terms) time_.seconds += term.seconds;
    time_.tokens_per_second = number(options_.texts * options_.ranks) / time_.seconds;
    return time_;
  }

 private:
  TokenTerm& term(const std::string& name) {
    const auto found = std::find_if(time_.terms.begin(), time_.terms.end(),
                                    [&](const TokenTerm& t) { return t.name == name; });
    return found != time_.terms.end() ? *found : time_.terms.emplace_back(TokenTerm{.name = name});
  }

  void add(const std::string& name, const WorkItem& item) {
    TokenTerm& to = term(name);
    to.seconds += seconds_of(item, cluster_, {});
    to.bytes += item.bytes;
    ++to.count;
  }
  // That moves so many numbers.
  void kernel(const std::string& name, int64_t numbers) {
    add(name, {.kind = Kind::memory, .name = name, .bytes = number(kBytes * numbers)});
  }
  // m rows times `groups` matrices [n, k] that are read, of `held` that this rank has.
  void product(const std::string& name, double groups, int64_t m, int64_t n, int64_t k, int64_t held = 1) {
    WorkItem item{.kind = Kind::product, .name = name, .groups = held, .m = m, .n = n, .k = k};
    item.flops = 2 * number(m) * number(n) * number(k);
    item.bytes = number(kBytes) * (groups * number(n) * number(k) + number(m) * number(n + k));
    add(name, item);
    time_.memory += number(kBytes * held * n * k);
  }
  // All ranks of an axis get `numbers` of each.
  void gather(int64_t numbers, const RankAxis& axis) {
    if (axis.size == 1) return;
    const WorkItem item{.kind = Kind::collective,
                        .name = "all_gather",
                        .bytes = number(kBytes * numbers),
                        .along = axis.name,
                        .ranks = axis.size};
    TokenTerm& to = term("gathers of columns");
    to.seconds += std::max(seconds_of(item, cluster_, axis), cluster_.software.host_gap);
    to.bytes += item.bytes, to.count += axis.size - 1;
  }
  void exchange(int64_t numbers, const RankAxis& axis) {
    if (axis.size == 1) return;
    const auto way = options_.layout.all_to_all;
    const double bytes = number(kBytes * numbers);
    const auto seconds = [&](AllToAll w) { return exchange_seconds(bytes, axis, cluster_, w); };
    const bool by_nodes =
        way == AllToAll::hierarchical ||
        (way == AllToAll::automatic && seconds(AllToAll::hierarchical) < seconds(AllToAll::flat));
    const ExchangeMessages messages = messages_of_exchange(axis, cluster_.ranks_per_node, by_nodes);
    TokenTerm& to = term("all-to-alls");
    to.seconds += std::max(seconds(way), cluster_.software.host_gap);
    to.bytes += bytes, to.count += messages.inside + messages.between;
  }

  void attention() {
    const int64_t q = c_.heads * c_.head_width() / tensor_,
                  kv = std::max<int64_t>(1, c_.key_value_heads() / tensor_) * c_.head_width();
    kernel("norms, sums and gates", 2 * rows_ * c_.hidden);
    product("matrices but experts'", 1, rows_, q + 2 * kv, c_.hidden);
    kernel("keys and values", rows_ * 2 * kv * (options_.context + 1));
    gather(rows_ * q, placed_.plan.tp());
    product("matrices but experts'", 1, rows_, c_.hidden / tensor_, c_.heads * c_.head_width());
    gather(rows_ * c_.hidden / tensor_, placed_.plan.tp());
    kernel("norms, sums and gates", 3 * rows_ * c_.hidden);
    time_.memory += number(kBytes * rows_ * 2 * kv * options_.context);
  }

  void mlp(int64_t width) {
    const int64_t inner = nn::MlpShape{c_.activation}.matrices() - 1;
    kernel("norms, sums and gates", 2 * rows_ * c_.hidden);
    for (int64_t i = 0; i < inner; ++i) {
      product("matrices but experts'", 1, rows_, width / tensor_, c_.hidden);
    }
    gather(rows_ * width / tensor_, placed_.plan.tp());
    product("matrices but experts'", 1, rows_, c_.hidden / tensor_, width);
    gather(rows_ * c_.hidden / tensor_, placed_.plan.tp());
    kernel("norms, sums and gates", 3 * rows_ * c_.hidden);
  }

  void experts(const model::BlockSpec& layer) {
    const int ep = layer.expert_parallel;
    const RankAxis exchanged = placed_.plan.tokens_alike() ? placed_.plan.exchange(ep) : placed_.plan.ep(ep);
    const int64_t choices = rows_ * c_.moe.top_k, held = layer.experts / ep;
    // Rows of all teams whose tokens come to this copy of the experts, and this rank's share of them.
    const double teams = number(placed_.plan.dp().size) / number(placed_.plan.expert_dp(ep).size),
                 all = std::max(1.0, teams) * number(choices), mine = all / number(ep);
    const double read =
        cluster_.software.dense_dispatch ? 1.0 : 1 - std::pow(1 - 1 / number(layer.experts), all);
    const auto rows = static_cast<int64_t>(std::ceil(mine));

    product("norms, sums and gates", 1, rows_, layer.experts, c_.hidden);
    kernel("norms, sums and gates", 3 * rows_ * layer.experts);  // scores, choice and tables
    exchange(layer.experts * 2, exchanged);                      // counts
    kernel("norms, sums and gates", 2 * choices * c_.hidden);    // to rows of experts
    exchange(choices * c_.hidden, exchanged);
    const RankAxis& slices = placed_.plan.expert_tp();
    const int64_t inner = nn::MlpShape{c_.activation}.matrices() - 1, width = c_.expert_width();
    const double matrices = read * number(held);
    for (int64_t i = 0; i < inner; ++i) {
      product("experts", matrices, rows, width / slice_, c_.hidden, held);
    }
    gather(rows * width / slice_, slices);
    product("experts", matrices, rows, c_.hidden / slice_, width, held);
    gather(rows * c_.hidden / slice_, slices);
    exchange(choices * c_.hidden, exchanged);
    if (placed_.plan.tokens_alike() && tensor_ > slice_) gather(choices * c_.hidden, placed_.plan.fold());
    kernel("norms, sums and gates", 3 * choices * c_.hidden);  // weighted, and added
  }

  const model::ModelConfig& c_;
  const TokenTimeOptions& options_;
  const ClusterConfig& cluster_;
  const model::PlacedModel placed_;
  const int64_t tensor_, slice_, rows_;  // rows: of a team
  TokenTime time_;
};

}  // namespace

TokenTime time_of_token(const model::ModelConfig& config, const TokenTimeOptions& options,
                        const ClusterConfig& cluster) {
  check_ranks(cluster, options.ranks);
  return Forward(config, options, cluster).run();
}

}  // namespace ziggurat::infer
