#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include <ziggurat/build_config.h>
#include <ziggurat/config/config.h>
#include <ziggurat/data/sample_source.h>
#include <ziggurat/data/ul2.h>
#include <ziggurat/kernels/attention.h>
#include <ziggurat/optim/rules.h>
#include <ziggurat/optim/schedule.h>
#include <ziggurat/train/run_config.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

DType compute_dtype(Precision precision) {
  switch (precision) {
    case Precision::bf16:
      return DType::bf16;
    case Precision::fp32:
      return DType::f32;
    case Precision::fp64:
      return DType::f64;
  }
  return DType::f32;
}

namespace {

constexpr int64_t kMostTokens = std::numeric_limits<int32_t>::max();  // of a micro-batch: tables hold 32 bits
constexpr double kMostElements = 0x1p40;                              // of one tensor of a micro-batch

// Also of a model that is wrong otherwise.
int64_t head_width(const model::ModelConfig& m) {
  return m.head_dim > 0 || m.heads == 0 ? m.head_dim : m.hidden / m.heads;
}

void check_micro_batch(const RunConfig& c, Problems& problems) {
  const model::ModelConfig& m = c.model;
  const int64_t tokens = c.batch.micro_batch * c.batch.sequence_length;
  const int64_t choices = m.has_experts() ? m.moe.top_k : 1;
  if (tokens > kMostTokens / choices) {
    return problems.add("batch.micro_batch",
                        fmt::format("expected at most {} tokens x model.moe.top_k, got {} sequences of "
                                    "batch.sequence_length {} x top_k {}",
                                    kMostTokens, c.batch.micro_batch, c.batch.sequence_length, choices));
  }
  if (m.has_experts() && m.moe.group_tokens > 0 && tokens % m.moe.group_tokens != 0) {
    problems.add("model.moe.group_tokens",
                 fmt::format("expected a divisor of the {} tokens of a micro-batch (batch.micro_batch x "
                             "batch.sequence_length), got {}",
                             tokens, m.moe.group_tokens));
  }
  int64_t widest = std::max((m.heads + 2 * m.key_value_heads()) * head_width(m), 2 * m.ffn_width());
  if (m.has_experts()) widest = std::max({widest, 2 * m.expert_width() * choices, 2 * m.residual_width()});
  for (const model::BlockRun& run : m.blocks) {
    for (const model::BlockSpec& layer : run.pattern) widest = std::max(widest, layer.experts);
  }
  const double elements = static_cast<double>(tokens) * static_cast<double>(widest);
  if (elements > kMostElements) {
    problems.add("batch.micro_batch",
                 fmt::format("expected at most {:.6g} elements of a layer's activations, got {:.6g}: {} "
                             "sequences of batch.sequence_length {}, {} wide",
                             kMostElements, elements, c.batch.micro_batch, c.batch.sequence_length, widest));
  }
}

// So that one rank can take every batch of the run: then so can as many as divide them.
void check_batches(const RunConfig& c, Problems& problems) {
  const BatchConfig& b = c.batch;
  bool lanes = c.reproducible == Reproducible::strict && b.lanes > 0;
  if (lanes && !std::has_single_bit(static_cast<uint64_t>(b.lanes))) {
    problems.add("batch.lanes", fmt::format("expected a power of two, got {}", b.lanes));
    lanes = false;
  }
  const auto check_multiple = [&](const char* key, int64_t sequences) {
    if (sequences % b.micro_batch != 0) {
      problems.add(key, fmt::format("expected a multiple of batch.micro_batch ({}), got {}", b.micro_batch,
                                    sequences));
    } else if (lanes && sequences / b.micro_batch % b.lanes != 0) {
      problems.add("batch.lanes", fmt::format("expected a divisor of the {} micro-batches of {}, got {}",
                                              sequences / b.micro_batch, key, b.lanes));
    }
  };
  check_multiple("batch.global_batch", b.global_batch);
  if (!b.rampup.enabled()) return;
  check_multiple("batch.rampup.start", b.rampup.start);
  const int64_t rise = b.global_batch - b.rampup.start;
  if (rise < 0) {
    problems.add("batch.rampup.start", fmt::format("expected at most batch.global_batch ({}), got {}",
                                                   b.global_batch, b.rampup.start));
  } else if (b.rampup.increment > 0 && rise % b.rampup.increment != 0) {
    problems.add("batch.rampup.increment",
                 fmt::format("expected a divisor of what the batch ramp-up adds, {} - {} = {}; got {}",
                             b.global_batch, b.rampup.start, rise, b.rampup.increment));
  } else if (rise > 0) {
    check_multiple("batch.rampup.increment", b.rampup.increment);
  }
}

void check_ul2(const RunConfig& c, Problems& problems) {
  if (!c.data.ul2.enabled()) return;
  if (c.batch.sequence_length < 4) {
    return problems.add("batch.sequence_length",
                        fmt::format("data.ul2 takes spans out of samples: expected at least 4, got {}",
                                    c.batch.sequence_length));
  }
  if (c.data.ul2.sentinels >= c.model.vocab_size) {
    problems.add("data.ul2.sentinels",
                 fmt::format("they are ids of model.vocab_size ({}), which the tokenizer needs too: got {}",
                             c.model.vocab_size, c.data.ul2.sentinels));
  }
  if (const int64_t spans = most_spans(c.data.ul2, c.batch.sequence_length); spans > c.data.ul2.sentinels) {
    problems.add(
        "data.ul2.sentinels",
        fmt::format("a sample of {} tokens may have {} spans: expected as many sentinels, got {}; set it "
                    "to {} and leave so many ids of model.vocab_size free, or use longer spans",
                    c.batch.sequence_length, spans, c.data.ul2.sentinels, spans));
  }
}

// What ranks that share matrices must be able to cut.
void check_tensor_parallel(const RunConfig& c, Problems& problems) {
  const int tp = c.parallel.tensor;
  if (tp == 1) return;
  const model::ModelConfig& m = c.model;
  const auto divides = [&](const char* key, const char* what, int64_t n) {
    if (n % tp == 0) return;
    problems.add(
        "parallel.tensor",
        fmt::format("expected a divisor of {} ({}), got {}: choose another, or change {}", what, n, tp, key));
  };
  for (const model::CutSize& part : model::cut_sizes(m)) divides(part.key, part.what, part.size);
  divides("batch.sequence_length", "batch.sequence_length", c.batch.sequence_length);
  if (c.batch.sequence_length / tp * m.hidden % 4 != 0) {
    problems.add("parallel.tensor",
                 fmt::format("random numbers come in fours: expected a rank's {} tokens of a "
                             "sequence x model.hidden {} to be a multiple of 4",
                             c.batch.sequence_length / tp, m.hidden));
  }
  if (c.reproducible == Reproducible::strict) {
    problems.add(
        "reproducible",
        "strict: sums over matrices that parallel.tensor cuts have other bits: use layout, or tensor=1");
  }
  if (takes_matrices(c.optimizer.kind)) {
    problems.add("parallel.tensor",
                 "optimizer.kind muon and adafactor update whole matrices: use 1, or kind adamw or lion");
  }
  if (c.guard.rerun_every > 0) {
    problems.add("guard.rerun_every",
                 "another rank computes whole micro-batches: with parallel.tensor use 0");
  }
  if (!c.eval.tasks.empty() || !c.eval.prompts.empty()) {
    problems.add(
        c.eval.tasks.empty() ? "eval.prompts" : "eval.tasks",
        "texts are continued and scored by whole models: with parallel.tensor leave it to `ziggurat eval` "
        "and `generate` afterwards");
  }
}

// What ranks that share an expert must be able to cut.
void check_expert_tensor_parallel(const RunConfig& c, Problems& problems) {
  const int parts = c.parallel.expert_tensor;
  if (parts == 1 || !c.model.has_experts()) return;
  if (const int64_t width = c.model.expert_width(); width % parts != 0) {
    problems.add(
        "parallel.expert_tensor",
        fmt::format("expected a divisor of the experts' inner width ({}), got {}: choose another, or "
                    "change {}",
                    width, parts,
                    c.model.moe.expert_hidden > 0 ? "model.moe.expert_hidden" : "model.ffn_hidden"));
  }
  if (c.reproducible == Reproducible::strict) {
    problems.add(
        "reproducible",
        "strict: sums over matrices that parallel.expert_tensor cuts have other bits: use layout, or "
        "expert_tensor=1");
  }
  if (takes_matrices(c.optimizer.kind)) {
    problems.add("parallel.expert_tensor",
                 "optimizer.kind muon and adafactor update whole matrices: use 1, or kind adamw or lion");
  }
  if (c.guard.rerun_every > 0) {
    problems.add("guard.rerun_every",
                 "another rank has another part of the experts: with parallel.expert_tensor use 0");
  }
}

void check_device(const RunConfig& c, Problems& problems) {
  if (c.device == Device::cpu) return;
  if (!kHasCuda) {
    problems.add(
        "device",
        "this build has no CUDA: build with -DZIGGURAT_CUDA=ON where the CUDA toolkit is, or use cpu");
  }
  if (c.precision == Precision::fp64) {
    problems.add("precision", "fp64 exists on the CPU only: use bf16 or fp32, or device=cpu");
  }
  if (const int64_t width = head_width(c.model); width > kernels::kAttentionMaxHeadDimOnCuda) {
    problems.add("model.head_dim",
                 fmt::format("expected at most {} with device=cuda, got heads of {}: use more heads, or "
                             "device=cpu",
                             kernels::kAttentionMaxHeadDimOnCuda, width));
  }
  if (c.reproducible == Reproducible::strict) {
    problems.add(
        "reproducible",
        "strict exists on the CPU only, as the library's products on a device promise no bits across "
        "layouts: use layout, or device=cpu");
  }
}

// Weights of a blend are divided in fp64; rates and capacities go through fp32 in every precision; all else
// is computed in the precision of the masters.
bool computed_in_fp64(const std::string& key, Precision precision) {
  if (key.starts_with("data.")) return true;
  const bool always_fp32 = key.starts_with("model.dropout.") || key.ends_with("capacity_factor");
  return precision == Precision::fp64 && !always_fp32;
}

// What is neither 0 nor infinite nor at an open bound as written must not become so by rounding to fp32.
void check_arithmetic(const RunConfig& config, Problems& problems) {
  using Limits = std::numeric_limits<float>;
  for_each_value(config, [&](const std::string& key, const Field& field) {
    if (field.type->kind != ValueKind::real || computed_in_fp64(key, config.precision)) return;
    const double value = std::get<double>(field.type->get(field.value)), size = std::abs(value);
    if (size > Limits::max() || (size != 0 && size < Limits::min())) {
      problems.add(key,
                   fmt::format("computed in fp32: expected {}{:.3g} to {:.3g}, got {}",
                               field.range.low_open ? "" : "0 or ", Limits::min(), Limits::max(), value));
    } else if (field.range.high_open && static_cast<float>(value) >= *field.range.high) {
      const auto most = std::nextafter(static_cast<float>(*field.range.high), 0.0f);
      problems.add(key, fmt::format("computed in fp32, where {} is {}: expected at most {}", value,
                                    static_cast<float>(value), most));
    }
  });
}

// What the update makes of two values (kernels/adamw.h), each of which fp32 can hold.
void check_update(const OptimizerConfig& o, Problems& problems) {
  constexpr double kMost = std::numeric_limits<float>::max();
  if (o.lr / (1 - o.beta1) > kMost) {
    problems.add("optimizer.lr",
                 fmt::format("lr / (1 - beta1) is computed in fp32: expected at most {:.3g}, got {}",
                             kMost * (1 - o.beta1), o.lr));
  }
  if (o.lr * o.weight_decay > kMost) {
    problems.add("optimizer.weight_decay",
                 fmt::format("lr x weight_decay is computed in fp32: expected at most {:.3g}, got {}",
                             kMost / o.lr, o.weight_decay));
  }
}

}  // namespace

void RunConfig::validate(Problems& problems) const {
  const auto has_control = [](const std::string& text) {
    return std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < ' ' || c == 0x7f; });
  };
  if (has_control(name)) problems.add("name", "expected no control characters");
  if (has_control(output)) problems.add("output", "expected no control characters");
  if (output.starts_with('~')) {
    problems.add("output", fmt::format("expected a path as the system has it, got {}: nobody replaces the ~ "
                                       "here; write the home folder out, or begin with ./",
                                       output));
  }
  if (batch.sequence_length > model.max_sequence) {
    problems.add("batch.sequence_length", fmt::format("expected at most model.max_sequence ({}), got {}",
                                                      model.max_sequence, batch.sequence_length));
  }
  if (!distil.init_layers.empty() && distil.init_layers.size() != static_cast<size_t>(model.layer_count())) {
    problems.add("distil.init_layers",
                 fmt::format("expected the teacher's layer for each of the student's {}, got {} of them",
                             model.layer_count(), distil.init_layers.size()));
  }
  if (distil.enabled() && objective.label_smoothing > 0) {
    problems.add("objective.label_smoothing",
                 "the teacher smooths what the student learns: with distil use 0");
  }
  check_micro_batch(*this, problems);
  check_ul2(*this, problems);
  check_batches(*this, problems);
  if (reproducible == Reproducible::strict && model.has_experts() &&
      model.moe.balance_scope == moe::BalanceScope::global_batch) {
    problems.add("model.moe.balance_scope",
                 "global_batch depends on the number of ranks by definition; with reproducible: strict use "
                 "micro_batch");
  }
  check_device(*this, problems);
  if (model.heads > 0) check_tensor_parallel(*this, problems);
  check_expert_tensor_parallel(*this, problems);
  check_arithmetic(*this, problems);
  if (precision != Precision::fp64) check_update(optimizer, problems);
  if (precision == Precision::fp64 && optimizer.moments == StateDtype::bf16) {
    problems.add("optimizer.moments",
                 "precision fp64 keeps fp64 moments: remove it, or use precision bf16 or fp32");
  }
  if (takes_matrices(optimizer.kind) && parallel.zero > 0) {
    problems.add("parallel.zero",
                 "optimizer.kind muon and adafactor update whole matrices on every rank that holds "
                 "them: use 0, or kind adamw or lion");
  }
  if (optimizer.average > 0 && optimizer.moments == StateDtype::bf16) {
    problems.add("optimizer.average",
                 "an average moves by less than bf16 can hold: use optimizer.moments=fp32, or set it to 0");
  }
  if (optimizer.average > 0 && precision == Precision::bf16 && optimizer.masters == StateDtype::bf16) {
    problems.add("optimizer.average",
                 "an average is of exact weights: use optimizer.masters=fp32, or set it to 0");
  }
  if (guard.rerun_every > 0 && parallel.zero == 2 && reproducible != Reproducible::strict) {
    problems.add(
        "guard.rerun_every",
        "compares what each rank computes alone, but with parallel.zero 2 gradients are summed over ranks "
        "after every micro-batch: use parallel.zero=1, or guard.rerun_every=0");
  }
  if (problems.count() > 0) return;  // what follows computes with what was found good
  const bool indexed = data.order == OrderKind::megatron && !is_synthetic(data, Split::train);
  if (indexed && guard.spike == OnSpike::rewind) {
    problems.add(
        "guard.spike",
        "rewind passes samples over, but data.order megatron is laid out for as many as the run takes: "
        "use data.order=keyed, or guard.spike=skip");
  }
  if (indexed && samples_of_run(*this) > std::numeric_limits<uint32_t>::max()) {
    problems.add("train.tokens",
                 fmt::format("data.order megatron indexes fewer than 2^32 samples, the run has {}; "
                             "use data.order=keyed, which needs no index",
                             samples_of_run(*this)));
  }
}

void check_for_ranks(const RunConfig& config, int world_size) {
  const BatchConfig& batch = config.batch;
  const BatchRampup rampup(batch.rampup, batch.global_batch);  // throws if it does not end at the full batch
  const int dp = layout_of(config, world_size).dp().size;
  check_batch(config, dp, batch.global_batch);
  if (!batch.rampup.enabled() || batch.rampup.start == batch.global_batch) return;
  // Who can share the first two batches can share their difference, and so all of them.
  check_batch(config, dp, batch.rampup.start);
  check_batch(config, dp, batch.rampup.start + batch.rampup.increment);
}

}  // namespace ziggurat::train

namespace ziggurat {
template const TypeInfo& type_info<train::RunConfig>();
}  // namespace ziggurat
