#include <algorithm>
#include <cmath>
#include <limits>

#include <ziggurat/autograd/note_work.h>
#include <ziggurat/kernels/expert_blocks.h>
#include <ziggurat/kernels/own_tokens.h>
#include <ziggurat/ops/router.h>
#include <ziggurat/ops/shard_rows.h>

namespace ziggurat::ops {

namespace {

void check_args(const Tensor& logits, const RouterArgs& args) {
  check(logits.rank() == 2 && (logits.dtype() == DType::f32 || logits.dtype() == DType::f64),
        ErrorKind::argument, "[router] expected f32 logits [S, E], got {} {}", to_string(logits.dtype()),
        logits.shape());
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
  check(args.expert_groups >= 1 && experts % args.expert_groups == 0 && args.chosen_groups >= 1 &&
            args.chosen_groups <= args.expert_groups &&
            args.top_k <= experts / args.expert_groups * args.chosen_groups,
        ErrorKind::argument,
        "[router] top-{} of {} experts cannot come from {} of {} groups: expected groups of equal size with "
        "room for them",
        args.top_k, experts, args.chosen_groups, args.expert_groups);
  check(!args.choice_bias ||
            (args.choice_bias.shape() == Shape{experts} && args.choice_bias.dtype() == logits.dtype()),
        ErrorKind::argument, "[router] expected a bias {} [{}], got {} {}", to_string(logits.dtype()),
        experts, to_string(args.choice_bias.dtype()), args.choice_bias.shape());
  check(args.score == RouterScore::softmax || args.z_coefficient == 0, ErrorKind::argument,
        "[router] the z-loss is of softmax's normaliser, which sigmoid scores do not have");
  check(args.noise == ChoiceNoise::none ||
            (args.score == RouterScore::softmax && args.expert_groups == 1 && !args.choice_bias),
        ErrorKind::argument, "[router] noise of the choice is for a plain softmax router");
  const int64_t length = args.sequence_length;
  check(args.balance_scope != BalanceScope::sequence || (length > 0 && tokens % length == 0),
        ErrorKind::argument, "[router] {} tokens are not a multiple of the sequence length {}", tokens,
        length);
}

kernels::RouterLosses* losses_of(const Routing& routing) {
  return static_cast<kernels::RouterLosses*>(routing.losses.raw());
}

// From the routing's fractions.
void compute_balance(Tape& tape, const Routing& r) {
  visit_kernels<kernels::RouterSumKernels>(r.losses, [&]<Device D, class T>() {
    kernels::router_balance<D>(
        {r.experts, r.groups, r.fraction.data<double>(), r.mean_probability.data<double>(), losses_of(r)},
        tape.stream());
  });
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

Routing route(Tape& tape, Var logits, const RouterArgs& args) {
  check_args(logits.value(), args);
  const MicroBatch& moment = tape.micro_batch();
  const int64_t tokens = logits.dim(0), experts = logits.dim(1), k = args.top_k, choices = tokens * k;
  const ChoiceNoise noise = moment.training ? args.noise : ChoiceNoise::none;
  const double factor = moment.training ? args.capacity_factor : args.eval_capacity_factor;
  const DropPolicy eval_drop = factor > 0 ? DropPolicy::position : DropPolicy::none;
  const DropPolicy capacity_drop = moment.training || args.drop == DropPolicy::none ? args.drop : eval_drop;
  const DropPolicy drop = moment.dropless ? DropPolicy::none : capacity_drop;
  // A batch of evaluation may hold fewer sequences: it is one group then.
  const int64_t groups =
      args.group_tokens > 0 && tokens > 0 && tokens % args.group_tokens == 0 ? tokens / args.group_tokens : 1;
  const int64_t of_group =
      drop == DropPolicy::none ? tokens : expert_capacity(args, factor, tokens / groups, experts);
  const int64_t capacity = drop == DropPolicy::none ? tokens : groups * of_group;

  Routing r;
  r.tokens = tokens, r.experts = experts, r.top_k = k, r.capacity = capacity;
  r.groups = args.balance_scope == BalanceScope::sequence ? tokens / args.sequence_length
             : args.balance_scope == BalanceScope::group  ? groups
                                                          : 1;
  r.weights = tape.output(logits.dtype(), {tokens, k}, logits.wants_grad());
  r.rows = std::min(choices, experts * capacity);
  // The tables stay for dispatch and backward; probabilities and lse are what the softmax's derivative needs.
  r.expert = tape.save(DType::i32, {tokens, k});
  r.row_of_choice = tape.save(DType::i32, {tokens, k});
  r.token_of_row = tape.save(DType::i32, {r.rows});
  r.choice_of_row = tape.save(DType::i32, {r.rows});
  r.counts = tape.save(DType::i32, {experts});
  r.counts_before = tape.save(DType::i32, {experts});
  r.offsets = tape.save(DType::i32, {experts + 1});
  r.mean_probability = tape.save(DType::f64, {r.groups, experts});
  r.fraction = tape.save(DType::f64, {r.groups, experts});
  r.losses = tape.save(DType::f64, {int64_t{sizeof(kernels::RouterLosses) / sizeof(double)}});
  const Tensor probabilities = tape.save(logits.dtype(), {tokens, experts});
  const Tensor lse = tape.save(logits.dtype(), {tokens});
  int32_t *const expert = r.expert.data<int32_t>(), *const row_of_choice = r.row_of_choice.data<int32_t>();

  const auto assign = [&]<Device D, class T>() {
    if constexpr (!std::is_same_v<T, bf16>) {
      Stream& stream = tape.stream();
      const ArenaScope scope(tape.workspace());
      const auto floats = [&](const float* given, bool wanted, auto fill) -> const float* {
        if (given != nullptr || !wanted) return given;
        auto* made = allocate(tape.workspace(), DType::f32, {tokens, experts}).template data<float>();
        fill(kernels::RouterNoise{moment.seed, args.layer, &tape.numbers()->moment}, made, tokens * experts,
             stream);
        return made;
      };
      const float* gumbel = floats(args.gumbel, noise != ChoiceNoise::none, kernels::router_gumbel<D>);
      const float* keys = floats(args.keys, drop == DropPolicy::random, kernels::router_keys<D>);
      T* entropy = allocate(tape.workspace(), logits.dtype(), {tokens}).template data<T>();
      const T *z = logits.value().data<T>(), *p = probabilities.data<T>();

      const bool limited = args.expert_groups > 1 || args.choice_bias;
      const bool sigmoid = args.score == RouterScore::sigmoid;
      if (sigmoid) {
        kernels::router_sigmoid<D>(kernels::RouterSigmoidArgs<T>{tokens, experts, z, probabilities.data<T>(),
                                                                 lse.data<T>(), entropy},
                                   stream);
      } else {
        kernels::router_softmax<D>(kernels::RouterSoftmaxArgs<T>{tokens, experts, z, probabilities.data<T>(),
                                                                 lse.data<T>(), entropy},
                                   stream);
      }
      if (limited) {
        kernels::router_choose_limited<D>(
            kernels::RouterLimitedChoiceArgs<T>{
                tokens, experts, k, args.expert_groups, args.chosen_groups, sigmoid ? 2 : 1, p,
                args.choice_bias ? args.choice_bias.data<T>() : nullptr, expert},
            tape.workspace(), stream);
      } else {
        kernels::router_choose<D>(kernels::RouterChooseArgs<T>{tokens, experts, k, noise, z, gumbel, expert},
                                  stream);
      }
      kernels::router_assign<D>(
          kernels::RouterAssignArgs<T>{
              tokens, experts, k, drop, args.order, of_group, r.rows, expert, keys, p,
              r.counts_before.data<int32_t>(), r.counts.data<int32_t>(), r.offsets.data<int32_t>(),
              row_of_choice, r.token_of_row.data<int32_t>(), r.choice_of_row.data<int32_t>(), groups},
          tape.workspace(), stream);
      kernels::router_weights<D>(
          kernels::RouterWeightArgs<T>{tokens, experts, k, args.renormalise, p, expert, row_of_choice,
                                       r.weights.value().data<T>(), T(args.weight_scale)},
          stream);
      const int64_t counted = args.balance_count == BalanceCount::first_choice ? 1 : k;
      kernels::router_means<D>(
          kernels::RouterMeanArgs<T>{tokens, experts, k, r.groups, counted, p, expert,
                                     r.mean_probability.data<double>(), r.fraction.data<double>(),
                                     sigmoid ? lse.data<T>() : nullptr},
          stream);
      kernels::router_token_losses<D>(
          kernels::RouterTokenLossArgs<T>{tokens, sigmoid ? nullptr : lse.data<T>(), entropy, losses_of(r)},
          stream);
    }
  };
  // Softmax, choice, keys of random selection, means.
  note_kernel("router", Pass::forward, logits, probabilities, logits,
              drop == DropPolicy::random ? 2 * bytes_touched(logits) : 0.0, probabilities);
  visit_kernels<kernels::RouterKernels>(logits.value(), assign);
  compute_balance(tape, r);
  if (logits.value().device() == Device::cpu) {
    const int32_t* counts = r.counts.data<int32_t>();
    r.rows = r.offsets.data<int32_t>()[experts];
    r.token_of_row = r.token_of_row.rows(0, r.rows), r.choice_of_row = r.choice_of_row.rows(0, r.rows);
    if (drop == DropPolicy::none) r.capacity = *std::max_element(counts, counts + experts);
  }

  // The losses' gradients must arrive even if nobody used the weights: the weights' gradient starts as zeros.
  const bool has_loss = args.balance_coefficient != 0 || args.z_coefficient != 0;
  if (const GradSlot start = has_loss ? tape.grad_slot(r.weights) : GradSlot{})
    fill_zero(start.grad, tape.stream());

  tape.record(r.weights, [=, groups = r.groups, weights = r.weights, fraction = r.fraction.data<double>(),
                          renormalise = args.renormalise, balance = args.balance_coefficient,
                          z = args.z_coefficient, weight_scale = args.weight_scale, score = args.score,
                          scale = &tape.numbers()->loss_scale](Tape& t, const Tensor& dweights) {
    const GradSlot dlogits = t.grad_slot(logits);
    note_kernel("router", Pass::backward, probabilities, dlogits);
    visit_kernels<kernels::RouterKernels>(dweights, [&]<Device D, class T>() {
      if constexpr (!std::is_same_v<T, bf16>) {
        const kernels::RouterWeightArgs<T> forward{tokens,
                                                   experts,
                                                   k,
                                                   renormalise,
                                                   probabilities.data<T>(),
                                                   expert,
                                                   row_of_choice,
                                                   weights.value().data<T>(),
                                                   T(weight_scale)};
        // dlogits = softmax'(dp), dp from the weights and from E fraction / S; + z 2 lse p / S
        kernels::router_backward<D>(
            kernels::RouterGradArgs<T>{forward, groups, dweights.data<T>(), lse.data<T>(), fraction, balance,
                                       z, scale, dlogits.accumulate, dlogits.grad.data<T>(), score},
            t.workspace(), t.stream());
      }
    });
  });
  return r;
}

void use_fractions_of_step(Tape& tape, const Routing& r, Communicator& data_parallel,
                           const Tensor& assignments_of_step, bool first) {
  check(r.groups == 1 && assignments_of_step.shape() == Shape{r.experts}, ErrorKind::argument,
        "[router] expected one group and assignments [{}], got {} and {}", r.experts, r.groups,
        assignments_of_step.shape());
  Stream& stream = tape.stream();
  visit_kernels<kernels::RouterSumKernels>(r.losses, [&]<Device D, class T>() {
    const ArenaScope scope(tape.workspace());
    double* fraction = r.fraction.data<double>();
    double* counted = nullptr;
    if (!tape.recomputing()) {
      const Tensor assignments = allocate(tape.workspace(), DType::f64, {r.experts});
      counted = assignments.data<double>();
      kernels::router_assignments<D>(fraction, r.experts, r.tokens, counted, stream);
      data_parallel.all_reduce(assignments, ReduceOp::sum, ReduceOrder::any, stream).wait();
    }
    kernels::router_fractions<D>({r.experts, counted, first, assignments_of_step.data<double>(), fraction},
                                 stream);
  });
  compute_balance(tape, r);
}

void sum_loads(const Tensor& sums, const Tensor& loads, Communicator& data_parallel, Stream& stream) {
  const int64_t experts = loads.numel();
  check(sums.numel() == kernels::router_sums_size(experts), ErrorKind::argument,
        "[router] expected sums [{}] for {} loads, got {}", kernels::router_sums_size(experts), experts,
        sums.shape());
  if (is_meta(sums.device())) return;
  visit_kernels<kernels::RouterSumKernels>(sums, [&]<Device D, class T>() {
    kernels::router_loads<D>(sums.data<double>(), experts, loads.data<double>(), stream);
  });
  data_parallel.all_reduce(loads, ReduceOp::sum, ReduceOrder::any, stream).wait();
}

void move_balance_bias(const Tensor& loads, double rate, const Tensor& bias, Stream& stream) {
  if (is_meta(bias.device())) return;
  visit_kernels<kernels::RouterKernels>(bias, [&]<Device D, class T>() {
    if constexpr (!std::is_same_v<T, bf16>) {
      kernels::router_move_bias<D>(loads.data<double>(), loads.numel(), rate, bias.data<T>(), stream);
    }
  });
}

Routing own_tokens(Tape& tape, const Routing& all, int64_t first, int64_t n) {
  Routing own = all;
  own.tokens = n;
  own.weights = some_rows(tape, all.weights, first, n);
  own.rows = std::min(n * all.top_k, all.rows);
  if (is_meta(all.offsets.device())) own.rows = all.rows * n / all.tokens;  // planning: balanced
  own.expert = all.expert.rows(first, first + n);
  own.row_of_choice = tape.save(DType::i32, {n, all.top_k});
  own.token_of_row = tape.save(DType::i32, {own.rows});
  own.choice_of_row = tape.save(DType::i32, {own.rows});
  own.counts = tape.save(DType::i32, {all.experts});
  own.offsets = tape.save(DType::i32, {all.experts + 1});
  note_kernel("own_tokens", Pass::forward, own.row_of_choice, all.token_of_row, all.choice_of_row,
              own.token_of_row, own.choice_of_row);
  visit_kernels<kernels::OwnTokensKernels>(all.weights.value(), [&]<Device D, class T>() {
    kernels::own_tokens<D>(
        {first, n, all.top_k, all.experts, all.offsets.data<int32_t>(), all.token_of_row.data<int32_t>(),
         all.choice_of_row.data<int32_t>(), own.counts.data<int32_t>(), own.offsets.data<int32_t>(),
         own.row_of_choice.data<int32_t>(), own.rows, own.token_of_row.data<int32_t>(),
         own.choice_of_row.data<int32_t>()},
        tape.stream());
  });
  if (own.offsets.device() == Device::cpu) {
    own.rows = own.offsets.data<int32_t>()[all.experts];
    own.token_of_row = own.token_of_row.rows(0, own.rows);
    own.choice_of_row = own.choice_of_row.rows(0, own.rows);
  }
  return own;
}

Routing in_blocks(Tape& tape, const Routing& r) {
  Routing blocks = r;
  blocks.rows = r.experts * r.capacity;
  blocks.row_of_choice = tape.save(DType::i32, {r.tokens, r.top_k});
  blocks.token_of_row = tape.save(DType::i32, {blocks.rows});
  blocks.choice_of_row = tape.save(DType::i32, {blocks.rows});
  note_kernel("expert_blocks", Pass::forward, r.row_of_choice, r.token_of_row, r.choice_of_row,
              blocks.row_of_choice, blocks.token_of_row, blocks.choice_of_row);
  visit_kernels<kernels::ExpertBlocksKernels>(r.weights.value(), [&]<Device D, class T>() {
    kernels::expert_blocks<D>(
        {r.tokens, r.top_k, r.experts, r.capacity, r.offsets.data<int32_t>(), r.expert.data<int32_t>(),
         r.row_of_choice.data<int32_t>(), r.token_of_row.data<int32_t>(), r.choice_of_row.data<int32_t>(),
         blocks.row_of_choice.data<int32_t>(), blocks.token_of_row.data<int32_t>(),
         blocks.choice_of_row.data<int32_t>()},
        tape.stream());
  });
  return blocks;
}

void add_statistics(Tape& tape, const Routing& r, double balance_coefficient, double z_coefficient,
                    const Tensor& sums) {
  check(sums.shape() == Shape{kernels::router_sums_size(r.experts)}, ErrorKind::argument,
        "[router] expected sums [{}], got {}", kernels::router_sums_size(r.experts), sums.shape());
  visit_kernels<kernels::RouterSumKernels>(sums, [&]<Device D, class T>() {
    kernels::router_statistics<D>(
        {r.tokens, r.experts, r.top_k, balance_coefficient, z_coefficient, losses_of(r),
         r.counts_before.data<int32_t>(), r.counts.data<int32_t>(), sums.data<double>()},
        tape.stream());
  });
}

void add_router_losses(const Tensor& sums, const Tensor& total, Stream& stream) {
  visit_kernels<kernels::RouterSumKernels>(sums, [&]<Device D, class T>() {
    kernels::router_add_losses<D>(sums.data<double>(), total.data<double>(), stream);
  });
}

}  // namespace ziggurat::ops
