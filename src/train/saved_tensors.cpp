#include "train/saved_tensors.h"

#include <algorithm>
#include <map>

#include "train/resume_checks.h"

namespace ziggurat::train {

namespace {

// A range of a tensor, counted row by row; where `cut` is given of what a rank holds of that parameter.
struct Held {
  std::string name;
  Shape shape;
  int64_t first = 0;
  Tensor values;  // flat
  const nn::ParamSpec* cut = nullptr;
};

std::vector<Held> held_of(const OptimizerState& state, const nn::ParamEntry& entry) {
  const std::string& name = entry.spec.name;
  const int64_t first = state.store().owned(entry).begin;
  std::vector<Held> all = {{name, entry.spec.global_shape, first, state.master(entry), &entry.spec}};
  for (const OptimizerState::Moment& moment : state.moments(entry)) {
    const bool by_element = moment.global_shape == entry.spec.global_shape;
    all.push_back({saved_name(moment.name, name), moment.global_shape, by_element ? first : moment.first,
                   moment.held, by_element ? &entry.spec : nullptr});
  }
  return all;
}

// Of elements [begin, end) of what is held.
void add_boxes(const Held& held, int64_t begin, int64_t end, std::vector<TensorSlice>& slices) {
  const auto add = [&](const Box& box, int64_t at) {
    slices.push_back({held.name, held.shape, box,
                      held.values.rows(begin + at, begin + at + box.numel()).reshape(box.extent)});
  };
  if (held.cut != nullptr) return nn::for_each_held_box(*held.cut, held.first + begin, held.first + end, add);
  int64_t at = 0;
  for (const Box& box : boxes_of(held.shape, held.first + begin, held.first + end)) {
    add(box, at);
    at += box.numel();
  }
}

// The bytes of a group's tensors, one after another, cut into equal shares.
struct Shares {
  int64_t total = 0, passed = 0;
};

}  // namespace

std::vector<TensorSlice> held_tensors(const OptimizerState& state) {
  std::vector<TensorSlice> slices;
  for (const nn::ParamEntry& entry : state.store().entries()) {
    for (const Held& held : held_of(state, entry)) add_boxes(held, 0, held.values.numel(), slices);
  }
  return slices;
}

std::vector<TensorSlice> tensors_to_write(const OptimizerState& state, const ProcessGroups& groups) {
  const auto& entries = state.store().entries();
  std::map<int, Shares> shares;  // by group
  for (const nn::ParamEntry& entry : entries) {
    for (const Held& held : held_of(state, entry)) shares[entry.group].total += held.values.bytes();
  }
  std::vector<TensorSlice> slices;
  for (const nn::ParamEntry& entry : entries) {
    const nn::ParamGroup& group = state.store().group_of(entry);
    const Communicator& same = nn::replicas(group, groups);
    // What is shared out already is nobody else's to write.
    const int64_t ranks = group.sharded() ? 1 : same.size(), me = group.sharded() ? 0 : same.rank();
    Shares& share = shares[entry.group];
    for (const Held& held : held_of(state, entry)) {
      const int64_t n = held.values.numel(), size = size_of(held.values.dtype());
      // An element belongs to the rank in whose share its first byte lies.
      const auto first_of = [&](int64_t rank) {
        const int64_t byte = share.total / ranks * rank + share.total % ranks * rank / ranks - share.passed;
        return byte <= 0 ? 0 : std::min(n, (byte + size - 1) / size);
      };
      add_boxes(held, first_of(me), first_of(me + 1), slices);
      share.passed += held.values.bytes();
    }
  }
  return slices;
}

}  // namespace ziggurat::train
