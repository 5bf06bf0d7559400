// A vocabulary whose tiles (ops/vocabulary_products.h) lie on several ranks, an equal part of the table's
// rows on each: which are whose, and what ranks tell each other about a chunk of rows. On one rank all are
// its own.
#pragma once

#include <algorithm>
#include <limits>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/embedding.h>
#include <ziggurat/ops/cross_entropy.h>

namespace ziggurat::ops {

class SharedVocabulary {
 public:
  static constexpr int32_t kElsewhere = -1;  // of own_targets()

  SharedVocabulary(const LossArgs& args, int64_t table_rows)
      : group_(args.vocabulary != nullptr && args.vocabulary->size() > 1 ? args.vocabulary : nullptr),
        table_rows_(table_rows),
        first_row_(group_ == nullptr ? 0 : group_->rank() * table_rows),
        words_(std::clamp<int64_t>(args.vocab_size - first_row_, 0, table_rows)),
        ignore_index_(args.ignore_index) {}

  bool shared() const { return group_ != nullptr; }
  int64_t ranks() const { return shared() ? group_->size() : 1; }
  int64_t words() const { return words_; }  // of this rank that are no padding
  int64_t tiles() const { return tiles_of(words_); }
  int64_t rank_tiles() const { return shared() ? tiles_of(table_rows_) : tiles(); }  // of any rank, at most
  int64_t all_tiles() const { return ranks() * rank_tiles(); }
  int64_t place(int64_t t) const {
    return shared() ? group_->rank() * rank_tiles() + t : t;
  }  // of own tile t

  int32_t ignored() const { return shared() ? kElsewhere : ignore_index_; }  // among own_targets()
  // Targets counted from this rank's first row; those of others, and ignored ones, are kElsewhere.
  // `own` [rows]: memory for them; untouched on one rank.
  template <Device D>
  const int32_t* own_targets(const int32_t* targets, int64_t rows, int32_t* own, Stream& stream) const {
    if (!shared()) return targets;
    kernels::rows_of_part<D>({rows, targets, first_row_, table_rows_, ignore_index_, own}, stream);
    return own;
  }

  // What softmax_tile has found of each own tile, [all_tiles, rows] at place(t): from now on of everybody's.
  // Ranks that hold no vocabulary add nothing. target_logit [rows]: zeros where it is not this rank's.
  template <Device D, class A>
  void tell_tiles(A* reference, A* maximum, double* sum, A* target_logit, int64_t rows, Device device,
                  Stream& stream) const {
    if (!shared()) return;
    gather<D>(reference, kLow<A>, rows, device, stream);
    gather<D>(maximum, kLow<A>, rows, device, stream);
    gather<D>(sum, 0.0, rows, device, stream);
    add_up(target_logit, rows, device, stream);  // one rank's, and zeros
  }

  // values [rows] = the sum of all ranks'.
  template <class X>
  void add_up(X* values, int64_t rows, Device device, Stream& stream) const {
    if (!shared()) return;
    const Tensor tensor(values, dtype_of<X>(), {rows}, device);
    group_->all_reduce(tensor, ReduceOp::sum, ReduceOrder::any, stream).wait();
  }

  // all [ranks, rows] = the ranks' values [rows].
  template <class X>
  void gather_rows(const X* values, X* all, int64_t rows, Device device, Stream& stream) const {
    const Tensor mine(const_cast<X*>(values), dtype_of<X>(), {rows}, device),
        everyones(all, dtype_of<X>(), {ranks() * rows}, device);
    group_->all_gather(mine, everyones, stream).wait();
  }

  template <class A>
  static constexpr A kLow = std::numeric_limits<A>::lowest() / 4;  // differences of such are finite

 private:
  static int64_t tiles_of(int64_t columns) { return (columns + kVocabularyTile - 1) / kVocabularyTile; }

  template <Device D, class X>
  void gather(X* all, X nothing, int64_t rows, Device device, Stream& stream) const {
    const int64_t n = rank_tiles() * rows, first = group_->rank() * n, told = first + tiles() * rows;
    const Tensor everyones(all, dtype_of<X>(), {ranks() * n}, device);
    if constexpr (kExists<kernels::ElementwiseKernels, D, X>) {
      kernels::fill<D>(nothing, all + told, first + n - told, stream);
    } else {  // sums, on a GPU
      fill_zero(everyones.rows(told, first + n), stream);
    }
    group_->all_gather(everyones.rows(first, first + n), everyones, stream).wait();
  }

  Communicator* group_;  // null: one rank
  int64_t table_rows_, first_row_, words_;
  int32_t ignore_index_;
};

}  // namespace ziggurat::ops
