// Ops say here what their kernels do, beside starting them, for a WorkRecord; a branch where there is none.
// `touched` are tensors, parameters and gradients, each with the bytes that are read or written of it.
#pragma once

#include <ziggurat/autograd/param.h>
#include <ziggurat/autograd/tape.h>
#include <ziggurat/runtime/work_record.h>

namespace ziggurat {

enum class Pass { forward, backward, weight };  // weight: the backward product for a weight's gradient

inline double bytes_touched(const Tensor& t) { return t ? static_cast<double>(t.bytes()) : 0; }
inline double bytes_touched(const Var& x) { return bytes_touched(x.value()); }
inline double bytes_touched(const GradSlot& g) { return bytes_touched(g.grad) * (g.accumulate ? 2 : 1); }
inline double bytes_touched(const Param* p) { return p == nullptr ? 0 : bytes_touched(p->value); }
inline double bytes_touched(double bytes) { return bytes; }
// Of a parameter's gradient, to which a kernel is about to add; the first product of a step writes it.
inline double gradient_bytes(const Param& p) {
  return bytes_touched(p.grad) * (p.unwritten != nullptr && *p.unwritten ? 1 : 2);
}

template <class... Touched>
void note_kernel(const char* name, Pass pass, const Touched&... touched) {
  if (WorkRecord* record = WorkRecord::current()) {
    record->add({.name = name, .backward = pass == Pass::backward, .bytes = (bytes_touched(touched) + ...)});
  }
}

struct ProductSize {
  int64_t groups, m, n, k;
};
template <class... Touched>
void note_product(const char* name, Pass pass, const ProductSize& s, const Touched&... touched) {
  if (WorkRecord* record = WorkRecord::current()) {
    record->add({.kind = WorkItem::Kind::product,
                 .name = name,
                 .backward = pass != Pass::forward,
                 .of_weight = pass == Pass::weight,
                 .groups = s.groups,
                 .m = s.m,
                 .n = s.n,
                 .k = s.k,
                 .flops = 2.0 * static_cast<double>(s.groups) * static_cast<double>(s.m) *
                          static_cast<double>(s.n) * static_cast<double>(s.k),
                 .bytes = (bytes_touched(touched) + ...)});
  }
}

// Rows of `width` numbers between `tokens` tokens and the `rows` that experts see.
template <class... Touched>
void note_dispatch(const char* name, Pass pass, int64_t tokens, int64_t rows, int64_t width,
                   const Touched&... touched) {
  if (WorkRecord* record = WorkRecord::current()) {
    record->add({.kind = WorkItem::Kind::dispatch,
                 .name = name,
                 .backward = pass == Pass::backward,
                 .m = tokens,
                 .n = rows,
                 .k = width,
                 .bytes = (bytes_touched(touched) + ...)});
  }
}

}  // namespace ziggurat
