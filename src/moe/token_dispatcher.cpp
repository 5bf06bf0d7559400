#include <algorithm>
#include <numeric>

#include <ziggurat/moe/token_dispatcher.h>
#include <ziggurat/ops/all_to_all.h>
#include <ziggurat/ops/shard_rows.h>

namespace ziggurat::moe {

namespace {

// Shapes by the letters at the end of a name: N tokens, C their width, E = P L experts, L of them on each of
// P ranks, whose experts S ranks share; R rows, one for each choice of a token that an expert takes: those
// that leave a rank, that arrive there, or that its experts see.
class LocalDispatcher final : public TokenDispatcher {
 public:
  ExpertRows begin_dispatch(Tape& tape, Var x_NC, const ops::Routing& routing) override {
    return {.rows = ops::gather_tokens(tape, x_NC, routing), .offsets = routing.offsets};
  }
  void end_dispatch(Tape&, ExpertRows&) override {}

  Var combine(Tape& tape, Var outputs_RC, const ExpertRows&, const ops::Routing& routing) override {
    const Span span(tape.stream().profile(), "combine");
    return ops::combine(tape, outputs_RC, routing);
  }
};

// Rows leave sorted by expert, so already by rank; they arrive by (source, local expert), those of all
// sharers by (sharer, source, local expert), and are put in the order (local expert, sharer, source).
class AllToAllDispatcher final : public TokenDispatcher {
 public:
  AllToAllDispatcher(Communicator& group, Communicator& sharing, int64_t experts)
      : group_(group), sharing_(sharing), ranks_(group.size()), local_experts_(experts / group.size()) {}

  ExpertRows begin_dispatch(Tape& tape, Var x_NC, const ops::Routing& routing) override {
    const int64_t sharers = sharing_.size();
    const Tensor counts_SPL = tape.save(DType::i32, {sharers * ranks_, local_experts_});
    const Tensor counts_PL = counts_SPL.rows(sharing_.rank() * ranks_, (sharing_.rank() + 1) * ranks_);
    group_.all_to_all(routing.counts, counts_PL.reshape({routing.experts}), tape.stream()).wait();
    if (sharers > 1) sharing_.all_gather(counts_PL, counts_SPL, tape.stream()).wait();
    // Batches of evaluation may be of other sizes on other ranks.
    const bool in_blocks = tape.micro_batch().training && exchanges_blocks(x_NC.value().device()) &&
                           fit_blocks(routing.experts * routing.capacity, routing.tokens * routing.top_k);
    ExpertRows to = in_blocks ? whole_blocks(tape, routing) : rows_per_rank(tape, routing, counts_SPL);
    to.routing = in_blocks ? ops::in_blocks(tape, routing) : with_rows(routing, sum(to.sent));
    const ops::ArrivalOrder order = ops::order_arrivals(
        tape, counts_SPL, sum(to.shared), tape.stream().strict(), in_blocks ? routing.capacity : 0);
    to.offsets = order.offsets;
    to.arrival_of_row = order.arrival_of_row, to.row_of_arrival = order.row_of_arrival;
    to.leaving = ops::gather_tokens(tape, x_NC, to.routing);
    to.arriving = ops::begin_all_to_all_rows(tape, to.leaving, group_, to.sent, to.received, under_way_);
    return to;
  }

  void end_dispatch(Tape& tape, ExpertRows& to) override {
    const Var arrived_RC =
        ops::end_all_to_all_rows(tape, to.leaving, to.arriving, group_, to.sent, to.received, under_way_);
    const Var everyones_RC = ops::gather_uneven_rows(tape, arrived_RC, sharing_, to.shared);
    to.rows = ops::permute_rows(tape, everyones_RC, to.arrival_of_row);
  }

  Var combine(Tape& tape, Var outputs_RC, const ExpertRows& from, const ops::Routing&) override {
    const Var everyones_RC = ops::permute_rows(tape, outputs_RC, from.row_of_arrival);
    const Var leaving_RC = ops::sum_uneven_rows(tape, everyones_RC, sharing_, from.shared);
    const Var returned_RC = ops::all_to_all_rows(tape, leaving_RC, group_, from.received, from.sent);
    const Span span(tape.stream().profile(), "combine");
    return ops::combine(tape, returned_RC, from.routing);
  }

 private:
  using Rows = std::span<const int64_t>;

  static int64_t sum(Rows rows) { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); }

  // The same with as many rows as there are, which the exchange has to know.
  static ops::Routing with_rows(ops::Routing routing, int64_t rows) {
    routing.rows = rows;
    routing.token_of_row = routing.token_of_row.rows(0, rows);
    routing.choice_of_row = routing.choice_of_row.rows(0, rows);
    return routing;
  }

  // Devices that exchange by themselves take experts' whole capacity, where that is not much more than there
  // is to send: nobody waits for counts then. A plan is of such devices.
  bool exchanges_blocks(Device device) const {
    return planned(device) == Device::cuda && sharing_.size() == 1 &&
           (is_meta(device) || group_.devices_exchange());
  }
  ExpertRows whole_blocks(Tape& tape, const ops::Routing& routing) const {
    auto *const each = tape.save_array<int64_t>(ranks_), *const all = tape.save_array<int64_t>(1);
    std::fill_n(each, ranks_, local_experts_ * routing.capacity);
    *all = routing.experts * routing.capacity;
    const Rows rows(each, static_cast<size_t>(ranks_));
    return {.sent = rows, .received = rows, .shared = {all, 1}};
  }

  // To and from each rank, and what its sharers received. On a device this is where the host waits for it.
  ExpertRows rows_per_rank(Tape& tape, const ops::Routing& routing, const Tensor& counts_SPL) {
    const int64_t sharers = sharing_.size();
    auto *sent = tape.save_array<int64_t>(ranks_), *received = tape.save_array<int64_t>(ranks_),
         *shared = tape.save_array<int64_t>(sharers);
    const auto n = static_cast<size_t>(ranks_);
    const ExpertRows rows{
        .sent = {sent, n}, .received = {received, n}, .shared = {shared, static_cast<size_t>(sharers)}};
    if (is_meta(counts_SPL.device()) && tape.micro_batch().worst_routing) {
      std::fill_n(sent, ranks_, int64_t{0});
      std::fill_n(received, ranks_, routing.rows);
      sent[group_.rank()] = routing.rows;
      std::fill_n(shared, sharers, sum(rows.received));
      return rows;
    }
    if (is_meta(counts_SPL.device())) {  // planning: every expert gets its share, from everyone
      const int64_t E = routing.experts, share = routing.rows / E, rest = routing.rows % E;
      for (int64_t r = 0; r < ranks_; ++r) {
        const int64_t one_more = std::clamp(rest - r * local_experts_, int64_t{0}, local_experts_);
        sent[r] = received[r] = share * local_experts_ + one_more;
      }
      std::fill_n(shared, sharers, sum(rows.received));
      return rows;
    }
    const int32_t *leaving = routing.counts.data<int32_t>(), *coming = counts_SPL.data<int32_t>();
    if (counts_SPL.device() == Device::cuda) {
      auto *leaving_copy = tape.save_array<int32_t>(routing.experts),
           *coming_copy = tape.save_array<int32_t>(counts_SPL.numel());
      group_.watch(tape.stream());
      copy(routing.counts, Tensor(leaving_copy, DType::i32, {routing.experts}), tape.stream());
      copy(counts_SPL, Tensor(coming_copy, DType::i32, counts_SPL.shape()), tape.stream());
      tape.stream().wait();
      leaving = leaving_copy, coming = coming_copy;
    }
    const auto counted = [](const int32_t* counts, int64_t number, int64_t size) {
      return std::accumulate(counts + number * size, counts + (number + 1) * size, int64_t{0});
    };
    for (int64_t r = 0; r < ranks_; ++r) {
      sent[r] = counted(leaving, r, local_experts_);
      received[r] = counted(coming, sharing_.rank() * ranks_ + r, local_experts_);
    }
    for (int64_t t = 0; t < sharers; ++t) shared[t] = counted(coming, t, ranks_ * local_experts_);
    return rows;
  }

  Communicator &group_, &sharing_;
  int64_t ranks_, local_experts_;
  Work under_way_;  // of a dispatch, or its backward
};

}  // namespace

bool fit_blocks(int64_t places, int64_t choices) { return places <= 2 * choices; }

std::unique_ptr<TokenDispatcher> make_token_dispatcher(Communicator& expert_parallel,
                                                       Communicator& expert_tensor, int64_t experts) {
  check(experts > 0 && experts % expert_parallel.size() == 0, ErrorKind::config,
        "{} experts cannot be shared evenly by {} expert-parallel ranks: choose a divisor", experts,
        expert_parallel.size());
  if (expert_parallel.size() == 1 && expert_tensor.size() == 1) return std::make_unique<LocalDispatcher>();
  return std::make_unique<AllToAllDispatcher>(expert_parallel, expert_tensor, experts);
}

}  // namespace ziggurat::moe
