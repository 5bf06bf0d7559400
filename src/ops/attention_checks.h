// What every op on a qkv matrix checks at its door.
#pragma once

#include <ziggurat/autograd/tape.h>
#include <ziggurat/core/error.h>
#include <ziggurat/kernels/attention.h>

namespace ziggurat::ops {

inline void check_qkv(const char* op, const Var& qkv, const kernels::AttentionShape& s) {
  check(s.batch >= 0 && s.length >= 0 && s.heads > 0 && s.kv_heads > 0 && s.head_dim > 0, ErrorKind::argument,
        "[{}] expected batch, length >= 0 and heads, kv_heads, head_dim > 0, got batch {}, length {}, heads "
        "{}, "
        "kv_heads {}, head_dim {}",
        op, s.batch, s.length, s.heads, s.kv_heads, s.head_dim);
  check(s.heads % s.kv_heads == 0, ErrorKind::argument,
        "[{}] {} query heads cannot share {} key heads evenly: make heads a multiple of kv_heads", op,
        s.heads, s.kv_heads);
  const Shape want = {s.rows(), s.width()};
  check(qkv.shape() == want, ErrorKind::argument,
        "[{}] expected qkv [batch * length, (heads + 2 kv_heads) * head_dim] = {}, got {}", op, want,
        qkv.shape());
}

inline void check_head_dim(const char* op, const kernels::AttentionShape& s, Device device) {
  check(planned(device) == Device::cpu || s.head_dim <= kernels::kAttentionMaxHeadDimOnCuda,
        ErrorKind::argument,
        "[{}] head_dim {}: on {} expected at most {}; use more heads of fewer dimensions", op, s.head_dim,
        to_string(device), kernels::kAttentionMaxHeadDimOnCuda);
}

}  // namespace ziggurat::ops
