// Everything a training run is: one YAML file.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/config/fields.h>
#include <ziggurat/data/data_config.h>
#include <ziggurat/model/model_config.h>
#include <ziggurat/objective/objective_config.h>
#include <ziggurat/optim/optimizer_config.h>
#include <ziggurat/plan/parallel_config.h>
#include <ziggurat/train/guard_config.h>
#include <ziggurat/watch/watch_config.h>

namespace ziggurat {
// Meta devices are not for users.
inline std::vector<EnumName> enum_names(Device) { return {{Device::cpu, "cpu"}, {Device::cuda, "cuda"}}; }
inline std::vector<EnumName> enum_names(Reproducible) {
  return {{Reproducible::layout, "layout"}, {Reproducible::strict, "strict"}};
}
}  // namespace ziggurat

namespace ziggurat::train {

enum class Precision { bf16, fp32, fp64 };
inline std::vector<EnumName> enum_names(Precision) {
  return {{Precision::bf16, "bf16"}, {Precision::fp32, "fp32"}, {Precision::fp64, "fp64"}};
}
DType compute_dtype(Precision precision);

struct BatchConfig {
  int64_t sequence_length = 2048;
  int64_t micro_batch = 4;
  int64_t global_batch = 256;
  BatchRampupConfig rampup;
  int64_t lanes = 0;

  template <class V>
  void visit_fields(V& v) {
    v.field("sequence_length", sequence_length, "tokens of a sequence", unit::tokens, at_least(1),
            at_most(1 << 24));
    v.field("micro_batch", micro_batch, "sequences a rank computes at once; routing is decided within it",
            at_least(1), at_most(1 << 20));
    v.field("global_batch", global_batch, "sequences of an optimizer step, over all ranks: the batch size",
            unit::samples, at_least(1), at_most(1 << 24));
    v.field("rampup", rampup, "growing batch at the start of a run");
    v.field("lanes", lanes,
            "strict mode: gradient lanes, a power of two; 0: as many as the batch allows, up to 8",
            at_least(0), at_most(1 << 16));
  }
};

// Whether a GPU is given the work of a micro-batch by one launch (train/micro_batch_graphs.h).
enum class Graphs { automatic, off };
inline std::vector<EnumName> enum_names(Graphs) {
  return {{Graphs::automatic, "auto"}, {Graphs::off, "off"}};
}

struct TrainConfig {
  int64_t tokens = 300'000'000'000;
  double max_walltime = 0;
  bool recompute = false;
  Graphs graphs = Graphs::automatic;

  template <class V>
  void visit_fields(V& v) {
    v.field("tokens", tokens, "train until this many tokens are consumed", unit::tokens, at_least(1),
            at_most(1e18));
    v.field(
        "max_walltime", max_walltime,
        "time that a process may take, as the batch system's job: saved and ended (exit code 75) before; 0: "
        "as long as it takes. The end of a Slurm job is known without it",
        unit::seconds, at_least(0), at_most(1e9));
    v.field("recompute", recompute,
            "keep only each block's input in forward, run the block again in backward");
    v.field(
        "graphs", graphs,
        "auto: a GPU gets a micro-batch by one launch where the host need not look inside; off: kernel by "
        "kernel. Same bits");
  }
};

struct EvalConfig {
  int64_t every = 100;
  int64_t sequences = 640;
  std::vector<std::string> tasks;
  std::string data;
  int64_t tasks_every = 1000;
  int64_t tasks_limit = 0;
  std::string prompts;
  int64_t samples_every = 500;

  template <class V>
  void visit_fields(V& v) {
    v.field("every", every, "steps between validations; 0: only at the start and the end", unit::steps,
            at_least(0), at_most(1e15));
    v.field("sequences", sequences,
            "sequences of one validation, if the split has as many; 0: no validation, no test", unit::samples,
            at_least(0), at_most(10e6));
    v.field("tasks", tasks, "zero-shot tasks, as `ziggurat eval --tasks` has them; needs data.tokenizer");
    v.field("data", data, "folder of the tasks' public sets");
    v.field("tasks_every", tasks_every, "steps between evaluations of the tasks; 0: only at the end",
            unit::steps, at_least(0), at_most(1e15));
    v.field("tasks_limit", tasks_limit, "the first documents of each task only; 0: all", at_least(0),
            at_most(1e15));
    v.field("prompts", prompts,
            "file of prompts, one a line, that the model continues while it trains; needs data.tokenizer");
    v.field("samples_every", samples_every, "steps between these samples; 0: only at the end", unit::steps,
            at_least(0), at_most(1e15));
  }
};

enum class Resume { automatic, never };
inline std::vector<EnumName> enum_names(Resume) {
  return {{Resume::automatic, "auto"}, {Resume::never, "never"}};
}

enum class OnSaveFailure { go_on, stop };
inline std::vector<EnumName> enum_names(OnSaveFailure) {
  return {{OnSaveFailure::go_on, "continue"}, {OnSaveFailure::stop, "stop"}};
}

struct CheckpointConfig {
  int64_t every = 1000;
  int64_t keep = 2;
  int64_t keep_every = 0;
  bool async = true;
  OnSaveFailure on_failure = OnSaveFailure::go_on;
  Resume resume = Resume::automatic;
  bool allow_model_changes = false;
  bool allow_schedule_changes = false;

  template <class V>
  void visit_fields(V& v) {
    v.field("every", every, "steps between checkpoints; 0: only at the end", unit::steps, at_least(0),
            at_most(1e15));
    v.field("keep", keep, "newest checkpoints to keep; 0: all", at_least(0), at_most(1e6));
    v.field("keep_every", keep_every, "and those of every so many steps, for ever; 0: no others", unit::steps,
            at_least(0), at_most(1e15));
    v.field("async", async,
            "copy what is saved and train on while it is written, at the price of the copy's memory");
    v.field(
        "on_failure", on_failure,
        "a checkpoint that cannot be written: continue tells it and trains on, unless it was the last one; "
        "stop ends the run (3)");
    v.field(
        "resume", resume,
        "auto: go on from the newest valid checkpoint in the output folder, if there is one; never: begin "
        "anew, an earlier run's files move to <output>/earlier_N");
    v.field("allow_model_changes", allow_model_changes,
            "resume although keys under model, the tokenizer or the list of tensors differ from the "
            "checkpoint's");
    v.field("allow_schedule_changes", allow_schedule_changes,
            "resume although the optimizer, its learning rates or the batch differ from the checkpoint's");
  }
};

struct LogConfig {
  int64_t every = 10;
  bool exact = false;

  template <class V>
  void visit_fields(V& v) {
    v.field("every", every, "steps between progress lines (every step is in metrics.jsonl)", unit::steps,
            at_least(1), at_most(1e15));
    v.field("exact", exact, "print losses with all their bits, to compare runs");
  }
};

struct RunConfig {
  std::string name = "run";
  std::string output;
  int64_t seed = 1234;
  Device device = Device::cpu;
  Precision precision = Precision::bf16;
  Reproducible reproducible = Reproducible::layout;
  int threads = 0;
  model::ModelConfig model;
  DataConfig data;
  BatchConfig batch;
  ParallelConfig parallel;
  TrainConfig train;
  objective::ObjectiveConfig objective;
  OptimizerConfig optimizer;
  EvalConfig eval;
  CheckpointConfig checkpoint;
  GuardConfig guard;
  LogConfig log;
  watch::WatchConfig watch;

  template <class V>
  void visit_fields(V& v) {
    v.field("name", name, "of the run", not_empty);
    v.field("output", output, "folder for logs, metrics and checkpoints; empty: run/<name>");
    v.field("seed", seed, "of initial values, sample order, dropout and routing noise");
    v.field("device", device, "where a rank computes: cpu, or cuda, with one GPU for each rank of a node");
    v.field("precision", precision,
            "of activations and matrix products; masters and gradients are fp32 (fp64: all)");
    v.field("reproducible", reproducible,
            "layout: same bits on the same ranks; strict: on any number of ranks");
    v.field("threads", threads, "threads of a rank; 0: the node's cores divided among its ranks",
            at_least(0));
    v.field("model", model, "the model");
    v.field("data", data, "the token streams");
    v.field("batch", batch, "sequences of a step");
    v.field("parallel", parallel, "how ranks share the work");
    v.field("train", train, "length of the run");
    v.field("objective", objective, "what the model is trained for: the loss");
    v.field("optimizer", optimizer, "AdamW and its schedule");
    v.field("eval", eval, "validation");
    v.field("checkpoint", checkpoint, "saving and resuming");
    v.field("guard", guard, "numbers that cannot be right");
    v.field("log", log, "progress lines");
    v.field("watch", watch, "ranks that hang or are lost");
  }
  void validate(Problems& problems) const;

  std::string output_folder() const { return output.empty() ? "run/" + name : output; }
};

// Rules that depend on the number of ranks, for every batch of a ramp-up; throws Error(config) saying what to
// change.
void check_for_ranks(const RunConfig& config, int world_size);

}  // namespace ziggurat::train

namespace ziggurat {
// The field tables of a whole run take seconds to compile: once, in run_config.cpp.
extern template const TypeInfo& type_info<train::RunConfig>();
}  // namespace ziggurat
