// The work of a micro-batch on a device, queued by one launch: kernel by kernel the host cannot queue that of
// a small model as fast as a GPU does it.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/nn/param_store.h>
#include <ziggurat/runtime/graph.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

// Why a run's micro-batches are queued kernel by kernel; "": they are graphs.
std::string why_no_graphs(const RunConfig& config, int world_size);

// There are two graphs: of a step's first micro-batch, whose products write gradients, and of all later ones,
// which add to them (Param::unwritten). Each is queued kernel by kernel the first time, so that libraries are
// ready, recorded the second, and only launched from then on.
class MicroBatchGraphs {
 public:
  // `store`: of all parameters that the work may write gradients of; must outlive this.
  MicroBatchGraphs(const nn::ParamStore& store, bool wanted) : store_(store), wanted_(wanted) {}

  // Queues what queue() queues on the tape's stream: the work of the micro-batch that the tape began, on
  // `batch`. It differs from that of any other micro-batch only in what kernels read from the batch and from
  // tape.numbers(), which lie at the same addresses every time: else Error(internal).
  template <class Queue>
  void run(Tape& tape, const model::TokenBatch& batch, const Queue& queue) {
    if (!wanted_) return queue();
    Variant& variant = variants_[tape.micro_batch().first ? 0 : 1];
    if (!repeats(variant, tape, batch)) return queue();
    if (variant.graph) {
      take_flags(variant);
    } else {
      record(variant, tape.stream(), queue);
    }
    variant.graph.launch(tape.stream());
  }

  // The work is another from now on: queue() will queue it kernel by kernel once, and is then recorded anew.
  void forget() { variants_ = {}; }

 private:
  struct Inputs {
    const void *numbers = nullptr, *tokens = nullptr, *targets = nullptr, *positions = nullptr,
               *first_key = nullptr, *last_key = nullptr;
    int64_t sequences = 0, length = 0;
    bool operator==(const Inputs&) const = default;
  };
  struct Variant {
    Inputs inputs;
    Graph graph;
    std::vector<bool*> unwritten;  // the flags of Param::unwritten that were set before the work
    std::vector<bool*> written;    // those of them that it took back
  };

  // Whether the variant ran before. Its inputs must be where they were then.
  static bool repeats(Variant& variant, const Tape& tape, const model::TokenBatch& batch);
  void record(Variant& variant, Stream& stream, const std::function<void()>& queue) const;
  // Of parameters, as queueing the work would.
  void take_flags(const Variant& variant) const;

  const nn::ParamStore& store_;
  bool wanted_;
  std::array<Variant, 2> variants_;
};

}  // namespace ziggurat::train
