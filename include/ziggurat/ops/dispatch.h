// Tokens to the rows that a router gave them, and back.
#pragma once

#include <cstdint>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/ops/router.h>

namespace ziggurat::ops {

// y [R,C]: the token of each row of `routing`; nobody's rows are not written. x [S,C].
Var gather_tokens(Tape& tape, Var x, const Routing& routing);

// y [S,C] = sum over j of weights[s,j] rows[row_of_choice[s,j]], in order of j; zeros for a token without
// rows. rows [R,C]; routing.weights are f32 (f64 beside f64 rows).
Var combine(Tape& tape, Var rows, const Routing& routing);

// y[r] = x[from_row[r]]; from_row, i32 [R], names no row twice, and -1 where y's row stays as it is; in the
// tape's memory. x [R,C]; rows that nobody names have no gradient.
Var permute_rows(Tape& tape, Var x, const Tensor& from_row);

// The order in which a rank's experts compute the rows that came to them: by (local expert, source), where
// they arrived by (source, local expert).
struct ArrivalOrder {
  Tensor offsets;         // i32 [L sources + 1] for grouped_linear
  Tensor arrival_of_row;  // i32 [rows]
  Tensor row_of_arrival;  // i32 [rows] the inverse
};
// arriving i32 [P,L] from each rank to each expert, of which the sum is `rows`. by_source: sources are kept
// apart, and else are one. `block`: places of each source's rows for each expert, which then are P L block
// `rows` with nobody's among them; 0: rows follow each other.
ArrivalOrder order_arrivals(Tape& tape, const Tensor& arriving, int64_t rows, bool by_source,
                            int64_t block = 0);

}  // namespace ziggurat::ops
