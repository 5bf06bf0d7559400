#pragma once

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/grouped_linear.h>

namespace ziggurat::ops {

using kernels::Activation;

// y [R,out] = activation(x weight[e]^T + bias[e]) with e the expert of each row's group.
// x [R,in], weight [E,out,in], bias [E,out] or null. offsets, i32 [E sources + 1] in the tape's memory: rows
// [offsets[g], offsets[g+1]) are those of group g = expert * sources + source (kernels/row_groups.h). On the
// CPU they cover all rows; elsewhere what y, and x's gradient, have behind the last of them is anything.
// Gradients of groups from source s go to grad_of_source(s) of weight and bias.
Var grouped_linear(Tape& tape, Var x, const Tensor& offsets, const Param& weight, const Param* bias = nullptr,
                   Activation activation = Activation::none);

}  // namespace ziggurat::ops
