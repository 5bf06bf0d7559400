#include <bit>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/elementwise.h>

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
  activations_.reset();
  gradients_.reset();
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
  void* const data = activations_.rewind_keeping(mark, value.raw(), value.bytes());
  return variable(Tensor(data, value.dtype(), value.shape(), value.device()));
}

void Tape::backward(Var root, const Tensor& seed) {
  pass_grad(root, seed);
  unwind();
}

void Tape::backward() { unwind(); }

void Tape::unwind() {
  while (last_ != nullptr) {
    Node* node = std::exchange(last_, last_->previous);
    if (!node->output->grad) continue;  // nobody used the output
    const Tensor dy = node->output->grad;
    node->run(node, *this, dy);
    release(node->output->grad);
  }
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
    copy(node.grad, own);
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
  if (!slot.accumulate) return copy(dy, slot.grad);
  visit_device_dtype(dy, [&]<Device D, class T>() {
    kernels::accumulate<D>(dy.data<T>(), slot.grad.data<T>(), dy.numel(), stream_);
  });
}

Tensor Tape::acquire(DType dtype, Shape shape) {
  const int64_t bytes = size_class(shape.numel() * size_of(dtype));
  Block* best = nullptr;
  for (Block& block : blocks_) {
    const bool fits = block.owners == 0 && block.bytes >= bytes && block.bytes <= 2 * bytes;
    if (fits && (best == nullptr || block.bytes < best->bytes)) best = &block;
  }
  if (best != nullptr) {
    best->owners = 1;
    return Tensor(best->data, dtype, shape, gradients_.device());
  }
  blocks_.push_back({gradients_.allocate(bytes), bytes, 1});
  return Tensor(blocks_.back().data, dtype, shape, gradients_.device());
}

Tape::Block* Tape::block_of(const Tensor& grad) {
  for (Block& block : blocks_) {
    if (block.data == grad.raw() && block.owners > 0) return &block;
  }
  return nullptr;
}

void Tape::release(Tensor& grad) {
  --block_of(grad)->owners;
  grad = Tensor();
}

}  // namespace ziggurat
