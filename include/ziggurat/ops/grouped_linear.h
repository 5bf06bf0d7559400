#pragma once

#include <span>

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/grouped_linear.h>

namespace ziggurat::ops {

using kernels::Activation;
using kernels::Segment;

// y [R,out] = activation(x weight[e]^T + bias[e]) with e the expert of each row's segment.
// x [R,in], weight [E,out,in], bias [E,out] or null. The segments lie in the tape's arena and cover [0, R) in
// order. Gradients of segments from source s go to grad_of_source(s) of weight and bias.
Var grouped_linear(Tape& tape, Var x, std::span<const Segment> segments, const Param& weight,
                   const Param* bias = nullptr, Activation activation = Activation::none);

}  // namespace ziggurat::ops
