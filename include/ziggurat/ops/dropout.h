#pragma once

#include <cstdint>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/core/philox.h>

namespace ziggurat::ops {

// y = x / (1 - rate) where Philox(seed, purpose, layer, moment).uniform(element) >= rate, else 0; the
// micro-batch gives seed and moment, `element` is the index in x. 0 <= rate < 1.
// With rate 0, or outside training, x itself.
Var dropout(Tape& tape, Var x, double rate, Purpose purpose, int64_t layer);

}  // namespace ziggurat::ops
