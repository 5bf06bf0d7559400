#pragma once

#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

// y = silu(gate) up, element by element, silu(z) = z / (1 + e^-z); same shape and dtype. Shazeer 2020, eq. 6.
Var swiglu(Tape& tape, Var gate, Var up);

}  // namespace ziggurat::ops
