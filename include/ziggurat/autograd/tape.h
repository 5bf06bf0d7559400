// Reverse-mode differentiation on an explicit tape. It knows no op.
//
// An op computes its output, then records a closure that turns the output's gradient into its inputs'
// gradients:
//
//   Var y = tape.output(x.dtype(), x.shape(), x.wants_grad());
//   ... forward kernel ...
//   tape.record(y, [=](Tape& t, const Tensor& dy) {
//     if (GradSlot dx = t.grad_slot(x)) { ... kernel writes dx.grad, or adds to it if dx.accumulate ... }
//   });
//
// Values, closures and saved tensors live in the activation arena until reset(); gradients of activations
// live in a pool that reuses memory as soon as a gradient has been consumed. Neither allocates in steady
// state.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <new>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <ziggurat/core/philox.h>
#include <ziggurat/kernels/micro_batch_numbers.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

// Which micro-batch it is. Random numbers are made of seed, step and index: never of rank, thread or call
// order. What differs between the micro-batches of a run's steps, `first` apart, kernels read from numbers().
struct MicroBatch {
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t index = 0;  // numbered globally within the step
  int64_t count = 1;  // micro-batches in the step: a loss averaged over micro-batches is scaled by 1 / count
  bool first = true;  // of those that this rank has of the step
  double token_weight = 1;  // d(loss of the step) / d(loss of one token), e.g. 1 / tokens in the step
  // Of the rank: its part of the micro-batch's tokens, where ranks share them (tensor parallelism).
  int shard = 0;
  bool training = true;  // false: no dropout, no noise, nothing is recorded

  // Experts take every token, whatever their capacity: where a text must not depend on its neighbours.
  bool dropless = false;
  // While planning: as if all tokens of all ranks chose experts of this one, rather than balanced.
  bool worst_routing = false;

  // The part of a random stream's name that says when: unique for (step, index).
  uint64_t moment() const { return (static_cast<uint64_t>(step) << 24) + static_cast<uint64_t>(index); }
  kernels::MicroBatchNumbers numbers() const {
    return {moment(), token_weight, 1.0 / static_cast<double>(count)};
  }
};

struct Param;

// Told of the gradients of parameters as backward goes on.
class GradientFollower {
 public:
  virtual ~GradientFollower() = default;
  virtual void before_write(const Param& param) = 0;  // something is about to be added to param.grad
  virtual void complete(const Param& param) = 0;      // and nothing more will be, of this micro-batch
  virtual void between_steps() = 0;                   // of backward: time to look after something else
};

struct VarNode {
  Tensor value;
  Tensor grad;  // empty until some consumer's backward wrote it
  bool wants_grad = false;
};

// A value on the tape: a handle, copied freely, valid until the tape is reset.
class Var {
 public:
  Var() = default;
  explicit Var(VarNode* node) : node_(node) {}
  explicit operator bool() const { return node_ != nullptr; }
  const Tensor& value() const { return node_->value; }
  const Shape& shape() const { return node_->value.shape(); }
  int64_t dim(int i) const { return node_->value.dim(i); }
  DType dtype() const { return node_->value.dtype(); }
  bool wants_grad() const { return node_->wants_grad; }

 private:
  friend class Tape;
  VarNode* node_ = nullptr;
};

// Where an op's backward puts the gradient of one input: empty if the input wants none.
struct GradSlot {
  Tensor grad;
  bool accumulate = false;  // add to grad instead of overwriting it
  explicit operator bool() const { return static_cast<bool>(grad); }
};

class Tape {
 public:
  Tape(Arena& activations, Arena& gradients, Arena& workspace, Stream& stream)
      : activations_(activations), gradients_(gradients), workspace_(workspace), stream_(stream) {
    free_.reserve(kSizeClasses);
  }

  // --- forward ---
  void begin(const MicroBatch& micro_batch);  // forgets everything and starts a micro-batch
  const MicroBatch& micro_batch() const { return micro_batch_; }
  // For kernels, where the tape's values lie: at the same place for every micro-batch.
  const kernels::MicroBatchNumbers* numbers() const { return numbers_; }
  LatePhilox random(Purpose purpose, int64_t layer) const {
    return {micro_batch_.seed, purpose, static_cast<uint64_t>(layer), &numbers_->moment};
  }
  // Of an array of which this rank has `elements`, its shard: which of all is its first. Throws
  // Error(internal) unless that is a multiple of 4, as random numbers come.
  int64_t first_of_shard(int64_t elements) const;
  bool recording() const { return recording_; }
  bool recomputing() const {
    return recomputing_;
  }  // second forward of a segment: don't count statistics twice

  Var constant(const Tensor& value);                      // an input without gradient
  Var variable(const Tensor& value);                      // an input whose gradient is wanted
  Var output(DType dtype, Shape shape, bool wants_grad);  // uninitialised result of an op
  Var view(Var x, Shape shape);                           // same memory, other shape; gradients pass through

  // Memory that lives as long as the values: for what backward needs besides inputs and outputs.
  Tensor save(DType dtype, Shape shape) { return allocate(activations_, dtype, shape); }
  template <class T>
  T* save_array(int64_t n) {
    return activations_.take<T>(n);
  }
  Arena& workspace() { return workspace_; }  // use with ArenaScope
  Stream& stream() { return stream_; }

  // backward(Tape&, const Tensor& dy) runs once the gradient of `output` is complete; it is skipped if nobody
  // used `output`. The closure lives in the arena: capture Vars, Tensors, pointers and numbers only.
  // `written`: the parameters whose gradients it adds to; null ones and frozen ones are passed over. Inside a
  // recomputed segment, ones that no other step writes.
  template <class F>
  void record(Var output, F backward) {
    record(output, {}, backward);
  }
  template <class F>
  void record(Var output, std::initializer_list<const Param*> written, F backward) {
    static_assert(std::is_trivially_copyable_v<F> && std::is_trivially_destructible_v<F>,
                  "a recorded closure lives in the arena and is never destroyed");
    if (!recording_ || !output.wants_grad()) return;
    struct Entry : Node {
      F backward;
    };
    auto* entry = new (activations_.allocate(sizeof(Entry)))
        Entry{{last_, output.node_, nullptr, expect(written)}, backward};
    entry->run = [](Node* node, Tape& tape, const Tensor& dy) {
      static_cast<Entry*>(node)->backward(tape, dy);
    };
    last_ = entry;
  }

  // y = segment(x), keeping only x: the segment runs again in backward. `segment` is Var(Tape&, Var), with
  // the same rules as a recorded closure, and must be deterministic for the micro-batch (collectives
  // included).
  template <class F>
  Var recompute(Var x, F segment) {
    const Arena::Mark mark = activations_.mark();
    const bool records = std::exchange(recording_, false);
    const Tensor y_value = segment(*this, x).value();
    recording_ = records;
    if (!records) return constant(keep(y_value, mark));
    const Var y = variable(keep(y_value, mark));
    record(y, [=](Tape& tape, const Tensor& dy) {
      tape.replay(x, dy, [&](Tape& inner, Var input) { return segment(inner, input); });
    });
    return y;
  }

  // The value of y = segment(tape), Var(Tape&), as in inference: without dropout and noise, experts drop
  // nothing, and nothing is recorded. Only y stays in memory.
  template <class F>
  Tensor apart(const F& segment) {
    const Arena::Mark mark = activations_.mark();
    const MicroBatch around = micro_batch_;
    const bool records = std::exchange(recording_, false);
    micro_batch_.training = false;
    micro_batch_.dropless = true;
    const Tensor y = segment(*this).value();
    micro_batch_ = around;
    recording_ = records;
    return keep(y, mark);
  }

  // For an op that writes a parameter's gradient without recording a step: before and after. Pairs may stand
  // around others: the gradient is complete after the last.
  void before_write(const Param& param);
  void after_write(const Param& param);
  // From now on told of gradients; null: nobody is.
  void set_follower(GradientFollower* follower) { follower_ = follower; }

  // --- backward ---
  // Starts from `root` with gradient `seed` (same shape), or, without arguments, from gradients that ops have
  // already put into their inputs (a fused loss does so).
  void backward(Var root, const Tensor& seed);
  void backward();

  GradSlot grad_slot(Var x);
  // x's gradient += dy, without a copy where x has none yet.
  void pass_grad(Var x, const Tensor& dy);
  const Tensor& grad(Var x) const { return x.node_->grad; }

 private:
  struct Node {
    Node* previous;
    VarNode* output;
    void (*run)(Node*, Tape&, const Tensor& dy);
    std::span<const Param* const> written;
  };
  static constexpr size_t kSizeClasses = 512;  // of free blocks, at most: eight for each power of two

  // A piece of gradient memory, shared by `owners` variables.
  struct Block {
    void* data;
    int64_t bytes;
    int owners;
    int64_t next_free;  // another one of this size; -1: none
  };
  struct FreeBlocks {  // of one size
    int64_t bytes;
    int64_t first;
  };

  Tensor keep(const Tensor& value, Arena::Mark mark);  // rewinds, but moves the value down to the mark
  template <class F>
  void replay(Var x, const Tensor& dy, const F& segment) {
    const Arena::Mark mark = activations_.mark();
    Node* const outer = std::exchange(last_, nullptr);
    const bool was_recomputing = std::exchange(recomputing_, true);
    recording_ = true;
    const Var input = x.wants_grad() ? variable(x.value()) : constant(x.value());
    backward(segment(*this, input), dy);
    if (input.node_->grad) {
      pass_grad(x, input.node_->grad);
      release(input.node_->grad);
    }
    recomputing_ = was_recomputing;
    last_ = outer;
    activations_.rewind(mark);
  }
  std::span<const Param* const> expect(std::initializer_list<const Param*> written);
  void end_write(const Param& param);
  void unwind();  // runs the recorded closures, newest first
  Tensor acquire(DType dtype, Shape shape);
  Block* block_of(const Tensor& grad);
  std::vector<FreeBlocks>::iterator free_of(int64_t bytes);
  void release(Tensor& grad);

  Arena &activations_, &gradients_, &workspace_;
  Stream& stream_;
  MicroBatch micro_batch_;
  kernels::MicroBatchNumbers* numbers_ = nullptr;
  bool recording_ = false, recomputing_ = false;
  Node* last_ = nullptr;
  GradientFollower* follower_ = nullptr;
  std::vector<Block> blocks_;     // in the order of their addresses
  std::vector<FreeBlocks> free_;  // in the order of their sizes
};

}  // namespace ziggurat
