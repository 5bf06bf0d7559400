// A step's work as other software does it: what ours leaves out or does once, put back item by item.
#include <ziggurat/plan/step_time.h>

namespace ziggurat {

namespace {

using Kind = WorkItem::Kind;
constexpr double kOperand = 2;  // bytes of a bf16 number

double number(int64_t n) { return static_cast<double>(n); }

WorkItem product(const WorkItem& of, const char* name, int64_t groups, int64_t m, int64_t n, int64_t k) {
  WorkItem item{
      .kind = Kind::product, .name = name, .backward = of.backward, .groups = groups, .m = m, .n = n, .k = k};
  item.flops = 2.0 * number(groups) * number(m) * number(n) * number(k);
  item.bytes =
      kOperand * number(groups) * (number(m) * number(k) + number(k) * number(n) + number(m) * number(n));
  return item;
}

WorkItem kernel(const WorkItem& of, const char* name, double bytes) {
  return {.kind = Kind::memory, .name = name, .backward = of.backward, .bytes = bytes};
}

// Of top1gating, each bound by the host that queues it: softmax, argmax, one-hots, cumsum, means,
// comparisons, products, sums, casts, top-k of random numbers, and what autograd makes of those that have a
// gradient.
constexpr int kGateForward = 30, kGateBackward = 14;
std::vector<WorkItem> small_kernels(const WorkItem& of, int n) {
  return {static_cast<size_t>(n), kernel(of, "masks", 0)};
}

// Masks [S, E C] (`item.m` x `item.n`): one-hot products, and the passes over masks that make them
// (deepspeed/moe/sharded_moe.py, top1gating and MOELayer.forward at the time of the paper).
std::vector<WorkItem> dense_dispatch(const WorkItem& item) {
  const int64_t tokens = item.m, slots = item.n, width = item.k;
  const double mask = number(tokens) * number(slots);
  const double of_tokens = number(tokens) * number(width), of_slots = number(slots) * number(width);
  if (item.name == "gather_tokens") {
    if (item.backward) {
      std::vector<WorkItem> parts = small_kernels(item, kGateBackward);
      parts.insert(parts.end(), {product(item, "dispatch", 1, tokens, width, slots),
                                 kernel(item, "masks", (4 + kOperand) * of_tokens),  // the gate's, cast,
                                 kernel(item, "masks", 3 * kOperand * of_tokens)});  // and added to it
      return parts;
    }
    std::vector<WorkItem> parts = small_kernels(item, kGateForward);
    parts.insert(parts.end(), {kernel(item, "masks", (kOperand + 4) * of_tokens),  // the gate's input in f32
                               kernel(item, "masks", 4 * mask),         // combine weights, f32, written
                               kernel(item, "masks", 4 * mask + mask),  // their sign as bytes
                               kernel(item, "masks", mask + kOperand * mask),  // and as operands
                               product(item, "dispatch", 1, slots, width, tokens)});
    return parts;
  }
  // What experts made is copied together, in backward apart (torch.cat, one piece an expert).
  const WorkItem together = kernel(item, "masks", 2 * kOperand * of_slots);
  if (!item.backward) {
    return {together, kernel(item, "masks", 4 * mask + kOperand * mask),
            product(item, "dispatch", 1, tokens, width, slots)};
  }
  return {product(item, "dispatch", 1, slots, width, tokens),  // of the experts' rows
          product(item, "dispatch", 1, tokens, slots, width),  // of the combine weights,
          kernel(item, "masks", kOperand * mask + 4 * mask),   // which are f32,
          kernel(item, "masks", 2 * 4 * mask),                 // and outer products of gates and places
          together};
}

// Scores [heads, T, T] as operands; softmax reads and writes them, dropout too, beside a mask of bytes. In
// backward: d(probabilities), dropout, softmax (reads probabilities, reads and writes gradients).
std::vector<WorkItem> attention_in_memory(const WorkItem& item) {
  const int64_t heads = item.groups, length = item.m, width = item.k;
  const double scores = number(heads) * number(length) * number(length);
  const auto over_width = [&] { return product(item, "scores", heads, length, length, width); };
  const auto over_length = [&] { return product(item, "scores", heads, length, width, length); };
  if (!item.backward) {
    return {over_width(), kernel(item, "softmax", 2 * kOperand * scores),
            kernel(item, "dropout", (2 * kOperand + 1) * scores), over_length()};
  }
  return {over_width(),
          over_length(),
          kernel(item, "dropout", (2 * kOperand + 1) * scores),
          kernel(item, "softmax", 3 * kOperand * scores),
          over_length(),
          over_length()};
}

// Megatron's vocab_parallel_cross_entropy: bytes of a logit. To f32 (2 + 4), maximum (4), minus it (8), exp
// (8), sum (4), divided (8); backward: minus the targets (in place, few), scaled (8), to operands (4 + 2).
// The noted kernel reads 4 and writes 2.
WorkItem plain_loss(WorkItem item) {
  item.bytes *= 52.0 / 6;
  return item;
}

// DeepSpeed's FP16_Optimizer.step (runtime/fp16/fused_optimizer.py), bytes of an element; ours reads the
// gradient, master and moments in f32 and writes them and the operand: 30.
std::vector<WorkItem> eager_update(const WorkItem& item) {
  const double n = item.bytes / 30;
  const auto pass = [&](double bytes) { return kernel(item, "adamw", bytes * n); };
  return {pass(kOperand + 4),
          pass(4),
          pass(0),  // is any gradient not finite? in f32, summed, to the host
          pass(kOperand + 4),
          pass(8),  // cast, and flattened
          pass(4),
          pass(8),              // their norm; clipped
          pass(28),             // AdamW
          pass(4 + kOperand)};  // weights from masters
}

// Megatron's cut of a dense model. A matrix wider than deep (queries, keys and values; up; the vocabulary) is
// cut by its outputs, others (out, down) by their inputs; the sums that this leaves open are exchanged, in
// forward behind a matrix cut by its inputs, in backward behind one cut by its outputs. What lies on the
// residual stream is done by every rank.
std::vector<WorkItem> cut(WorkItem item, int64_t ranks) {
  const auto share = [&](int64_t& size) { size = (size + ranks - 1) / ranks; };
  const auto all = static_cast<double>(ranks);
  switch (item.kind) {
    case Kind::attention:
      share(item.groups), item.flops /= all, item.bytes /= all;
      return {item};
    case Kind::memory:  // GELU's gradient, logits and what belongs to parameters; the rest is replicated
      if (item.name == "bias_activation" || item.name == "softmax" || item.name == "adamw" ||
          item.name == "sum_of_squares") {
        item.bytes /= all;
      }
      return {item};
    case Kind::collective:
      item.bytes /= all;  // gradients of this rank's part
      return {item};
    case Kind::dispatch:
      return {item};
    case Kind::product:
      break;
  }
  // Forward m tokens, n outputs, k inputs; d(input) m tokens, n inputs, k outputs; d(weight) m outputs, n
  // inputs, k tokens. The two in backward differ by which of m and k are tokens: only whether more outputs
  // than inputs matters, and for d(weight) either is cut.
  const bool of_weight = item.of_weight;
  const int64_t tokens = of_weight ? item.k : item.m,
                outputs = of_weight       ? item.m
                          : item.backward ? item.k
                                          : item.n,
                inputs = item.backward ? item.n : item.k;
  const bool by_outputs = outputs > inputs;
  if (of_weight) {
    share(by_outputs ? item.m : item.n);
  } else if (item.backward) {
    share(by_outputs ? item.k : item.n);
  } else {
    share(by_outputs ? item.n : item.k);
  }
  item.flops /= all, item.bytes /= all;
  if (of_weight || by_outputs != item.backward) return {item};
  const double sums = kOperand * number(tokens) * number(item.backward ? inputs : outputs);
  return {item,
          {.kind = Kind::collective,
           .name = "all_reduce",
           .backward = item.backward,
           .bytes = sums,
           .along = "tp",
           .ranks = static_cast<int>(ranks)}};
}

}  // namespace

std::vector<WorkItem> as_done(const WorkItem& item, const SoftwareHabits& software) {
  std::vector<WorkItem> parts{item};
  if (software.tensor_parallel > 1) parts = cut(item, software.tensor_parallel);
  if (item.kind == Kind::attention && software.attention_scores_in_memory)
    return attention_in_memory(parts[0]);
  if (item.kind == Kind::dispatch && software.dense_dispatch) return dense_dispatch(item);
  // Padded slots are as many everywhere: nobody asks for counts.
  if (item.name == "all_to_all" && software.dense_dispatch) return {};
  if (software.eager_update && item.name == "sum_of_squares") return {};  // see eager_update()
  if (software.eager_update && item.name == "adamw") return eager_update(parts[0]);
  if (item.name == "softmax" && software.plain_loss) return {plain_loss(parts[0])};
  if (item.kind == Kind::memory && software.dropout_masks_in_memory && item.name.starts_with("dropout")) {
    const double tensors = item.name == "dropout_add" && !item.backward ? 3 : 2;
    parts[0].bytes += item.bytes / tensors / kOperand;  // a byte an element
  }
  return parts;
}

}  // namespace ziggurat
