#include <algorithm>

#include <ziggurat/moe/token_dispatcher.h>
#include <ziggurat/ops/all_to_all.h>

namespace ziggurat::moe {

namespace {

class LocalDispatcher final : public TokenDispatcher {
 public:
  ExpertRows dispatch(Tape& tape, Var x, const ops::Routing& routing) override {
    auto* segments = tape.save_array<ops::Segment>(routing.experts);
    int64_t row = 0;
    for (int64_t e = 0; e < routing.experts; ++e) {
      segments[e] = {row, routing.counts[e], static_cast<int32_t>(e), 0};
      row += routing.counts[e];
    }
    return {.rows = ops::gather_tokens(tape, x, routing),
            .segments = {segments, static_cast<size_t>(routing.experts)}};
  }

  Var combine(Tape& tape, Var outputs, const ExpertRows&, const ops::Routing& routing) override {
    return ops::combine(tape, outputs, routing);
  }
};

// ranks P, local experts L. Rows leave sorted by expert, so already by rank; they arrive by (source, local
// expert) and are put in the order (local expert, source).
class AllToAllDispatcher final : public TokenDispatcher {
 public:
  AllToAllDispatcher(Communicator& group, int64_t experts)
      : group_(group), ranks_(group.size()), local_experts_(experts / group.size()) {}

  ExpertRows dispatch(Tape& tape, Var x, const ops::Routing& routing) override {
    const int32_t* arriving_PL = exchange_counts(tape, routing);
    ExpertRows to{.sent = rows_per_rank(tape, routing.counts), .received = rows_per_rank(tape, arriving_PL)};
    plan_order(tape, arriving_PL, to);
    const Var arrived =
        ops::all_to_all_rows(tape, ops::gather_tokens(tape, x, routing), group_, to.sent, to.received);
    to.rows = ops::permute_rows(tape, arrived, to.arrival_of_row);
    return to;
  }

  Var combine(Tape& tape, Var outputs, const ExpertRows& from, const ops::Routing& routing) override {
    const Var leaving = ops::permute_rows(tape, outputs, from.row_of_arrival);
    const Var returned = ops::all_to_all_rows(tape, leaving, group_, from.received, from.sent);
    return ops::combine(tape, returned, routing);
  }

 private:
  // [P,L] rows that come to each of this rank's experts from each rank.
  const int32_t* exchange_counts(Tape& tape, const ops::Routing& routing) {
    auto *leaving = tape.save_array<int32_t>(routing.experts),
         *arriving = tape.save_array<int32_t>(routing.experts);
    for (int64_t e = 0; e < routing.experts; ++e) leaving[e] = static_cast<int32_t>(routing.counts[e]);
    const Device device = tape.stream().device();
    if (device == Device::meta) std::copy_n(leaving, routing.experts, arriving);  // the others send the same
    const auto tensor = [&](int32_t* table) { return Tensor(table, DType::i32, {routing.experts}, device); };
    group_.all_to_all(tensor(leaving), tensor(arriving), tape.stream()).wait();
    return arriving;
  }

  template <class Count>
  std::span<const int64_t> rows_per_rank(Tape& tape, const Count* counts_PL) {
    auto* rows = tape.save_array<int64_t>(ranks_);
    for (int64_t r = 0; r < ranks_; ++r) {
      rows[r] = 0;
      for (int64_t e = 0; e < local_experts_; ++e) rows[r] += counts_PL[r * local_experts_ + e];
    }
    return {rows, static_cast<size_t>(ranks_)};
  }

  void plan_order(Tape& tape, const int32_t* arriving_PL, ExpertRows& to) {
    const bool strict = tape.stream().strict();
    int64_t total = 0;
    for (const int64_t rows : to.received) total += rows;
    auto* arrival_of_row = tape.save_array<int32_t>(total);
    auto* row_of_arrival = tape.save_array<int32_t>(total);
    auto* segments = tape.save_array<ops::Segment>(local_experts_ * ranks_);
    auto* first_of_source = tape.save_array<int64_t>(ranks_);  // the next arrival of each source
    for (int64_t r = 0, next = 0; r < ranks_; ++r) {
      first_of_source[r] = next;
      next += to.received[static_cast<size_t>(r)];
    }
    int64_t row = 0;
    size_t count = 0;
    for (int64_t e = 0; e < local_experts_; ++e) {
      for (int64_t r = 0; r < ranks_; ++r) {
        const int64_t rows = arriving_PL[r * local_experts_ + e];
        if (strict || r == 0) segments[count++] = {row, 0, static_cast<int32_t>(e), static_cast<int32_t>(r)};
        segments[count - 1].rows += rows;
        for (int64_t i = 0; i < rows; ++i, ++row) {
          arrival_of_row[row] = static_cast<int32_t>(first_of_source[r]++);
          row_of_arrival[arrival_of_row[row]] = static_cast<int32_t>(row);
        }
      }
    }
    to.segments = {segments, count};
    to.arrival_of_row = arrival_of_row;
    to.row_of_arrival = row_of_arrival;
  }

  Communicator& group_;
  int64_t ranks_, local_experts_;
};

}  // namespace

std::unique_ptr<TokenDispatcher> make_token_dispatcher(Communicator& expert_parallel, int64_t experts) {
  check(experts > 0 && experts % expert_parallel.size() == 0, ErrorKind::config,
        "{} experts cannot be shared evenly by {} expert-parallel ranks: choose a divisor", experts,
        expert_parallel.size());
  if (expert_parallel.size() == 1) return std::make_unique<LocalDispatcher>();
  return std::make_unique<AllToAllDispatcher>(expert_parallel, experts);
}

}  // namespace ziggurat::moe
