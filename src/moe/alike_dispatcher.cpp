#include <algorithm>
#include <numeric>
#include <span>

#include <ziggurat/moe/alike_dispatcher.h>
#include <ziggurat/ops/alike_ranks.h>
#include <ziggurat/ops/choose_rows.h>

namespace ziggurat::moe {

namespace {

Tensor host_table(Tape& tape, int64_t n) { return {tape.save_array<int32_t>(n), DType::i32, {n}}; }

void check_on_host(const Tensor& table) {
  check(table.device() == Device::cpu, ErrorKind::config,
        "[moe] ranks that share an expert's matrices and those that share other matrices can be of different "
        "number on the CPU only: let expert_slice be tensor");
}

// Experts in the ranks' order: place 0 of the exchange has those of all places of the fold, then place 1 ...
// This place reaches every fold-th of these blocks, of `local` experts each.
class HandedOn final : public TokenDispatcher {
 public:
  HandedOn(Communicator& exchange, Communicator& fold, Communicator& alone, int64_t experts)
      : fold_(fold),
        reached_(experts / fold.size()),
        local_(reached_ / exchange.size()),
        inner_(make_token_dispatcher(exchange, alone, reached_)) {}

  ExpertRows dispatch(Tape& tape, Var x, const ops::Routing& routing) override {
    check_on_host(routing.offsets);
    own_ = own_rows(tape, routing);
    const std::span<const int32_t> tokens(own_.token_of_row.data<int32_t>(), static_cast<size_t>(own_.rows));
    const Var rows = ops::choose_rows(tape, x, tokens);
    own_ = each_a_token(tape, own_, rows.dtype());
    return inner_->dispatch(tape, rows, own_);
  }

  Var combine(Tape& tape, Var outputs, const ExpertRows& dispatched, const ops::Routing& routing) override {
    const Var brought = inner_->combine(tape, outputs, dispatched, own_);
    const Var rows = ops::join(tape, ops::scatter_rows(tape, brought, places_, routing.rows), fold_);
    const Span span(tape.stream().profile(), "combine");
    return ops::combine(tape, rows, routing);
  }

 private:
  // The rows of the experts that this place reaches, and in places_ where they are among all.
  ops::Routing own_rows(Tape& tape, const ops::Routing& all) {
    ops::Routing own;
    own.experts = reached_, own.top_k = 1;
    own.counts = host_table(tape, reached_), own.offsets = host_table(tape, reached_ + 1);
    auto *counts = own.counts.data<int32_t>(), *offsets = own.offsets.data<int32_t>();
    const int32_t *all_counts = all.counts.data<int32_t>(), *all_offsets = all.offsets.data<int32_t>();
    const auto expert = [&](int64_t e) {  // among all
      return (e / local_ * fold_.size() + fold_.rank()) * local_ + e % local_;
    };
    offsets[0] = 0;
    for (int64_t e = 0; e < reached_; ++e) {
      counts[e] = all_counts[expert(e)];
      offsets[e + 1] = offsets[e] + counts[e];
    }
    own.rows = own.tokens = offsets[reached_];
    own.token_of_row = host_table(tape, own.rows), places_ = host_table(tape, own.rows);
    for (int64_t e = 0; e < reached_; ++e) {
      const int32_t first = all_offsets[expert(e)];
      std::iota(places_.data<int32_t>() + offsets[e], places_.data<int32_t>() + offsets[e + 1], first);
      std::copy_n(all.token_of_row.data<int32_t>() + first, counts[e],
                  own.token_of_row.data<int32_t>() + offsets[e]);
    }
    return own;
  }

  // The same where every row is a token of its own, of weight 1: it comes back as it is.
  static ops::Routing each_a_token(Tape& tape, ops::Routing own, DType dtype) {
    const int64_t n = own.rows;
    own.token_of_row = own.row_of_choice = host_table(tape, n);
    std::iota(own.token_of_row.data<int32_t>(), own.token_of_row.data<int32_t>() + n, 0);
    own.row_of_choice = own.row_of_choice.reshape({n, 1});
    own.choice_of_row = host_table(tape, n);
    std::fill_n(own.choice_of_row.data<int32_t>(), n, 0);
    const Tensor weights = tape.save(accum_dtype(dtype), {n, 1});
    visit_float_dtype(weights.dtype(), [&]<class T>() { std::fill_n(weights.data<T>(), n, T(1.0F)); });
    own.weights = tape.constant(weights);
    return own;
  }

  Communicator& fold_;
  int64_t reached_, local_;  // experts; and of each of the ranks that this one exchanges with
  std::unique_ptr<TokenDispatcher> inner_;
  ops::Routing own_;  // of the call under way
  Tensor places_;
};

// Rows come sorted by expert, in the order of sources, from each place of the fold.
class ComputedTogether final : public TokenDispatcher {
 public:
  ComputedTogether(Communicator& exchange, Communicator& fold, Communicator& alone, int64_t experts)
      : fold_(fold),
        local_(experts / exchange.size()),
        inner_(make_token_dispatcher(exchange, alone, experts)) {}

  ExpertRows dispatch(Tape& tape, Var x, const ops::Routing& routing) override {
    check_on_host(routing.offsets);
    brought_ = inner_->dispatch(tape, x, routing);
    const Tensor counts = all_counts(tape, brought_.offsets);
    const std::span<const int64_t> rows = sums(tape, counts);
    order_ = ops::order_arrivals(tape, counts, std::accumulate(rows.begin(), rows.end(), int64_t{0}),
                                 tape.stream().strict());
    const Var all = ops::gather_rows_v(tape, brought_.rows, rows, fold_);
    first_own_ = std::accumulate(rows.begin(), rows.begin() + fold_.rank(), int64_t{0});
    return {.rows = ops::permute_rows(tape, all, order_.arrival_of_row), .offsets = order_.offsets};
  }

  Var combine(Tape& tape, Var outputs, const ExpertRows&, const ops::Routing& routing) override {
    const auto own = static_cast<size_t>(brought_.rows.dim(0));
    const std::span<const int32_t> rows(order_.row_of_arrival.data<int32_t>() + first_own_, own);
    return inner_->combine(tape, ops::choose_rows(tape, outputs, rows), brought_, routing);
  }

 private:
  // i32 [fold, local]: rows of each place for each expert.
  Tensor all_counts(Tape& tape, const Tensor& offsets) const {
    const Tensor mine = host_table(tape, local_), all = host_table(tape, fold_.size() * local_);
    const int32_t* at = offsets.data<int32_t>();
    const int64_t sources = (offsets.dim(0) - 1) / local_;  // that are told apart
    for (int64_t e = 0; e < local_; ++e) {
      mine.data<int32_t>()[e] = at[(e + 1) * sources] - at[e * sources];
    }
    fold_.all_gather(mine, all, tape.stream()).wait();
    return all.reshape({fold_.size(), local_});
  }

  static std::span<const int64_t> sums(Tape& tape, const Tensor& counts) {
    const int64_t places = counts.dim(0), experts = counts.dim(1);
    auto* const rows = tape.save_array<int64_t>(places);
    for (int64_t p = 0; p < places; ++p) {
      const int32_t* of_place = counts.data<int32_t>() + p * experts;
      rows[p] = std::accumulate(of_place, of_place + experts, int64_t{0});
    }
    return {rows, static_cast<size_t>(places)};
  }

  Communicator& fold_;
  int64_t local_;
  std::unique_ptr<TokenDispatcher> inner_;
  ExpertRows brought_;  // of the call under way
  ops::ArrivalOrder order_;
  int64_t first_own_ = 0;
};

}  // namespace

std::unique_ptr<TokenDispatcher> make_alike_dispatcher(const ProcessGroups& groups, int64_t experts,
                                                       int expert_parallel) {
  Communicator &exchange = groups.exchange(expert_parallel), &fold = groups.fold();
  Communicator& alone = groups.token_parts();  // slices are the experts' own business
  if (fold.size() == 1) return make_token_dispatcher(exchange, alone, experts);
  if (groups.tp().size() > groups.expert_tp().size()) {
    return std::make_unique<HandedOn>(exchange, fold, alone, experts);
  }
  return std::make_unique<ComputedTogether>(exchange, fold, alone, experts);
}

}  // namespace ziggurat::moe
