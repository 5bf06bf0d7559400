#include <string_view>

#include <fmt/format.h>

#include <ziggurat/train/key_notes.h>

namespace ziggurat::train {

const std::vector<KeyNote>& key_notes() {
  static const std::vector<KeyNote> notes = {
      {"name", "the run's folder, exported models, the model's name when served", nullptr},
      {"output", "train/run_folder.h", nullptr},
      {"seed", "core/philox.h: initial values, dropout, routing noise, stochastic rounding", "1234"},
      {"device", "runtime/backend.h", "128 to 256 A100"},
      {"precision", "nn/param_store.h, ops", "fp16 with a loss scale; here bf16, which needs none"},
      {"reproducible", "train: strict sums in an order that no layout changes", nullptr},
      {"threads", "runtime/parallel_for.h", nullptr},

      {"model", "model/gpt.h", nullptr},
      {"model.vocab_size", nullptr, "50257: GPT-2's byte-level BPE"},
      {"model.max_sequence", nullptr, "2048"},
      {"model.hidden", nullptr, "125M: 768, 350M: 1024, 1.3B: 2048, 6.7B: 4096"},
      {"model.heads", nullptr, "125M: 12, 350M and 1.3B: 16, 6.7B: 32"},
      {"model.init_std", nullptr, "125M: 0.02, 350M and 1.3B: 0.014, 6.7B: 0.01 (its scripts)"},
      {"model.dropout", "ops/dropout.h, ops/attention.h",
       "0.1 in the published scripts, which leave the trainer's default"},
      {"model.mup_base_hidden", "model/width_rules.h", nullptr},
      {"model.mup_base_head_dim", "model/width_rules.h", nullptr},
      {"model.activation", "nn/layers.h",
       "gelu_tanh. OpenMoE: swiglu in its paper, swiglu_linear in its weights"},
      {"model.moe", "moe/router.h, moe/experts.h", nullptr},
      {"model.moe.top_k", nullptr,
       "1: every token goes to one expert, beside a fixed MLP in a residual layer"},
      {"model.moe.drop", nullptr,
       "random: an overfull expert keeps a random choice of its tokens (its code)"},
      {"model.moe.capacity_factor", nullptr, "1"},
      {"model.moe.eval_capacity_factor", nullptr, "0: zero-shot evaluation dropped nothing (its scripts)"},
      {"model.moe.min_capacity", nullptr, "4"},
      {"model.moe.balance_coefficient", nullptr, "0.01"},
      {"model.moe.identical_experts", nullptr, "true in its code, where every expert is a copy of one"},
      {"model.moe.residual_mix", nullptr,
       "sum in its text; softmax of a learned coefficient in its code. OpenMoE: sum in its paper, sequential "
       "in its code and weights"},
      {"model.blocks", "model/gpt.h",
       "every other layer has experts; PR-MoE: residual ones, twice as many in the last two of these"},
      {"model.blocks.N.pattern.N.expert_parallel", "plan/parallel_plan.h, moe/token_dispatcher.h",
       "as many ranks as experts, so that each holds one of a layer"},

      {"data", "data/dataset.h, data/sample_order.h", "300B tokens of the corpus of MT-NLG"},
      {"data.blend", "data/blend.h", "the weights of MT-NLG: configs/data/mt_nlg_blend.yaml"},
      {"data.order", nullptr, "megatron: what its scripts trained in"},
      {"batch", "train/step_plan.h", nullptr},
      {"batch.global_batch", nullptr, "125M and 350M: 256, 1.3B: 512, 6.7B: 1024"},
      {"batch.sequence_length", nullptr, "2048"},
      {"parallel", "plan/parallel_plan.h, comm", nullptr},
      {"parallel.tensor", "nn/layers.h, ops/shard_rows.h", "1.3B dense: 4, 6.7B dense: 8"},
      {"parallel.expert_tensor", "moe/experts.h, moe/token_dispatcher.h",
       "1 in training; expert-slicing in inference, where there are more GPUs than experts"},
      {"parallel.overlap", "parallel/gradient_reducer.h", nullptr},
      {"parallel.bucket", "nn/param_store.h", nullptr},
      {"parallel.all_to_all", "comm/communicator.h", "hierarchical, for inference"},
      {"train", "train/trainer.h", nullptr},
      {"train.tokens", nullptr, "300B"},
      {"train.recompute", "model/gpt.h", "true (its scripts)"},
      {"objective", "objective/objective.h", "next token"},
      {"distil", "objective/distillation.h, train/teacher.h",
       "MoS: a PR-MoE's student of 21 layers instead of 24"},
      {"distil.teacher", nullptr, "350M+PR-MoE-32/64, 1.3B+PR-MoE-64/128"},
      {"distil.weight", "objective/distil_config.h",
       "1 for the first 400K steps, then 0 (section 4.2, figure 6)"},
      {"distil.weight.start", nullptr, "1 (its scripts: kd-beta-ce)"},
      {"distil.weight.until", nullptr, "210B: 400K steps of 256 sequences. Its code cannot stop"},
      {"distil.weight.then", nullptr, "0; a gradual decay is named as another way"},
      {"distil.temperature", "kernels/distillation.h",
       "1; its code multiplies the divergence by its square, as here"},
      {"distil.init_layers", "train/teacher.h", "none: its code begins the student afresh"},
      {"optimizer", "optim/rules.h, optim/schedule.h", nullptr},
      {"optimizer.kind", nullptr, "adamw"},
      {"optimizer.lr", nullptr,
       "dense 350M 3e-4, 1.3B 2e-4, 6.7B 1.2e-4; MoE-128 350M 2e-4, 1.3B 1.2e-4; PR-MoE 350M 3e-4"},
      {"optimizer.min_lr", nullptr, "a tenth of lr for dense models; with experts 1e-6 to 4.5e-6"},
      {"optimizer.warmup_tokens", nullptr, "375M"},
      {"optimizer.decay_tokens", nullptr, "260B dense, 300B with experts"},
      {"optimizer.beta2", nullptr, "0.95"},
      {"optimizer.weight_decay", nullptr, "0.1"},
      {"optimizer.clip_grad", nullptr, "1"},
      {"optimizer.clip_groups", "optim/clip_groups.h", "none: one norm"},
      {"eval", "train/evaluation.h; eval.tasks: eval/task.h",
       "zero-shot LAMBADA, PIQA, BoolQ, RACE, TriviaQA and WebQs"},
      {"checkpoint", "checkpoint/checkpoint.h, train/run_folder.h", nullptr},
      {"log", "train/metrics.h", nullptr},
      {"guard", "train/guard.h", nullptr},
      {"watch", "watch/watchdog.h", nullptr},
  };
  return notes;
}

std::string note_of_key(const std::string& key) {
  const char* used_by = nullptr;
  const char* paper = nullptr;
  for (std::string_view path = key; !path.empty();
       path = path.substr(0, path.find('.') == path.npos ? 0 : path.rfind('.'))) {
    for (const KeyNote& note : key_notes()) {
      if (note.key != path) continue;
      if (used_by == nullptr) used_by = note.used_by;
      if (path == key) paper = note.paper;  // what it says of a struct is not said of what is in it
    }
  }
  std::string text;
  if (used_by != nullptr) text += fmt::format("  {:<9} {}\n", "used by", used_by);
  if (paper != nullptr) text += fmt::format("  {:<9} {}\n", "paper", paper);
  return text;
}

}  // namespace ziggurat::train
