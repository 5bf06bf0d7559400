// Root-mean-square normalisation (rms_norm.h) of the queries and keys of a qkv matrix, and its backward; v is
// copied. Two forms: over each head, with one weight for all heads of queries and one for all of keys (Qwen3,
// arXiv 2505.09388); or over the whole width of all heads (OLMoE, arXiv 2409.02060, section 4.2).
// Floor: memory; forward 1 read and 1 write of qkv, backward 2 reads (of v's gradient 1) and 1 write.
#pragma once

#include <cstdint>

#include <ziggurat/core/bf16.h>
#include <ziggurat/kernels/attention_shape.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::kernels {

struct QkNormKernels : OnCpu {
  static constexpr const char* kName = "qk_norm";
  using Cuda = Dtypes<float, bf16>;
};

// Which columns of a row of qkv are normalised together: groups of q, and after them groups of k.
struct QkNormShape {
  AttentionShape qkv;
  bool per_head = true;  // false: all heads of q, and all of k, are one group

  constexpr int64_t q_groups() const { return per_head ? qkv.heads : 1; }
  constexpr int64_t k_groups() const { return per_head ? qkv.kv_heads : 1; }
  constexpr int64_t groups() const { return q_groups() + k_groups(); }
  constexpr int64_t q_cols() const { return qkv.heads * qkv.head_dim / q_groups(); }  // of a group
  constexpr int64_t k_cols() const { return qkv.kv_heads * qkv.head_dim / k_groups(); }
};

template <class T>
struct QkNormArgs {
  QkNormShape shape;
  Accum<T> eps = 0;
  const T* x = nullptr;                // [B T, width]
  const Accum<T>* q_weight = nullptr;  // [q_cols]
  const Accum<T>* k_weight = nullptr;  // [k_cols]
  T* y = nullptr;                      // [B T, width], not x
  Accum<T>* rstd = nullptr;            // [B T, groups], out: 1 / sqrt(mean(x^2) + eps)
};

template <Device D, class T>
void qk_norm_forward(const QkNormArgs<T>& args, Stream& stream);

template <class T>
struct QkNormGradArgs {
  QkNormShape shape;
  const T* x = nullptr;                // [B T, width]
  const Accum<T>* q_weight = nullptr;  // [q_cols]
  const Accum<T>* k_weight = nullptr;  // [k_cols]
  const Accum<T>* rstd = nullptr;      // [B T, groups] as forward left it
  const T* dy = nullptr;               // [B T, width]
  T* dx = nullptr;                     // [B T, width], or null
  bool accumulate_dx = false;
  Accum<T>* dq_weight = nullptr;  // [q_cols], +=; or null
  Accum<T>* dk_weight = nullptr;  // [k_cols], +=; or null
};

// The weights' gradients are summed over fixed blocks of rows, combined in order: the same bits on any number
// of threads.
template <Device D, class T>
void qk_norm_backward(const QkNormGradArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
