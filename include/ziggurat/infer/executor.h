// One forward of a model over rows of many sequences, and the cache that it reads and extends.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <ziggurat/model/gpt.h>
#include <ziggurat/moe/moe_stats.h>
#include <ziggurat/runtime/backend.h>

namespace ziggurat::infer {

// What a forward reads: rows in any number of sequences, those of a sequence in the order of their positions.
struct Pass {
  std::vector<int32_t> tokens, positions, sequence;   // [rows]; sequence: which block table
  std::vector<int32_t> blocks, begin = {0}, dropped;  // the tables, see kernels::BlockTables
  std::vector<int32_t> wanted;                        // rows whose logits anybody wants, ascending

  int64_t rows() const { return std::ssize(tokens); }
  void clear();
  // The next rows are of a sequence that lies in these blocks, after `let_go` others that it has no more.
  void add_sequence(std::span<const int32_t> of_sequence, int64_t let_go);
  void add_row(int32_t token, int64_t position, bool is_wanted);
};

struct ExecutorOptions {
  int64_t blocks = 0, block = 16;  // of the cache; tokens of a block: few are wasted, and 16 are read at once
  int64_t window = 0;              // positions that a row sees, with its own; 0: all
  // strict: a row's logits have the same bits whatever came along with it.
  Reproducible reproducible = Reproducible::strict;
  // Of a pass at most. A device's memory for it is taken at once, the CPU's grows.
  int64_t rows = 512;
  int64_t table_blocks = 0;  // in all block tables; 0: as many as the cache has
  // Keep copies of the weights of linear layers, for the matrix library: as much memory again, for reading
  // much at once. The model's values must not change meanwhile.
  bool copies = false;
};

// Knows no sequences: what lies in which block is its caller's business. Experts drop nothing, whatever
// eval_capacity_factor says. Computes where the model lies: on a device its tables are sent there, and the
// logits come back; nobody waits in between.
class Executor {
 public:
  // `model` must outlive the executor, which only reads it: several may share one. Of a device it takes as
  // much as the largest pass may need: with experts on several ranks, where all tokens choose those of one.
  // Throws Error(argument) for a model in f64 on a device.
  Executor(const model::Gpt& model, const ExecutorOptions& options);

  const model::Gpt& model() const { return model_; }
  const ExecutorOptions& options() const { return options_; }
  const nn::KvCache& cache() const { return cache_; }
  int64_t device_bytes() const;  // that it takes of a device, the weights apart
  void copy_block(int32_t from, int32_t to) { cache_.copy(from, to, stream_); }

  // The logits of the wanted rows come in pieces: visit(k, logits) with those of wanted row k and following
  // ones, [n, padded vocab], on the host, in f32 (f64 for an f64 model), valid during the call. Collective
  // where experts are on several ranks, also without rows. Once it has seen such a pass nothing is allocated.
  using LogitsVisitor = std::function<void(size_t first, const Tensor& logits)>;
  void run(const Pass& pass, const LogitsVisitor& visit);

  // What the MoE layers did since reset_loads().
  std::vector<moe::MoeSums> loads() const;
  void reset_loads();
  // Kernels keep their times in `profile`, which must outlive them; null: no times.
  void set_profile(Profile* profile) { stream_.set_profile(profile); }

 private:
  struct Memory {
    int64_t activations, workspace;
  };
  struct Place;  // the tape and arenas of a pass
  Memory most_of_a_pass();
  void run(const Pass& pass, const Place& place, const LogitsVisitor& visit);
  const int32_t* send(const Pass& pass, Tape& tape, ops::CacheRows& rows);

  const model::Gpt& model_;
  ExecutorOptions options_;
  nn::KvCache cache_;
  HostMemory tables_, logits_;  // what a device copies from and to
  Memory most_;
  Arena activations_, gradients_, workspace_, loads_memory_;
  mutable Stream stream_;
  Tape tape_;
  std::vector<Tensor> loads_;  // of each MoE layer, f64 sums
};

}  // namespace ziggurat::infer
