#include <algorithm>

#include <ziggurat/kernels/cross_entropy.h>
#include <ziggurat/kernels/elementwise.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/ops/cross_entropy.h>

namespace ziggurat::ops {

namespace {

// Rows of logits at a time. Adding to the weight's gradient moves 8 V C bytes per chunk, under its own
// 2 V C rows flop when there are some hundreds of rows; the chunk itself takes 4 V rows bytes.
constexpr int64_t kChunk = 512;

void check_arguments(const Var& x, const Tensor& w, const int32_t* targets, const LossArgs& args) {
  check(x.shape().rank() == 2 && w.rank() == 2 && x.dim(1) == w.dim(1), ErrorKind::argument,
        "[cross_entropy] expected x [N, C] and weight [V, C], got {} and {}", x.shape(), w.shape());
  check(x.dtype() == w.dtype(), ErrorKind::argument, "[cross_entropy] x is {}, weight is {}",
        to_string(x.dtype()), to_string(w.dtype()));
  check(args.vocab_size > 0 && args.vocab_size <= w.dim(0), ErrorKind::argument,
        "[cross_entropy] vocab_size: expected 1 to {} (the weight's rows), got {}", w.dim(0),
        args.vocab_size);
  if (x.value().device() != Device::cpu) return;  // targets are not readable here
  for (int64_t i = 0; i < x.dim(0); ++i) {
    check((targets[i] >= 0 && targets[i] < args.vocab_size) || targets[i] == args.ignore_index,
          ErrorKind::data, "[cross_entropy] target {} is {}: expected 0 to {} or the ignored {}", i,
          targets[i], args.vocab_size - 1, args.ignore_index);
  }
}

struct Operands {  // all of the dtype in which the products are computed
  Tensor x, weight, dx;
  kernels::PackedWeights* packed = nullptr;  // copies of all rows of the weight, or null
  bool accumulate_dx = false;
  Tensor logits, dlogits;  // a chunk [kChunk, rows of the weight]; one memory unless the operands are bf16
  Tensor losses;           // of a chunk
};

template <Device D, class G>
LossResult run(const Operands& o, const Tensor& dweight, const int32_t* targets, const LossArgs& args,
               bool backward, Arena& workspace, Stream& stream) {
  using A = Accum<G>;
  const int64_t rows = o.x.dim(0), width = o.x.dim(1), vocab = args.vocab_size;
  const int64_t cols = o.logits.dim(1);  // the vocabulary and its padding
  auto* losses = static_cast<kernels::TokenLoss*>(o.losses.raw());
  A* logits = o.logits.data<A>();
  G* dlogits = backward ? o.dlogits.data<G>() : nullptr;
  const G* weight = o.packed != nullptr ? nullptr : o.weight.data<G>();
  LossResult result;
  for (int64_t begin = 0; begin < rows; begin += kChunk) {
    const int64_t n = std::min(kChunk, rows - begin);
    const G* x = o.x.data<G>() + begin * width;
    // logits = x weight^T
    kernels::weight_product<D>(
        kernels::WeightProduct<G, A>{kernels::Side::forward, n, cols, width, x, weight, o.packed, 0, logits},
        workspace, stream);
    kernels::cross_entropy<D>(
        kernels::CrossEntropyArgs<A, G>{n, vocab, cols, logits, targets + begin, args.ignore_index,
                                        args.grad_scale, args.z_loss, losses, dlogits},
        stream);
    // dweight += dlogits^T x
    if (backward && dweight) {
      kernels::gemm<D>(kernels::GemmArgs<G, A>{true, false, vocab, width, n, dlogits, cols, x, width,
                                               dweight.data<A>(), width, true},
                       workspace, stream);
    }
    // dx = dlogits weight
    if (backward && o.dx) {
      for (int64_t i = 0; i < n; ++i) std::fill_n(dlogits + i * cols + vocab, cols - vocab, G{});
      kernels::weight_product<D>(
          kernels::WeightProduct<G, G>{kernels::Side::backward, n, cols, width, dlogits, weight, o.packed, 0,
                                       o.dx.data<G>() + begin * width, o.accumulate_dx},
          workspace, stream);
    }
    for (int64_t i = 0; i < n; ++i) {
      result.sum += losses[i].cross_entropy;
      result.z_loss_sum += losses[i].z_loss;
      result.tokens += losses[i].counted;
      result.correct += losses[i].correct;
      if (args.token_losses != nullptr) args.token_losses[begin + i] = losses[i].cross_entropy;
    }
  }
  return result;
}

// bf16 operands widened once here, not per chunk, on a CPU that multiplies them as f32 anyway.
LossResult run_widened(const Tensor& x, const Tensor& weight, const GradSlot& dx, Operands o,
                       const Tensor& dweight, const int32_t* targets, const LossArgs& args, bool backward,
                       Arena& workspace, Stream& stream) {
  constexpr Device D = Device::cpu;
  kernels::convert<D>(x.data<bf16>(), o.x.data<float>(), x.numel(), stream);
  if (o.packed == nullptr) {
    kernels::convert<D>(weight.data<bf16>(), o.weight.data<float>(), o.weight.numel(), stream);
  }
  const LossResult result = run<D, float>(o, dweight, targets, args, backward, workspace, stream);
  if (!dx) return result;
  const Tensor rounded = dx.accumulate ? allocate(workspace, DType::bf16, x.shape()) : dx.grad;
  kernels::convert<D>(o.dx.data<float>(), rounded.data<bf16>(), x.numel(), stream);
  if (dx.accumulate) {
    kernels::accumulate<D>(rounded.data<bf16>(), dx.grad.data<bf16>(), x.numel(), stream);
  }
  return result;
}

}  // namespace

LossResult cross_entropy(Tape& tape, Var x, const Param& weight, const int32_t* targets,
                         const LossArgs& args) {
  const Tensor& w = weight.value;
  check_arguments(x, w, targets, args);
  const Span span(tape.stream().profile(), "head");
  const int64_t rows = x.dim(0), chunk = std::min(kChunk, rows);
  const bool backward = tape.recording();
  const GradSlot dx = backward ? tape.grad_slot(x) : GradSlot{};
  const Tensor dweight = backward ? weight.grad : Tensor{};

  Arena& workspace = tape.workspace();
  const ArenaScope scope(workspace);
  const DType sum_dtype = accum_dtype(x.dtype());
  const bool widen = x.dtype() == DType::bf16 && kernels::bf16_gemm() == kernels::Bf16Gemm::widened;
  const DType dtype = widen ? DType::f32 : x.dtype();
  Operands o{
      x.value(), w, dx.grad, weight.packed, dx.accumulate, allocate(workspace, sum_dtype, {chunk, w.dim(0)}),
      {},        {}};
  o.dlogits = dtype == sum_dtype ? o.logits : allocate(workspace, dtype, {chunk, w.dim(0)});
  o.losses = Tensor(workspace.allocate(chunk * static_cast<int64_t>(sizeof(kernels::TokenLoss))), DType::i32,
                    {0}, x.value().device());
  if (widen) {
    o.x = allocate(workspace, dtype, x.shape());
    if (o.packed == nullptr) o.weight = allocate(workspace, dtype, w.shape());
    if (dx) o.dx = allocate(workspace, dtype, x.shape());
    o.accumulate_dx = false;
  }

  LossResult result;
  visit_device_dtype(x.value(), [&]<Device D, class T>() {
    if (widen) {
      result = run_widened(x.value(), w, dx, o, dweight, targets, args, backward, workspace, tape.stream());
    } else {
      result = run<D, T>(o, dweight, targets, args, backward, workspace, tape.stream());
    }
  });
  return result;
}

}  // namespace ziggurat::ops
