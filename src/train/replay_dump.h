// The tensors that `ziggurat replay --dump` writes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <ziggurat/tensor/host_pieces.h>
#include <ziggurat/train/replay.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat::train {

// What comes out of the embedding, the blocks and the final norm, of each of this rank's micro-batches of a
// step.
class SeenOutputs {
 public:
  struct Output {
    std::string name, where;
    DType dtype;
    Shape shape;
    std::vector<std::byte> bytes;
  };

  SeenOutputs(Trainer& trainer, const std::string& pattern) : trainer_(trainer), pattern_(pattern) {}
  ~SeenOutputs() { trainer_.model().observe({}); }
  SeenOutputs(const SeenOutputs&) = delete;
  SeenOutputs& operator=(const SeenOutputs&) = delete;

  void watch();  // from now on, until this is gone
  const std::vector<Output>& all() const { return outputs_; }

 private:
  void keep(int64_t layer, const Tensor& output);

  Trainer& trainer_;
  std::string pattern_;
  std::vector<Output> outputs_;
  int64_t micro_batch_ = -1;  // of this rank
  HostPieces host_;
};

// Writes them and what a rank holds and updates, as far as options.dump matches. Collective.
void dump(Trainer& trainer, const SeenOutputs& outputs, const ReplayOptions& options, Communicator& world);

}  // namespace ziggurat::train
