// Tokens to the rows that a router gave them, and back.
#pragma once

#include <cstdint>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/ops/router.h>

namespace ziggurat::ops {

// y [R,C]: the token of each row of `routing`. x [S,C].
Var gather_tokens(Tape& tape, Var x, const Routing& routing);

// y [S,C] = sum over j of weights[s,j] rows[row_of_choice[s,j]], in order of j; zeros for a token without
// rows. rows [R,C]; routing.weights are f32 (f64 beside f64 rows).
Var combine(Tape& tape, Var rows, const Routing& routing);

// y[r] = x[from_row[r]]; from_row is a permutation of [0, R) in the tape's arena. x [R,C].
Var permute_rows(Tape& tape, Var x, const int32_t* from_row);

}  // namespace ziggurat::ops
