#pragma once

#include <cstdint>

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

// y [n, C]: y_i = table[tokens_i] + positions[i % sequence_length].
// tokens [n] belong to the caller and must stay as they are until backward has run (a micro-batch's tokens
// do). An id outside the table is Error(data) naming id and place. table [V, C]; positions [T_max, C] of the
// same dtype, sequence_length <= T_max; or null: nothing is added (rotary models).
Var embedding(Tape& tape, const int32_t* tokens, int64_t n, int64_t sequence_length, const Param& table,
              const Param* positions = nullptr);

}  // namespace ziggurat::ops
