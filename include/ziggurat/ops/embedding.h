#pragma once

#include <cstdint>

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

// y [n, C]: y_i = table[tokens_i] + position_table[positions_i].
// tokens [n] and positions [n] belong to the caller and must stay as they are until backward has run (a
// micro-batch's do). An id outside the table is Error(data) naming id and place. table [V, C]; position_table
// [T_max, C] of the same dtype; or null: nothing is added (rotary models). positions in [0, T_max), or null:
// i % sequence_length, sequence_length <= T_max.
Var embedding(Tape& tape, const int32_t* tokens, int64_t n, int64_t sequence_length, const Param& table,
              const Param* position_table = nullptr, const int32_t* positions = nullptr);

// Of a table that ranks share: y_i = its row tokens_i where `table` [R, C], rows [first, first + R) of
// [vocabulary, C], has it, else zeros.
Var embedding_of_part(Tape& tape, const int32_t* tokens, int64_t n, int64_t sequence_length,
                      const Param& table, int64_t first, int64_t vocabulary);

// i32 [n] beside the table, in the tape's memory: those of tokens [first, first + n) of sequences of
// `length`.
const int32_t* counted_positions(Tape& tape, const Param& table, int64_t first, int64_t n, int64_t length);

}  // namespace ziggurat::ops
