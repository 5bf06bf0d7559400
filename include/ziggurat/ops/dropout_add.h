#pragma once

#include <cstdint>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/core/philox.h>

namespace ziggurat::ops {

// y = residual + dropout(x), by definition add(residual, dropout(x, rate, purpose, layer)) to the bit, in one
// pass over memory.
Var dropout_add(Tape& tape, Var x, Var residual, double rate, Purpose purpose, int64_t layer);

}  // namespace ziggurat::ops
