#pragma once

#include <cstdint>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/core/philox.h>

namespace ziggurat::ops {

// y = x / (1 - rate) where Philox(seed, purpose, layer, moment).uniform(element) >= rate, else 0; the
// micro-batch gives seed and moment, `element` is the index in x. 0 <= rate < 1.
// With rate 0, or outside training, x itself.
Var dropout(Tape& tape, Var x, double rate, Purpose purpose, int64_t layer);

// The random stream of a dropout in this micro-batch.
inline Philox dropout_stream(const Tape& tape, Purpose purpose, int64_t layer) {
  const MicroBatch& m = tape.micro_batch();
  return Philox(m.seed, purpose, static_cast<uint64_t>(layer), m.moment());
}

}  // namespace ziggurat::ops
