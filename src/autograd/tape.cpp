#include <algorithm>
#include <bit>
#include <functional>

#include <ziggurat/autograd/accumulate.h>
#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>

namespace ziggurat {

namespace {

// Experts' gradients have other numbers of rows in every layer. Sizes are rounded up to a sixteenth to an
// eighth of themselves, so that nearly equal ones find each other's memory; the usual sizes, small multiples
// of a power of two, stay as they are.
int64_t size_class(int64_t bytes) {
  const auto step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes)) / 8);
  return step > 0 ? (bytes + step - 1) / step * step : bytes;
}

}  // namespace

void Tape::begin(const MicroBatch& micro_batch) {
  micro_batch_ = micro_batch;
  recording_ = micro_batch.training;
  last_ = nullptr;
  blocks_.clear();
  free_.clear();
  activations_.reset();
  gradients_.reset();
  numbers_ = activations_.take_on_device<kernels::MicroBatchNumbers>(1);
  const Tensor place(numbers_, DType::f64, {3}, activations_.device());
  visit_kernels<kernels::MicroBatchNumbersKernels>(place, [&]<Device D, class T>() {
    kernels::write_numbers<D>(micro_batch.numbers(), numbers_, stream_);
  });
}

int64_t Tape::first_of_shard(int64_t elements) const {
  const int64_t first = micro_batch_.shard * elements;
  check(first % 4 == 0, ErrorKind::internal, "[tape] shard {} of an array begins at element {}",
        micro_batch_.shard, first);
  return first;
}

Var Tape::constant(const Tensor& value) {
  return Var(new (activations_.allocate(sizeof(VarNode))) VarNode{value, {}, false});
}

Var Tape::variable(const Tensor& value) {
  return Var(new (activations_.allocate(sizeof(VarNode))) VarNode{value, {}, true});
}

Var Tape::output(DType dtype, Shape shape, bool wants_grad) {
  auto* node = new (activations_.allocate(sizeof(VarNode))) VarNode{{}, {}, wants_grad && recording_};
  node->value = allocate(activations_, dtype, shape);
  return Var(node);
}

Var Tape::view(Var x, Shape shape) {
  const Var y(new (activations_.allocate(sizeof(VarNode)))
                  VarNode{x.value().reshape(shape), {}, x.wants_grad()});
  record(y, [=](Tape& t, const Tensor& dy) { t.pass_grad(x, dy); });
  return y;
}

// The node is created afterwards: it may land where the value was.
Var Tape::keep(const Tensor& value, Arena::Mark mark) {
  if (planned(value.device()) == Device::cpu) {
    void* const data = activations_.rewind_keeping(mark, value.raw(), value.bytes());
    return variable(Tensor(data, value.dtype(), value.shape(), value.device()));
  }
  // A device's copies must not overlap. The stream's order keeps what else is queued off both.
  const ArenaScope scope(workspace_);
  const Tensor aside = allocate(workspace_, value.dtype(), value.shape());
  copy(value, aside, stream_);
  activations_.rewind(mark);
  const Tensor kept = allocate(activations_, value.dtype(), value.shape());
  copy(aside, kept, stream_);
  return variable(kept);
}

void Tape::backward(Var root, const Tensor& seed) {
  pass_grad(root, seed);
  unwind();
}

void Tape::backward() { unwind(); }

void Tape::unwind() {
  while (last_ != nullptr) {
    Node* node = std::exchange(last_, last_->previous);
    if (node->output->grad) {  // or nobody used the output
      if (follower_ != nullptr) {
        for (const Param* param : node->written) follower_->before_write(*param);
      }
      const Tensor dy = node->output->grad;
      node->run(node, *this, dy);
      release(node->output->grad);
    }
    for (const Param* param : node->written) end_write(*param);
    if (follower_ != nullptr) follower_->between_steps();
  }
}

std::span<const Param* const> Tape::expect(std::initializer_list<const Param*> written) {
  if (written.size() == 0) return {};
  auto* const expected = activations_.take<const Param*>(static_cast<int64_t>(written.size()));
  size_t n = 0;
  for (const Param* param : written) {
    if (param == nullptr || param->use == nullptr) continue;
    ++param->use->to_come;
    expected[n++] = param;
  }
  return {expected, n};
}

void Tape::before_write(const Param& param) {
  if (param.use == nullptr) return;
  ++param.use->to_come;
  if (follower_ != nullptr) follower_->before_write(param);
}

void Tape::after_write(const Param& param) {
  if (param.use != nullptr) end_write(param);
}

void Tape::end_write(const Param& param) {
  if (--param.use->to_come == 0 && follower_ != nullptr) follower_->complete(param);
}

GradSlot Tape::grad_slot(Var x) {
  VarNode& node = *x.node_;
  if (!node.wants_grad) return {};
  if (!node.grad) {
    node.grad = acquire(node.value.dtype(), node.value.shape());
    return {node.grad, false};
  }
  if (block_of(node.grad)->owners > 1) {  // another variable still reads it: copy before writing
    const Tensor own = acquire(node.value.dtype(), node.value.shape());
    copy(node.grad, own, stream_);
    release(node.grad);
    node.grad = own;
  }
  return {node.grad, true};
}

void Tape::pass_grad(Var x, const Tensor& dy) {
  VarNode& node = *x.node_;
  if (!node.wants_grad) return;
  check(dy.numel() == node.value.numel() && dy.dtype() == node.value.dtype(), ErrorKind::internal,
        "[tape] gradient {} {} for a value {} {}", to_string(dy.dtype()), dy.shape(),
        to_string(node.value.dtype()), node.value.shape());
  Block* shared = block_of(dy);
  if (!node.grad && shared != nullptr) {
    ++shared->owners;
    node.grad = dy.reshape(node.value.shape());
    return;
  }
  const GradSlot slot = grad_slot(x);
  if (!slot.accumulate) return copy(dy, slot.grad, stream_);
  accumulate(dy.reshape(slot.grad.shape()), slot.grad, stream_);
}

Tensor Tape::acquire(DType dtype, Shape shape) {
  const int64_t bytes = size_class(shape.numel() * size_of(dtype));
  for (auto fits = free_of(bytes); fits != free_.end() && fits->bytes <= 2 * bytes; ++fits) {
    if (fits->first < 0) continue;
    Block& block = blocks_[static_cast<size_t>(fits->first)];
    fits->first = block.next_free;
    block.owners = 1;
    return Tensor(block.data, dtype, shape, gradients_.device());
  }
  blocks_.push_back({gradients_.allocate_on_device(bytes), bytes, 1, -1});
  return Tensor(blocks_.back().data, dtype, shape, gradients_.device());
}

Tape::Block* Tape::block_of(const Tensor& grad) {
  const auto found = std::lower_bound(
      blocks_.begin(), blocks_.end(), grad.raw(),
      [](const Block& block, const void* data) { return std::less<const void*>()(block.data, data); });
  return found != blocks_.end() && found->data == grad.raw() && found->owners > 0 ? &*found : nullptr;
}

// The first size of free blocks that is at least this one.
std::vector<Tape::FreeBlocks>::iterator Tape::free_of(int64_t bytes) {
  return std::lower_bound(free_.begin(), free_.end(), bytes,
                          [](const FreeBlocks& size, int64_t wanted) { return size.bytes < wanted; });
}

void Tape::release(Tensor& grad) {
  Block& block = *block_of(grad);
  grad = Tensor();
  if (--block.owners > 0) return;
  auto size = free_of(block.bytes);
  if (size == free_.end() || size->bytes != block.bytes) size = free_.insert(size, {block.bytes, -1});
  block.next_free = std::exchange(size->first, &block - blocks_.data());
}

}  // namespace ziggurat
