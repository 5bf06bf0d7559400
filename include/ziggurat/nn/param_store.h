// Every parameter of a model, in a few flat slabs.
//
// A group holds the parameters that are reduced over the same ranks: the replicated ones, and for each
// distinct expert-parallel size the experts of that size. Within a group, masters, gradients, moments and
// compute copies are one slab each, in registration order, so that reducing, clipping, updating and saving
// work on ranges.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <ziggurat/autograd/param.h>
#include <ziggurat/memory/arena.h>

namespace ziggurat::nn {

struct Init {
  enum class Kind { constant, normal, uniform };
  Kind kind = Kind::constant;
  double scale = 0.0;  // the constant; the standard deviation; the half-width around zero

  static Init zeros() { return {}; }
  static Init ones() { return {Kind::constant, 1.0}; }
  static Init normal(double std) { return {Kind::normal, std}; }
  static Init uniform(double half_width) { return {Kind::uniform, half_width}; }
};

struct ParamSpec {
  std::string name;    // global: the same on every rank and in every layout
  Shape global_shape;  // of the whole tensor
  Init init;
  bool matrix = true;  // true: value in the compute dtype; false (norms, biases, router): in accum dtype
  bool decay = true;   // weight decay applies
  // Of the matrices in which products take it, for packed copies; 0: none do. The first product of a step
  // writes its gradient, and nothing needs to zero it before (see Param::unwritten).
  int64_t product_rows = 0;

  // Experts: this rank holds rows [row_begin, row_end) of the leading dim, shared over `expert_parallel`
  // ranks. Replicated parameters keep 0, 0 and 0: all rows.
  int64_t row_begin = 0, row_end = 0;
  int expert_parallel = 0;
  bool identical_rows = false;  // every row of the leading dim starts with the same values (the paper's code)
};

struct ParamEntry {
  ParamSpec spec;
  Param param;
  int group = 0;
  int64_t offset = 0;      // elements into the group's slabs
  int64_t numel = 0;       // elements held by this rank
  bool unwritten = false;  // param.unwritten points here
};

// Slabs of one group. All have `numel` elements; `gradient` has `sources` such slabs one after another
// (strict mode keeps expert gradients per source rank; otherwise 1).
struct ParamGroup {
  int expert_parallel = 0;  // 0: replicated on every rank
  int64_t numel = 0;
  int64_t sources = 1;
  Tensor master, gradient, moment1, moment2;  // accum dtype
  Tensor compute;                             // compute dtype; empty when it equals the accum dtype
};

class ParamStore {
 public:
  struct Options {
    DType compute = DType::f32;
    Device device = Device::cpu;
    uint64_t seed = 1234;
    Reproducible reproducible = Reproducible::layout;
    bool trainable = true;  // false: no gradients and moments (evaluation, a frozen teacher)
    // Tokens of a step (in inference, of a pass), to know which packed copies pay; 0: none, as in strict
    // training.
    int64_t step_tokens = 0;
  };
  explicit ParamStore(const Options& options) : options_(options) {}

  // Registers a parameter; its tensors are filled in by finalize(). The reference stays valid.
  // Throws Error(internal) on a second parameter of the same name.
  Param& add(ParamSpec spec);

  // Allocates the slabs, draws initial values as a function of (seed, name, element), zeroes gradients and
  // moments.
  void finalize();

  void zero_gradients();          // those of products when their first product comes, or
  void settle_gradients();        // now: before anything but ops reads gradients
  void refresh_compute_copies();  // compute = round(master), after loading a checkpoint
  void expire_packed();           // after any other change of compute copies: packed ones are made anew
  int64_t packed_bytes() const;

  const Options& options() const { return options_; }
  std::deque<ParamEntry>& entries() { return entries_; }
  const std::deque<ParamEntry>& entries() const { return entries_; }
  std::vector<ParamGroup>& groups() { return groups_; }
  const ParamEntry& find(const std::string& name) const;  // throws Error(argument)

  int64_t local_parameters() const;   // held by this rank
  int64_t global_parameters() const;  // of the model

  // Views on an entry's piece of a slab, shaped [rows held, ...].
  Tensor master(const ParamEntry& entry) const {
    return piece(groups_.at(size_t(entry.group)).master, entry);
  }
  Tensor moment1(const ParamEntry& entry) const {
    return piece(groups_.at(size_t(entry.group)).moment1, entry);
  }
  Tensor moment2(const ParamEntry& entry) const {
    return piece(groups_.at(size_t(entry.group)).moment2, entry);
  }

 private:
  static Shape local_shape(const ParamSpec& spec);
  static Tensor piece(const Tensor& slab, const ParamEntry& entry);
  void draw(const ParamEntry& entry);
  void add_packed_copies();

  Options options_;
  std::deque<ParamEntry> entries_;
  std::unordered_map<std::string, size_t> by_name_;  // places in entries_
  std::vector<ParamGroup> groups_;
  std::unique_ptr<Arena> arena_, packed_arena_;
  std::deque<kernels::PackedWeights> packed_;
};

}  // namespace ziggurat::nn
