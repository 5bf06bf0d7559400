// The bound of a training step: its matrix products and nothing else.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::bench {

// The products of one optimizer step of one rank, forward and both backward ones, of every linear layer,
// expert, attention head and of the vocabulary head: the shapes of the model, every layer with weights of its
// own, each product by the library call that serves it best, on operands that are ready in the type that this
// CPU multiplies. Attention skips what lies above the diagonal, in blocks; experts have equal loads.
class GemmBound {
 public:
  // Memory: weights and their gradients once, activations of the largest layer.
  GemmBound(const train::RunConfig& config, int world_size);

  struct Times {
    double linear = 0, expert = 0, attention = 0, head = 0;  // seconds
    double total() const { return linear + expert + attention + head; }
  };
  Times run();  // one pass over the step's products

  double flops() const { return flops_; }  // of a pass

 private:
  struct Linear {
    double Times::*part;
    int64_t groups, rows, in, out;  // experts of a grouped layer, rows of each
    int64_t tile;                   // rows of the weight in a product: all, or a tile of the vocabulary
    Tensor weight, dweight;
    std::unique_ptr<kernels::PackedWeights> packed;  // made anew in every run; null where none pays
  };
  struct Attention {
    int64_t layers = 0, count = 0, length = 0, width = 0;  // count: sequences x heads
  };
  void add(double Times::*part, int64_t groups, int64_t rows, int64_t in, int64_t out);
  void run_linear(const Linear& layer, bool first);
  template <class T, class TC>  // of operands and of all results but the gradient of the weight
  void run_products(const Linear& layer, bool first);
  void run_attention();
  int64_t attention_tile() const;  // elements of a thread's scores and of a block of outputs

  Arena data_, workspace_;
  Stream stream_;
  DType operands_, sums_;
  std::deque<Linear> layers_;
  Attention attention_;
  Tensor x_, dy_, y_;  // activations that all layers share
  int64_t passes_ = 1;
  double flops_ = 0;
};

}  // namespace ziggurat::bench
