#include <algorithm>
#include <cmath>
#include <limits>

#include <ziggurat/ops/router.h>

namespace ziggurat::ops {

namespace {

void check_args(const Tensor& logits, const RouterArgs& args) {
  check(logits.rank() == 2 && (logits.dtype() == DType::f32 || logits.dtype() == DType::f64),
        ErrorKind::argument, "[router] expected f32 logits [S, E], got {} {}", to_string(logits.dtype()),
        logits.shape());
  check(logits.device() != Device::cuda, ErrorKind::device,
        "[router] there are kernels for cuda, but routing reads its tables on the host: run on the CPU");
  const int64_t tokens = logits.dim(0), experts = logits.dim(1);
  check(1 <= args.top_k && args.top_k <= experts, ErrorKind::argument,
        "[router] top_k must be in [1, {}], the number of experts, got {}", experts, args.top_k);
  check(tokens * args.top_k <= std::numeric_limits<int32_t>::max(), ErrorKind::argument,
        "[router] {} tokens x top_k {} do not fit 32-bit tables: use a smaller micro-batch", tokens,
        args.top_k);
  check(args.drop == DropPolicy::none || args.capacity_factor > 0, ErrorKind::argument,
        "[router] capacity_factor must be positive, got {}; for no drops choose the drop policy none",
        args.capacity_factor);
  check(args.noise != ChoiceNoise::rsample || args.top_k == 1, ErrorKind::argument,
        "[router] rsample noise needs top_k 1, got {}", args.top_k);
  check(args.noise != ChoiceNoise::second_expert || args.top_k == 2, ErrorKind::argument,
        "[router] second_expert noise needs top_k 2, got {}", args.top_k);
  const int64_t length = args.sequence_length;
  check(args.balance_scope != BalanceScope::sequence || (length > 0 && tokens % length == 0),
        ErrorKind::argument, "[router] {} tokens are not a multiple of the sequence length {}", tokens,
        length);
}

template <class T>
double mean(const T* values, int64_t n, double (*f)(double)) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += f(static_cast<double>(values[i]));
  return n == 0 ? 0 : sum / static_cast<double>(n);
}

}  // namespace

int64_t expert_capacity(const RouterArgs& args, double factor, int64_t tokens, int64_t experts) {
  const auto share = static_cast<float>(static_cast<double>(tokens) / static_cast<double>(experts));
  const float wanted = args.capacity_rule == CapacityRule::with_top_k
                           ? std::ceil(share * static_cast<float>(factor * static_cast<double>(args.top_k)))
                           : std::nearbyint(share * static_cast<float>(factor));
  const float fits = std::min(wanted, static_cast<float>(tokens));  // a huge factor must not overflow
  return std::min(std::max(static_cast<int64_t>(fits), args.min_capacity), tokens);
}

double Routing::balance() const {
  double sum = 0;
  for (int64_t i = 0; i < groups * experts; ++i) sum += fraction[i] * mean_probability[i];
  return groups == 0 ? 0 : sum * static_cast<double>(experts) / static_cast<double>(groups);
}

Routing route(Tape& tape, Var logits, const RouterArgs& args) {
  check_args(logits.value(), args);
  const MicroBatch& moment = tape.micro_batch();
  const int64_t tokens = logits.dim(0), experts = logits.dim(1), k = args.top_k, choices = tokens * k;
  const ChoiceNoise noise = moment.training ? args.noise : ChoiceNoise::none;
  const double factor = moment.training ? args.capacity_factor : args.eval_capacity_factor;
  const DropPolicy eval_drop = factor > 0 ? DropPolicy::position : DropPolicy::none;
  const DropPolicy capacity_drop = moment.training || args.drop == DropPolicy::none ? args.drop : eval_drop;
  const DropPolicy drop = moment.dropless ? DropPolicy::none : capacity_drop;
  const int64_t capacity = drop == DropPolicy::none ? tokens : expert_capacity(args, factor, tokens, experts);

  Routing r;
  r.tokens = tokens, r.experts = experts, r.top_k = k, r.capacity = capacity;
  r.groups = args.balance_scope == BalanceScope::sequence ? tokens / args.sequence_length : 1;
  r.weights = tape.output(logits.dtype(), {tokens, k}, logits.wants_grad());
  r.rows = std::min(choices, experts * capacity);  // at most; exactly known below
  // The tables stay for dispatch and backward; probabilities and lse are what the softmax's derivative needs.
  auto* expert = tape.save_array<int32_t>(choices);
  auto* row_of_choice = tape.save_array<int32_t>(choices);
  auto* token_of_row = tape.save_array<int32_t>(choices);
  auto* choice_of_row = tape.save_array<int32_t>(choices);
  auto* counts = tape.save_array<int64_t>(experts);
  auto* counts_before = tape.save_array<int64_t>(experts);
  auto* mean_probability = tape.save_array<double>(r.groups * experts);
  r.fraction = tape.save_array<double>(r.groups * experts);
  const Tensor probabilities = tape.save(logits.dtype(), {tokens, experts});
  const Tensor lse = tape.save(logits.dtype(), {tokens});
  r.expert = expert, r.row_of_choice = row_of_choice, r.token_of_row = token_of_row;
  r.choice_of_row = choice_of_row, r.counts = counts, r.counts_before = counts_before;
  r.mean_probability = mean_probability;

  const auto assign = [&]<Device D, class T>() {
    if constexpr (!std::is_same_v<T, bf16>) {
      Stream& stream = tape.stream();
      const ArenaScope scope(tape.workspace());
      const auto floats = [&](const float* given, bool wanted, auto fill) -> const float* {
        if (given != nullptr || !wanted) return given;
        auto* made = allocate(tape.workspace(), DType::f32, {tokens, experts}).template data<float>();
        fill(kernels::RouterNoise{moment.seed, args.layer, moment.moment()}, made, tokens * experts, stream);
        return made;
      };
      const float* gumbel = floats(args.gumbel, noise != ChoiceNoise::none, kernels::router_gumbel<D>);
      const float* keys = floats(args.keys, drop == DropPolicy::random, kernels::router_keys<D>);
      T* entropy = allocate(tape.workspace(), logits.dtype(), {tokens}).template data<T>();
      const T *z = logits.value().data<T>(), *p = probabilities.data<T>();

      kernels::router_softmax<D>(
          kernels::RouterSoftmaxArgs<T>{tokens, experts, z, probabilities.data<T>(), lse.data<T>(), entropy},
          stream);
      kernels::router_choose<D>(kernels::RouterChooseArgs<T>{tokens, experts, k, noise, z, gumbel, expert},
                                stream);
      kernels::router_assign<D>(
          kernels::RouterAssignArgs<T>{tokens, experts, k, drop, args.order, capacity, expert, keys, p,
                                       counts_before, counts, row_of_choice, token_of_row, choice_of_row},
          tape.workspace(), stream);
      kernels::router_weights<D>(kernels::RouterWeightArgs<T>{tokens, experts, k, args.renormalise, p, expert,
                                                              row_of_choice, r.weights.value().data<T>()},
                                 stream);
      const int64_t counted = args.balance_count == BalanceCount::first_choice ? 1 : k;
      kernels::router_means<D>(kernels::RouterMeanArgs<T>{tokens, experts, k, r.groups, counted, p, expert,
                                                          mean_probability, r.fraction},
                               stream);
      r.rows = 0;
      for (int64_t e = 0; e < experts; ++e) r.rows += counts[e];
      if (drop == DropPolicy::none) r.capacity = *std::max_element(counts, counts + experts);
      r.z = mean(lse.data<T>(), tokens, [](double x) { return x * x; });
      r.entropy = mean(entropy, tokens, [](double x) { return x; });
    }
  };
  if (logits.value().device() == Device::meta) {  // planning: every expert gets its share
    for (int64_t e = 0; e < experts; ++e) {
      counts[e] = counts_before[e] = r.rows / experts + (e < r.rows % experts ? 1 : 0);
    }
    std::fill(r.fraction, r.fraction + r.groups * experts, 0.0);
    std::fill(mean_probability, mean_probability + r.groups * experts, 0.0);
  } else {
    visit_kernels<kernels::RouterKernels>(logits.value(), assign);
  }

  // The losses' gradients must arrive even if nobody used the weights: the weights' gradient starts as zeros.
  const bool has_loss = args.balance_coefficient != 0 || args.z_coefficient != 0;
  if (const GradSlot start = has_loss ? tape.grad_slot(r.weights) : GradSlot{})
    fill_zero(start.grad, tape.stream());

  tape.record(r.weights, [=, renormalise = args.renormalise, balance = args.balance_coefficient,
                          z = args.z_coefficient](Tape& t, const Tensor& dweights) {
    const GradSlot dlogits = t.grad_slot(logits);
    visit_kernels<kernels::RouterKernels>(dweights, [&]<Device D, class T>() {
      if constexpr (!std::is_same_v<T, bf16>) {
        const kernels::RouterWeightArgs<T> forward{tokens,
                                                   experts,
                                                   k,
                                                   renormalise,
                                                   probabilities.data<T>(),
                                                   expert,
                                                   row_of_choice,
                                                   r.weights.value().data<T>()};
        // dlogits = softmax'(dp), dp from the weights and from E fraction / S; + z 2 lse p / S
        kernels::router_backward<D>(
            kernels::RouterGradArgs<T>{forward, r.groups, dweights.data<T>(), lse.data<T>(), r.fraction,
                                       balance, z, dlogits.accumulate, dlogits.grad.data<T>()},
            t.workspace(), t.stream());
      }
    });
  });
  return r;
}

}  // namespace ziggurat::ops
