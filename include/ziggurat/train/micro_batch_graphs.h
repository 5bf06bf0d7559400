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
// devices_exchange: by themselves (Communicator::use_devices), or else through the host.
std::string why_no_graphs(const RunConfig& config, int world_size, bool devices_exchange);

// There are up to four graphs: of a step's first micro-batch, whose products write gradients, and of later
// ones, which add to them (Param::unwritten), each as the last one or not, behind whose backward gradients
// are summed over ranks. Each is queued kernel by kernel the first time, so that libraries are ready,
// recorded the second, and only launched from then on.
class MicroBatchGraphs {
 public:
  // `store`: of all parameters that the work may write gradients of; must outlive this.
  MicroBatchGraphs(const nn::ParamStore& store, bool wanted) : store_(store), wanted_(wanted) {}

  // Queues what queue() queues on the tape's stream: the work of the micro-batch that the tape began, on
  // `batch`. It differs from that of any other micro-batch that is `last` or not only in what kernels read
  // from the batch and from tape.numbers(), which lie at the same addresses every time: else Error(internal).
  // False: queue() was not called, a graph does its work.
  template <class Queue>
  bool run(Tape& tape, const model::TokenBatch& batch, bool last, const Queue& queue) {
    Variant& variant = variants_[(tape.micro_batch().first ? 0 : 1) + (last ? 2 : 0)];
    if (!wanted_ || !repeats(variant, tape, batch)) {
      queue();
      return true;
    }
    const bool is_new = !variant.graph;
    if (is_new) {
      record(variant, tape.stream(), queue);
    } else {
      take_flags(variant);
    }
    variant.graph.launch(tape.stream());
    return is_new;
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
  std::array<Variant, 4> variants_;
};

}  // namespace ziggurat::train
