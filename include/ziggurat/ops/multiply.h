#pragma once

#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

// y = a b, element by element; same shape and dtype.
Var multiply(Tape& tape, Var a, Var b);

}  // namespace ziggurat::ops
