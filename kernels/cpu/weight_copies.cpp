#include <unordered_map>

#include <ziggurat/core/error.h>
#include <ziggurat/kernels/weight_copies.h>
#include <ziggurat/memory/arena.h>

namespace ziggurat::kernels {

namespace {

class WeightCopies : public StreamCache {
 public:
  explicit WeightCopies(Device device)
      : memory_("packed weights", is_meta(device) ? Arena::kUnlimited : Arena::all_memory(), device) {}

  int64_t bytes() const override { return memory_.used(); }

  // None of `sides`, or without products of the library: null, also later.
  template <class T>
  PackedWeights* of(const T* weight, uint64_t version, int64_t total, int64_t rows, int64_t in,
                    std::optional<Copies> sides) {
    const auto [at, is_new] = entries_.try_emplace(weight);
    Entry& entry = at->second;
    if (is_new && sides && PackedWeights::supported<T>(total, rows, in, *sides)) {
      entry.copies.emplace(weight, total, rows, in, *sides, memory_);
      entry.version = version;
    }
    if (!entry.copies) return nullptr;
    check(entry.copies->in() == in && entry.copies->out(0) == std::min(rows, total), ErrorKind::internal,
          "[weight_copies] a weight [{}, {}] at the address of one [{}, {}]", rows, in, entry.copies->out(0),
          entry.copies->in());
    if (entry.version != version) {
      entry.copies->expire();
      entry.version = version;
    }
    return &*entry.copies;
  }

 private:
  struct Entry {
    uint64_t version = 0;
    std::optional<PackedWeights> copies;
  };
  Arena memory_;
  std::unordered_map<const void*, Entry> entries_;
};

template <class T>
std::optional<Copies> copies_for(WeightRole role, const Stream& stream) {
  switch (role) {
    case WeightRole::frozen:
      return stream.weight_rows() == Stream::kAllRows ? std::optional(Copies::forward) : std::nullopt;
    case WeightRole::expert:
      return Copies::both;
    case WeightRole::shared:
      return copies_that_pay<T>(stream.weight_rows());
  }
  return std::nullopt;
}

}  // namespace

template <class T>
PackedWeights* weight_copies(WeightRole role, const T* weight, uint64_t version, int64_t total, int64_t rows,
                             int64_t in, Stream& stream) {
  if constexpr (std::is_same_v<T, double>) {
    return nullptr;
  } else {
    const bool refused = stream.strict() && role != WeightRole::frozen;
    if (version == 0 || stream.weight_rows() == 0 || refused || planned(stream.device()) != Device::cpu) {
      return nullptr;
    }
    if (!stream.cache()) stream.cache() = std::make_unique<WeightCopies>(stream.device());
    return static_cast<WeightCopies&>(*stream.cache())
        .of(weight, version, total, rows, in, copies_for<T>(role, stream));
  }
}

template PackedWeights* weight_copies<float>(WeightRole, const float*, uint64_t, int64_t, int64_t, int64_t,
                                             Stream&);
template PackedWeights* weight_copies<bf16>(WeightRole, const bf16*, uint64_t, int64_t, int64_t, int64_t,
                                            Stream&);
template PackedWeights* weight_copies<double>(WeightRole, const double*, uint64_t, int64_t, int64_t, int64_t,
                                              Stream&);

}  // namespace ziggurat::kernels
