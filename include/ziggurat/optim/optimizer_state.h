// What an optimizer keeps of a model's parameters: exact values and moments, of the elements that this rank
// updates (ParamGroup::owned).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <ziggurat/nn/param_store.h>

namespace ziggurat {

// What an optimizer keeps of a parameter beside its exact value: a number for each element, or of matrices
// [..., rows, cols] for each row or each column.
struct MomentSpec {
  enum class Over { elements, rows, columns };
  std::string name;  // a checkpoint has it as "<name>.<parameter>"
  Over over = Over::elements;
};

class OptimizerState {
 public:
  // A group's owned range. Masters are of accum dtype unless values are to do without.
  struct Group {
    Tensor masters;  // [owned]; where values have none beside them, these themselves
    Tensor rounded;  // [owned] the values that are rounded masters; or empty
  };
  // Of an entry, as far as this rank owns it: elements [first, first + held.numel()) of a tensor of
  // `global_shape`, counted row by row; over elements, as the entry is cut (nn::for_each_held_box).
  struct Moment {
    std::string name;
    Shape global_shape;
    int64_t first = 0;
    Tensor held;  // flat; accum dtype or bf16
  };
  struct Options {
    std::function<std::vector<MomentSpec>(const nn::ParamSpec&)> moments;
    bool bf16_moments = false;
    bool bf16_masters = false;  // where values are bf16
  };

  // Draws masters as the store drew values, and zeroes the moments. `store` is finalized; it and `groups`
  // outlive the state. Moments over rows or columns are of parameters that the rank owns matrix by matrix,
  // else Error(internal).
  OptimizerState(nn::ParamStore& store, const ProcessGroups& groups, Options options);

  const nn::ParamStore& store() const { return store_; }
  const std::vector<Group>& groups() const { return groups_; }

  // Views on what is held of an entry: flat, [store().owned(entry)].
  Tensor master(const nn::ParamEntry& entry) const { return held(group_of(entry).masters, entry); }
  Tensor rounded(const nn::ParamEntry& entry) const;  // or empty
  const std::vector<Moment>& moments(const nn::ParamEntry& entry) const { return moments_.at(&entry); }
  const Tensor& moment(const nn::ParamEntry& entry, size_t number) const {
    return moments(entry).at(number).held;
  }
  int64_t bytes_of_masters() const;  // beside the store's values
  int64_t bytes_of_moments() const;

  // In the order of the stream. After a change of masters (a checkpoint was loaded): values = round(masters),
  // on every rank. Collective.
  void publish(Stream& stream);
  // After one of masters and the rounded values, as an update makes: every rank gets those of the others.
  // `behind`: they are on their way, first those that are used first (ParamStore::await_values). Collective.
  void share(Stream& stream, bool behind = false);

 private:
  const Group& group_of(const nn::ParamEntry& entry) const {
    return groups_.at(static_cast<size_t>(entry.group));
  }
  Tensor held(const Tensor& slab, const nn::ParamEntry& entry) const;
  void draw_masters();

  nn::ParamStore& store_;
  const ProcessGroups& ranks_;
  Options options_;
  std::unique_ptr<Arena> arena_;
  std::vector<Group> groups_;
  std::unordered_map<const nn::ParamEntry*, std::vector<Moment>> moments_;
};

}  // namespace ziggurat
