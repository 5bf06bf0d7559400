// The products of a grouped linear layer with its experts' weights.
#pragma once

#include <algorithm>
#include <type_traits>

#include <kernels/cpu/operand_copies.h>
#include <kernels/cpu/segments.h>
#include <kernels/cpu/strict_rows.h>

#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/grouped_linear.h>
#include <ziggurat/kernels/weight_copies.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

// Rows of a unit: a handful of units per thread evens out experts of unequal load, and a sum of this many
// rows stays in cache until it is rounded.
constexpr int64_t kUnitRows = 256;
// Packed products take their rows in steps, so that there are few different ones: the library makes code for
// each.
constexpr int64_t kRowStep = 16;

// Products of units of rows with their expert's weight, packed if there are copies: C = or += A op(W).
template <class Policy, class T>
class ExpertProducts {
 public:
  using O = typename Policy::Operand;
  using A = Accum<T>;

  // Gets the weights of the experts that have rows ready.
  ExpertProducts(const GroupedLinearArgs<T>& g, const Segments& segments, Side side, bool accumulate,
                 Arena& workspace, Stream& stream)
      : g_(g),
        side_(side),
        accumulate_(accumulate),
        packed_(weight_copies(WeightRole::expert, g.weight, g.version, g.groups.experts * g.out, g.out, g.in,
                              stream)),
        n_(side == Side::forward ? g.out : g.in),
        k_(side == Side::forward ? g.in : g.out) {
    weights_ = workspace.take<const O*>(g.groups.experts);
    std::fill_n(weights_, g.groups.experts, nullptr);
    auto* stale = workspace.take<int64_t>(g.groups.experts);
    int64_t stale_count = 0;
    for (const Segment& s : segments) {
      const int64_t e = s.expert;
      if (s.rows == 0 || weights_[e] != nullptr) continue;
      if (packed_ == nullptr) {
        weights_[e] = Policy::matrix(g.weight + e * g.out * g.in, g.out * g.in, workspace, stream);
      } else if (!packed_->prepared(e, side) &&
                 std::find(stale, stale + stale_count, e) == stale + stale_count) {
        stale[stale_count++] = e;
      }
    }
    if (stale_count > 0) {
      on_every_thread([&] {
        const OneThread alone;
        packed_->reserve(stale[0], side);
      });
    }
    parallel_for(stale_count, [&](int64_t i) {
      const OneThread alone;
      packed_->prepare(stale[i], side);
    });
    if (kRounds) sums_ = workspace.take_on_device<A>(threads_ * kUnitRows * n_);
    strict_ = stream.strict() && !std::is_same_v<T, double>;
    if (packed_ != nullptr || strict_) {
      most_tail_rows_ = strict_ ? kStrictRows : kRowStep;
      tails_ = workspace.take_on_device<O>(threads_ * most_tail_rows_ * k_);
      tail_sums_ = workspace.take_on_device<A>(threads_ * most_tail_rows_ * n_);
    }
  }

  // Makes what the products of these units need, on every thread: which of them takes which unit is left to
  // chance, but once all loads have been seen nothing new is made.
  void reserve(const Segments& units) const {
    if constexpr (!std::is_same_v<T, double>) {
      if (packed_ == nullptr) return;
      on_every_thread([&] {
        for (const Segment& unit : units) {
          const int64_t whole = unit.rows / kRowStep * kRowStep;
          if (whole > 0)
            reserve_product_on_this_thread<Device::cpu>(packed(0, whole, nullptr, nullptr, adds()));
          if (whole < unit.rows) {
            reserve_product_on_this_thread<Device::cpu>(packed(0, kRowStep, nullptr, nullptr, false));
          }
        }
      });
    }
  }

  // Of one unit, on the calling thread alone. The sum is rounded once.
  void multiply(int64_t expert, int64_t rows, const O* a, T* c) const {
    if constexpr (kRounds) {
      A* sum = sums_ + thread() * kUnitRows * n_;
      product(expert, rows, a, sum);
      for (int64_t i = 0; i < rows * n_; ++i) c[i] = T(accumulate_ ? A(c[i]) + sum[i] : sum[i]);
    } else {
      product(expert, rows, a, c);
    }
  }

 private:
  static constexpr bool kRounds = !std::is_same_v<T, A>;  // C is not where sums are taken

  bool adds() const { return accumulate_ && !kRounds; }  // to what lies where the sum is taken
  int64_t thread() const { return threads_ == 1 ? 0 : thread_index(); }

  void product(int64_t expert, int64_t rows, const O* a, A* c) const {
    if constexpr (!std::is_same_v<T, double>) {
      if (packed_ != nullptr) return packed_product(expert, rows, a, c);
    }
    const auto multiply = [&](int64_t n, const O* from, A* to, bool add) {
      gemm_on_this_thread<Device::cpu>(without_copy(
          WeightProduct<O, A>{side_, n, g_.out, g_.in, from, weights_[expert], nullptr, expert, to, add}));
    };
    if (!strict_) return multiply(rows, a, c, adds());
    for (int64_t i = 0; i < rows; i += kStrictRows) {
      const int64_t n = std::min(kStrictRows, rows - i), computed = padded_rows(n);
      if (n == computed && !adds()) {  // see gemm.cpp
        multiply(n, a + i * k_, c + i * n_, false);
      } else {
        padded(n, computed, a + i * k_, c + i * n_,
               [&](const O* tail, A* sum) { multiply(computed, tail, sum, false); });
      }
    }
  }

  // A product of `computed` rows in scratch: `rows`, and zeros.
  template <class Multiply>
  void padded(int64_t rows, int64_t computed, const O* a, A* c, const Multiply& multiply) const {
    O* tail = tails_ + thread() * most_tail_rows_ * k_;
    A* sum = tail_sums_ + thread() * most_tail_rows_ * n_;
    std::copy_n(a, rows * k_, tail);
    std::fill(tail + rows * k_, tail + computed * k_, O{});
    multiply(tail, sum);
    for (int64_t i = 0; i < rows * n_; ++i) c[i] = adds() ? c[i] + sum[i] : sum[i];
  }

  // Whole steps of rows in place, the rest in scratch padded to a step.
  void packed_product(int64_t expert, int64_t rows, const O* a, A* c) const {
    const int64_t whole = rows / kRowStep * kRowStep, rest = rows - whole;
    if (whole > 0) packed_product_on_this_thread<Device::cpu>(packed(expert, whole, a, c, adds()));
    if (rest == 0) return;
    padded(rest, kRowStep, a + whole * k_, c + whole * n_, [&](const O* tail, A* sum) {
      packed_product_on_this_thread<Device::cpu>(packed(expert, kRowStep, tail, sum, false));
    });
  }

  WeightProduct<O, A> packed(int64_t expert, int64_t rows, const O* a, A* c, bool add) const {
    return {side_, rows, g_.out, g_.in, a, nullptr, packed_, expert, c, add};
  }

  const GroupedLinearArgs<T>& g_;
  Side side_;
  bool accumulate_;
  PackedWeights* packed_;  // or null: there are no copies for this side
  int64_t n_, k_;
  int64_t threads_ = thread_count();
  const O** weights_;    // by expert, where there are no packed copies
  A* sums_ = nullptr;    // [threads, kUnitRows, n] where C is rounded
  bool strict_ = false;  // a row's bits depend on no other row
  int64_t most_tail_rows_ = 0;
  O* tails_ = nullptr;      // [threads, most_tail_rows, k]
  A* tail_sums_ = nullptr;  // [threads, most_tail_rows, n]
};

}  // namespace ziggurat::kernels
