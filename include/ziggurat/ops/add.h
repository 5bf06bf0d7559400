#pragma once

#include <ziggurat/autograd/tape.h>

namespace ziggurat::ops {

// y = a + b, same shape and dtype: the residual connection.
Var add(Tape& tape, Var a, Var b);

}  // namespace ziggurat::ops
