// What core/injection.h asks of values, done to those of this rank. Nothing where nothing is injected.
#pragma once

#include <cstdint>

#include <ziggurat/train/training.h>

namespace ziggurat::train {

// Weights and masters at the beginning of a step, counted from 1.
void spoil_weights(Training& training, int64_t step, Stream& stream);
// Gradients of this rank's micro-batches, and the loss of the first of them, f64 [1].
void spoil_results(Training& training, const Tensor& loss, int64_t step, Stream& stream);

}  // namespace ziggurat::train
