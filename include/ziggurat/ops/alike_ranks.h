// Where the ranks of a group have the same tokens, in inference: results that each has in part become whole
// on all of them, bit by bit what one rank alone would have (on a GPU, where the matrix library takes other
// ways for parts, to rounding). Collective over the group, also without rows; on a group of one each is its
// input. Without backward; scatter_rows on the CPU only.
#pragma once

#include <cstdint>
#include <span>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/comm/communicator.h>

namespace ziggurat::ops {

// y [N, T n] = the columns x [N, n] of rank 0, 1, ...
Var gather_columns(Tape& tape, Var x, Communicator& group);

// Of x, of which every element is +0 on all ranks but one: that one's. x becomes it.
Var join(Tape& tape, Var x, Communicator& group);

// y [sum of rows, C] = the rows x [rows[r], C] of rank 0, 1, ...
Var gather_rows_v(Tape& tape, Var x, std::span<const int64_t> rows, Communicator& group);

// y[to[r]] = x[r], other rows of y [rows, C] are zeros; `to`, i32 [R] on the host, has no row twice.
Var scatter_rows(Tape& tape, Var x, const Tensor& to, int64_t rows);

}  // namespace ziggurat::ops
