#include <algorithm>
#include <atomic>

#include <ziggurat/core/finite.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/tensor/host_pieces.h>
#include <ziggurat/train/finite.h>

namespace ziggurat::train {

namespace {

// The first element that is not finite, or -1.
template <class T>
int64_t first_in(const Tensor& tensor) {
  const T* const values = tensor.data<T>();
  constexpr int64_t kBlock = 1 << 16;
  std::atomic<int64_t> first = tensor.numel();
  parallel_for_blocks(tensor.numel(), kBlock, [&](int64_t begin, int64_t end) {
    if (all_finite(values, begin, end)) return;
    while (all_finite(values, begin, begin + 1)) ++begin;
    for (int64_t now = first; begin < now && !first.compare_exchange_weak(now, begin);) {
    }
  });
  return first == tensor.numel() ? -1 : first.load();
}

}  // namespace

int64_t first_not_finite(const Tensor& tensor, HostPieces& pieces) {
  int64_t found = -1;
  pieces.read(tensor, [&](const Tensor& piece, int64_t first) {
    if (found >= 0) return;
    visit_float_dtype(piece.dtype(), [&]<class T>() {
      const int64_t in_piece = first_in<T>(piece);
      if (in_piece >= 0) found = first + in_piece;
    });
  });
  return found;
}

std::string first_not_finite(const OptimizerState& state, Communicator& world) {
  std::string mine;
  int64_t number = 0;
  HostPieces pieces;
  for (const nn::ParamEntry& entry : state.store().entries()) {
    const auto look = [&](const std::string& what, const Tensor& tensor) {
      const int64_t element = mine.empty() ? first_not_finite(tensor, pieces) : -1;
      if (element < 0) return;
      mine = fmt::format("{:09d} {}, {}, element {} on rank {}", number, entry.spec.name, what,
                         state.store().owned(entry).begin + element, world.rank());
    };
    look("weight", state.master(entry));
    if (const Tensor rounded = state.rounded(entry)) look("rounded weight", rounded);
    for (const OptimizerState::Moment& moment : state.moments(entry)) {
      look("moment " + moment.name, moment.held);
    }
    ++number;
  }
  std::string first;
  for (const std::string& found : world.all_gather_text(mine)) {
    if (!found.empty() && (first.empty() || found < first)) first = found;
  }
  return first.empty() ? first : first.substr(first.find(' ') + 1);
}

}  // namespace ziggurat::train
