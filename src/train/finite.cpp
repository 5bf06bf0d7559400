#include <algorithm>
#include <atomic>
#include <bit>
#include <type_traits>

#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/finite.h>

namespace ziggurat::train {

namespace {

// By bits: comparing exponents takes vector registers, and no compiler flag can reason it away.
template <class T>
bool finite(const T* values, int64_t begin, int64_t end) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  const Bits exponent = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  Bits bad = 0;
  for (int64_t i = begin; i < end; ++i) {
    bad |= static_cast<Bits>((std::bit_cast<Bits>(values[i]) & exponent) == exponent);
  }
  return bad == 0;
}

// The first element that is not finite, or -1.
template <class T>
int64_t first_in(const Tensor& tensor) {
  const T* const values = tensor.data<T>();
  constexpr int64_t kBlock = 1 << 16;
  std::atomic<int64_t> first = tensor.numel();
  parallel_for_blocks(tensor.numel(), kBlock, [&](int64_t begin, int64_t end) {
    if (finite(values, begin, end)) return;
    while (finite(values, begin, begin + 1)) ++begin;
    for (int64_t now = first; begin < now && !first.compare_exchange_weak(now, begin);) {
    }
  });
  return first == tensor.numel() ? -1 : first.load();
}

int64_t first_in(const Tensor& tensor) {
  return tensor.dtype() == DType::f64 ? first_in<double>(tensor) : first_in<float>(tensor);
}

}  // namespace

std::string first_not_finite(nn::ParamStore& store, Communicator& world) {
  std::string mine;
  int64_t number = 0;
  for (const nn::ParamEntry& entry : store.entries()) {
    const std::pair<const char*, Tensor> tensors[] = {{"weight", store.master(entry)},
                                                      {"first moment", store.moment1(entry)},
                                                      {"second moment", store.moment2(entry)}};
    for (const auto& [what, tensor] : tensors) {
      const int64_t element = mine.empty() ? first_in(tensor) : -1;
      if (element < 0) continue;
      mine = fmt::format("{:09d} {}, {}, element {} on rank {}", number, entry.spec.name, what, element,
                         world.rank());
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
