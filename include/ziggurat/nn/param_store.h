// Values and gradients of every parameter of a model, in a few flat slabs.
//
// A group holds the parameters that are reduced over the same ranks and have values of one dtype: the
// replicated ones, and for each distinct expert-parallel size the experts of that size; of each matrices and
// the rest, where they differ in dtype. They come in groups of some MiB, so that the gradients of one can be
// reduced while backward works on those of the next. Within a group, values and gradients are one slab each,
// in registration order, so that reducing, clipping, updating and saving work on ranges. What an optimizer
// keeps beside them is its own (optim/optimizer_state.h).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <ziggurat/autograd/param.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/plan/process_groups.h>
#include <ziggurat/tensor/box.h>
#include <ziggurat/tensor/host_pieces.h>

namespace ziggurat::nn {

struct Init {
  enum class Kind { constant, normal, uniform, truncated_normal };
  Kind kind = Kind::constant;
  double scale = 0.0;  // the constant; the standard deviation; the half-width around zero
  // Elements [0, first_elements) of the global tensor start with first_factor times what is drawn.
  int64_t first_elements = 0;
  double first_factor = 1.0;

  static Init zeros() { return {}; }
  static Init ones() { return {Kind::constant, 1.0}; }
  static Init normal(double std) { return {Kind::normal, std}; }
  // Cut at two standard deviations of the normal distribution, whose own is larger for that: what is drawn
  // has `std` (jax.nn.initializers.variance_scaling).
  static Init truncated_normal(double std) { return {Kind::truncated_normal, std}; }
  static Init uniform(double half_width) { return {Kind::uniform, half_width}; }
};

struct ParamSpec {
  std::string name;    // global: the same on every rank and in every layout
  Shape global_shape;  // of the whole tensor
  Init init;
  bool matrix = true;  // true: value in the compute dtype; false (norms, biases, router): in accum dtype
  bool decay = true;   // weight decay applies
  // Of the learning rate of Adam, not of what decays in a step; and by how much smaller than others of its
  // kind it starts, from which other optimizers' follow (model/width_rules.h).
  double lr_scale = 1, width_init = 1;
  // Products take it, and nothing else does: the first one of a step writes its gradient, and nothing needs
  // to zero it before (see Param::unwritten).
  bool product = false;
  bool small_product = false;  // a product takes it too, in accum dtype: for panels alone

  // Experts: this rank holds rows [row_begin, row_end) of the leading dim, shared over `expert_parallel`
  // ranks. Replicated parameters keep 0, 0 and 0: all rows.
  int64_t row_begin = 0, row_end = 0;
  int expert_parallel = 0;
  // Cut over a tensor-parallel group, experts over an expert-tensor-parallel one: this rank holds these
  // boxes, of which each has the others' extent in all dims but the leading one, along which they follow each
  // other in what is held. None: all, or those rows.
  std::vector<Box> cut = {};
  // Elements that it takes in its group's slabs at least: what one rank of several holds alone takes as much
  // on the others, so that their groups are alike.
  int64_t room = 0;
  bool identical_rows = false;  // every row of the leading dim starts with the same values (the paper's code)
};

// What a rank holds of a parameter: its boxes, and the shape of what they make up.
std::vector<Box> held_boxes(const ParamSpec& spec);
Shape held_shape(const ParamSpec& spec);
// Of elements [begin, end) of what is held, counted row by row: calls f(box of the global tensor, elements
// from `begin` to the box's first), in order. Each box lies in one piece of memory.
void for_each_held_box(const ParamSpec& spec, int64_t begin, int64_t end,
                       const std::function<void(const Box& box, int64_t at)>& f);
// The same for elements that are consecutive in the global tensor too: f(first of n there, at, n).
void for_each_held_run(const ParamSpec& spec, int64_t begin, int64_t end,
                       const std::function<void(int64_t first, int64_t at, int64_t n)>& f);

// Rows of a tensor whose leading dim is made of `pieces` (queries, keys, values), each of which is cut into
// `parts` equal ones: the boxes of part number `part`. A piece that cannot be cut is Error(config).
std::vector<Box> cut_rows(const Shape& shape, const std::vector<int64_t>& pieces, int64_t part,
                          int64_t parts);
// Part number `part` of `parts` equal ones of a box, cut along `dim`. One that cannot be cut is
// Error(config).
Box share_of(const Box& box, int dim, int64_t part, int64_t parts);
// The last dim of a matrix, as one piece.
std::vector<Box> cut_columns(const Shape& shape, int64_t part, int64_t parts);

struct ParamEntry {
  ParamSpec spec;
  Param param;
  int group = 0;
  int64_t offset = 0;      // elements into the group's slabs
  int64_t numel = 0;       // elements held by this rank
  int64_t first = 0;       // the first of them in the global tensor, whose elements are counted row by row
  bool unwritten = false;  // param.unwritten points here
  ParamUse use;            // and param.use here
};

// Slabs of one group. Both have `numel` elements; `gradient` has `sources` such slabs one after another
// (strict mode keeps expert gradients per source rank; otherwise 1). With `scattered` it holds what this rank
// owns of the sum over ranks so far, and nothing else: while backward writes a group's gradients somebody
// lends it memory for all of them (ZeRO-2).
struct ParamGroup {
  int expert_parallel = 0;  // 0: replicated on every rank, or
  bool cut = false;         // cut over the tensor-parallel group, experts over theirs
  DType dtype = DType::f32;
  int64_t numel = 0;
  int64_t sources = 1;
  IndexRange owned;  // the elements that this rank's optimizer updates: all, unless shard() cut them
  Tensor values;     // dtype
  bool scattered = false;
  Tensor gradient;  // accum dtype; empty: frozen

  bool sharded() const { return owned.size() < numel; }
};

// The ranks that hold the same elements of a group. Each has computed with them on tokens, or heads, of its
// own: their gradients add up.
inline Communicator& replicas(const ParamGroup& group, const ProcessGroups& groups) {
  if (group.expert_parallel > 0) return groups.expert_dp(group.expert_parallel);
  return group.cut ? groups.dp() : groups.world();
}

class ParamStore {
 public:
  struct Options {
    DType compute = DType::f32;
    Device device = Device::cpu;
    uint64_t seed = 1234;
    Reproducible reproducible = Reproducible::layout;
    bool trainable = true;  // false: no gradients (evaluation, a frozen teacher)
    // Of the gradients of a group, which more than one parameter does not exceed.
    int64_t group_bytes = int64_t{1} << 25;
  };
  explicit ParamStore(const Options& options) : options_(options) { values_changed(); }

  // Registers a parameter; its tensors are filled in by finalize(). The reference stays valid.
  // Throws Error(internal) on a second parameter of the same name.
  Param& add(ParamSpec spec);

  // Registers numbers that a layer keeps beside its parameters, on the store's device: neither trained nor
  // saved. finalize() fills the tensor in, with zeros. The reference stays valid.
  const Tensor& add_state(DType dtype, Shape shape);

  // ZeRO: cuts the slabs of each group, padded for that, into equal ranges, one for each of its replicas().
  // Before finalize().
  // `scatter_gradients`: see ParamGroup::scattered; where ranks share anything.
  void shard(const ProcessGroups& groups, bool scatter_gradients = false);

  // Allocates the slabs, draws initial values as a function of (seed, name, element), the same bits on every
  // device, zeroes gradients. Done when it returns.
  void finalize();

  // In the order of the stream, which is one of options().device.
  void zero_gradients(Stream& stream);    // those of products when their first product comes, or
  void settle_gradients(Stream& stream);  // now: before anything but ops reads gradients
  // Of a scattered group: its parameters' gradients are zeros in `slab` [numel] from now on; or nowhere.
  void lend_gradients(size_t group, const Tensor& slab, Stream& stream);
  void values_changed();  // whoever changes values says so (Param::version)
  // Values of a group that are still on their way from the ranks which updated them (ZeRO): who reads them,
  // or changes what they are sent from, first waits. A layer's groups are those of its entries.
  void expect_values(size_t group, Work arrival);
  void await_values(size_t group) const;
  void await_values() const;   // of all groups
  int64_t int8_bytes() const;  // of weights of 8 bits
  // Rearranges the weights of products into panels, where they lie (kernels/panel_linear.h). For stores that
  // are not trainable, on the CPU, once their values are final: from then on only ops of inference read them.
  void to_panels();
  // The same, the weights of linear layers, experts and vocabulary head as the nearest numbers of 8 bits
  // (kernels::Int8Weights), in memory of their own; what the weights took goes back to the system, one after
  // another. Not for f64.
  void to_int8_panels();

  const Options& options() const { return options_; }
  std::deque<ParamEntry>& entries() { return entries_; }
  const std::deque<ParamEntry>& entries() const { return entries_; }
  const std::vector<ParamGroup>& groups() const { return groups_; }
  const ParamGroup& group_of(const ParamEntry& entry) const {
    return groups_.at(static_cast<size_t>(entry.group));
  }
  const ParamEntry& find(const std::string& name) const;  // throws Error(argument)

  int64_t local_parameters() const;   // held by this rank
  int64_t global_parameters() const;  // of the model

  // Which of an entry's `numel` elements this rank owns; may be none.
  IndexRange owned(const ParamEntry& entry) const;
  // What this rank keeps of its gradient between micro-batches, and so of the step's: flat, of these
  // elements.
  IndexRange kept(const ParamEntry& entry) const;
  Tensor kept_gradient(const ParamEntry& entry) const;
  Tensor owned_gradient(const ParamEntry& entry) const;

 private:
  static Tensor piece(const Tensor& slab, const ParamEntry& entry);
  ParamGroup& group_for(const ParamSpec& spec);
  void draw(const ParamEntry& entry, HostPieces& pieces);

  Options options_;
  std::deque<ParamEntry> entries_;
  std::unordered_map<std::string, size_t> by_name_;  // places in entries_
  std::vector<ParamGroup> groups_;
  std::deque<Tensor> states_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<Arena> int8_arena_;  // of weights of 8 bits
  uint64_t version_;                   // param.version points here
  // By group. Behind the arenas: what is on its way lands there before they go.
  mutable std::map<size_t, Work> arrivals_;
};

}  // namespace ziggurat::nn
