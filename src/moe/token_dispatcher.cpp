#include <algorithm>
#include <numeric>
#include <tuple>

#include <ziggurat/moe/token_dispatcher.h>
#include <ziggurat/ops/all_to_all.h>

namespace ziggurat::moe {

namespace {

class LocalDispatcher final : public TokenDispatcher {
 public:
  ExpertRows begin_dispatch(Tape& tape, Var x, const ops::Routing& routing) override {
    return {.rows = ops::gather_tokens(tape, x, routing), .offsets = routing.offsets};
  }
  void end_dispatch(Tape&, ExpertRows&) override {}

  Var combine(Tape& tape, Var outputs, const ExpertRows&, const ops::Routing& routing) override {
    const Span span(tape.stream().profile(), "combine");
    return ops::combine(tape, outputs, routing);
  }
};

// ranks P, local experts L. Rows leave sorted by expert, so already by rank; they arrive by (source, local
// expert) and are put in the order (local expert, source).
class AllToAllDispatcher final : public TokenDispatcher {
 public:
  AllToAllDispatcher(Communicator& group, int64_t experts)
      : group_(group), ranks_(group.size()), local_experts_(experts / group.size()) {}

  ExpertRows begin_dispatch(Tape& tape, Var x, const ops::Routing& routing) override {
    const Tensor arriving = tape.save(DType::i32, {ranks_, local_experts_});
    group_.all_to_all(routing.counts, arriving.reshape({routing.experts}), tape.stream()).wait();
    const bool in_blocks = exchanges_blocks(x.value().device()) &&
                           fit_blocks(routing.experts * routing.capacity, routing.tokens * routing.top_k);
    ExpertRows to;
    to.routing = in_blocks ? ops::in_blocks(tape, routing) : routing;
    std::tie(to.sent, to.received) =
        in_blocks ? whole_blocks(tape, routing) : rows_per_rank(tape, routing, arriving);
    const ops::ArrivalOrder order = ops::order_arrivals(
        tape, arriving, sum(to.received), tape.stream().strict(), in_blocks ? routing.capacity : 0);
    to.offsets = order.offsets;
    to.arrival_of_row = order.arrival_of_row, to.row_of_arrival = order.row_of_arrival;
    if (!in_blocks) to.routing = with_rows(routing, sum(to.sent));
    to.leaving = ops::gather_tokens(tape, x, to.routing);
    to.arriving = ops::begin_all_to_all_rows(tape, to.leaving, group_, to.sent, to.received, under_way_);
    return to;
  }

  void end_dispatch(Tape& tape, ExpertRows& to) override {
    const Var arrived =
        ops::end_all_to_all_rows(tape, to.leaving, to.arriving, group_, to.sent, to.received, under_way_);
    to.rows = ops::permute_rows(tape, arrived, to.arrival_of_row);
  }

  Var combine(Tape& tape, Var outputs, const ExpertRows& from, const ops::Routing&) override {
    const Var leaving = ops::permute_rows(tape, outputs, from.row_of_arrival);
    const Var returned = ops::all_to_all_rows(tape, leaving, group_, from.received, from.sent);
    const Span span(tape.stream().profile(), "combine");
    return ops::combine(tape, returned, from.routing);
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
    return planned(device) == Device::cuda && (is_meta(device) || group_.devices_exchange());
  }
  std::pair<Rows, Rows> whole_blocks(Tape& tape, const ops::Routing& routing) const {
    auto* const rows = tape.save_array<int64_t>(ranks_);
    std::fill_n(rows, ranks_, local_experts_ * routing.capacity);
    const Rows each(rows, static_cast<size_t>(ranks_));
    return {each, each};
  }

  // To and from each rank. On a device this is where the host waits for it.
  std::pair<Rows, Rows> rows_per_rank(Tape& tape, const ops::Routing& routing, const Tensor& arriving) {
    auto *sent = tape.save_array<int64_t>(ranks_), *received = tape.save_array<int64_t>(ranks_);
    const auto n = static_cast<size_t>(ranks_);
    if (is_meta(arriving.device())) {  // planning: every expert gets its share, from everyone
      const int64_t E = routing.experts, share = routing.rows / E, rest = routing.rows % E;
      for (int64_t r = 0; r < ranks_; ++r) {
        const int64_t one_more = std::clamp(rest - r * local_experts_, int64_t{0}, local_experts_);
        sent[r] = received[r] = share * local_experts_ + one_more;
      }
      return {{sent, n}, {received, n}};
    }
    const int32_t *leaving = routing.counts.data<int32_t>(), *coming = arriving.data<int32_t>();
    if (arriving.device() == Device::cuda) {
      auto *leaving_copy = tape.save_array<int32_t>(routing.experts),
           *coming_copy = tape.save_array<int32_t>(routing.experts);
      group_.watch(tape.stream());
      copy(routing.counts, Tensor(leaving_copy, DType::i32, {routing.experts}), tape.stream());
      copy(arriving, Tensor(coming_copy, DType::i32, {routing.experts}), tape.stream());
      tape.stream().wait();
      leaving = leaving_copy, coming = coming_copy;
    }
    for (int64_t r = 0; r < ranks_; ++r) {
      sent[r] = std::accumulate(leaving + r * local_experts_, leaving + (r + 1) * local_experts_, int64_t{0});
      received[r] =
          std::accumulate(coming + r * local_experts_, coming + (r + 1) * local_experts_, int64_t{0});
    }
    return {{sent, n}, {received, n}};
  }

  Communicator& group_;
  int64_t ranks_, local_experts_;
  Work under_way_;  // of a dispatch, or its backward
};

}  // namespace

bool fit_blocks(int64_t places, int64_t choices) { return places <= 2 * choices; }

std::unique_ptr<TokenDispatcher> make_token_dispatcher(Communicator& expert_parallel, int64_t experts) {
  check(experts > 0 && experts % expert_parallel.size() == 0, ErrorKind::config,
        "{} experts cannot be shared evenly by {} expert-parallel ranks: choose a divisor", experts,
        expert_parallel.size());
  if (expert_parallel.size() == 1) return std::make_unique<LocalDispatcher>();
  return std::make_unique<AllToAllDispatcher>(expert_parallel, experts);
}

}  // namespace ziggurat::moe
