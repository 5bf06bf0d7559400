#include <ziggurat/kernels/dispatch.h>
#include <ziggurat/ops/choose_rows.h>

namespace ziggurat::ops {

Var choose_rows(Tape& tape, Var x, std::span<const int32_t> rows) {
  check(x.shape().rank() == 2, ErrorKind::argument, "[choose_rows] expected x [N, C], got {}", x.shape());
  for (const int32_t row : rows) {
    check(0 <= row && row < x.dim(0), ErrorKind::argument,
          "[choose_rows] x has {} rows, but row {} is chosen", x.dim(0), row);
  }
  check(!tape.recording(), ErrorKind::internal,
        "[choose_rows] has no backward: begin the tape with training = false");
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t width = x.dim(1);
  const Var y = tape.output(x.dtype(), {count, width}, false);
  const int32_t* there = rows.data();
  if (planned(x.value().device()) == Device::cuda) {
    const Tensor table = tape.save(DType::i32, {count});
    copy(Tensor(const_cast<int32_t*>(rows.data()), DType::i32, {count}), table, tape.stream());
    there = table.data<int32_t>();
  }
  visit_kernels<kernels::DispatchKernels>(x.value(), [&]<Device D, class T>() {
    kernels::gather_rows<D>(
        kernels::GatherRowsArgs<T>{count, width, x.value().data<T>(), there, y.value().data<T>()},
        tape.stream());
  });
  return y;
}

}  // namespace ziggurat::ops
