// Where ranks share the tokens of a micro-batch: rank r of a group of T has rows [r n, (r + 1) n) of
// [T n, C]. Collective over the group, backward too: every rank must use what comes out. On a group of one
// each is its input.
#pragma once

#include <cstdint>
#include <span>

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/comm/communicator.h>

namespace ziggurat::ops {

// What the ranks do with the rows that they have gathered: each something else (its part of a matrix), so
// that gradients are summed, or all the same, so that each has the gradient of its own rows.
enum class Use { apart, alike };

// y [T n, C] = the rows x [n, C] of all ranks.
Var gather_rows(Tape& tape, Var x, Communicator& group, Use use);

// y [n, C] = this rank's rows of the sum of all ranks' x [T n, C], which is taken in the accumulation dtype
// and rounded once.
Var sum_rows(Tape& tape, Var x, Communicator& group);

// The same of ranks that have rows[r] rows each, which all of them know and which lies in the tape's memory:
// y [sum(rows), C] = the rows x [rows[rank], C] of all ranks, used apart, and back.
Var gather_uneven_rows(Tape& tape, Var x, Communicator& group, std::span<const int64_t> rows);
Var sum_uneven_rows(Tape& tape, Var x, Communicator& group, std::span<const int64_t> rows);

// y [n, C] = rows [begin, begin + n) of x.
Var some_rows(Tape& tape, Var x, int64_t begin, int64_t n);

// y [N, C] = x + bias [C]
Var add_bias(Tape& tape, Var x, const Param& bias);

}  // namespace ziggurat::ops
