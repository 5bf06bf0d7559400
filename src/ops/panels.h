// Products with weights in panels, as ops of inference take them.
#pragma once

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/kernels/panel_linear.h>

namespace ziggurat::ops {

inline kernels::Int8Weights int8_weights(const Param& weight) {
  const Tensor& w = weight.value;
  const int64_t in = w.dim(w.rank() - 1);
  if (!weight.int8) return {};
  return kernels::Int8Weights::at(w.raw(), w.numel() / in, in);
}

// y [rows, out], of TY, = activation(x [rows, in] weight[e]^T + bias[e]) for the rows of each group.
template <Device D, class T, class TY>
void panel_product(Tape& tape, const kernels::RowGroups& groups, const T* x, int64_t rows,
                   const Param& weight, const Param* bias, kernels::Activation activation, const Tensor& y) {
  check(!tape.recording(), ErrorKind::internal,
        "[panels] weights in panels are for inference: begin the tape with training = false");
  const Tensor& w = weight.value;
  kernels::panel_linear<D>(
      kernels::PanelLinearArgs<T, TY>{groups, rows, w.dim(w.rank() - 1), w.dim(w.rank() - 2), x,
                                      w.template data<T>(),
                                      bias == nullptr ? nullptr : bias->value.template data<Accum<T>>(),
                                      activation, y.template data<TY>(), int8_weights(weight)},
      tape.workspace(), tape.stream());
}

}  // namespace ziggurat::ops
