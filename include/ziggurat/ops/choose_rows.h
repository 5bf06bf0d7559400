#pragma once

#include <cstdint>
#include <span>

#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

// y [rows.size(), C]: y[i] = x[rows[i]], for any rows of x [N, C], none of them too. `rows` lie on the host
// and stay as they are until the stream is done. For inference: has no gradient. Throws Error(argument) for a
// row that x does not have, and Error(internal) in training.
Var choose_rows(Tape& tape, Var x, std::span<const int32_t> rows);

}  // namespace ziggurat::ops
