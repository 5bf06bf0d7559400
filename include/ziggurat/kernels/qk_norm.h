// Root-mean-square normalisation (rms_norm.h) of the queries and keys of a qkv matrix, and its backward; v is
// copied. Two forms: over each head, with one weight for all heads of queries and one for all of keys (Qwen3,
// arXiv 2505.09388); or over the whole width of all heads (OLMoE, arXiv 2409.02060, section 4.2).
// Where ranks share the heads, the sums of a row over the whole width are sums of their parts': each finds
// its own (qk_norm_squares, qk_norm_products), and hands over all ranks'. Floor: memory; forward 1 read and 1
// write of qkv, backward 2 reads (of v's gradient 1) and 1 write; squares 1 read of q and k, products 2.
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
  int64_t parts = 1;  // ranks that have as many heads of a group as this one; more than 1: of the whole width

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
  const Accum<T>* squares = nullptr;   // [B T, groups] sums of x^2 over all parts; null: there is one
};

// squares [B T, groups] = the sums of x^2 over this part's columns
template <Device D, class T>
void qk_norm_squares(const QkNormShape& shape, const T* x, Accum<T>* squares, Stream& stream);

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
  Accum<T>* dq_weight = nullptr;       // [q_cols], +=; or null
  Accum<T>* dk_weight = nullptr;       // [k_cols], +=; or null
  const Accum<T>* products = nullptr;  // [B T, groups] sums of dy weight x rstd over all parts; null: one
};

// products [B T, groups] = the sums of dy weight x rstd over this part's columns
template <Device D, class T>
void qk_norm_products(const QkNormGradArgs<T>& args, Accum<T>* products, Stream& stream);

// The weights' gradients are summed over fixed blocks of rows, combined in order: the same bits on any number
// of threads.
template <Device D, class T>
void qk_norm_backward(const QkNormGradArgs<T>& args, Arena& workspace, Stream& stream);

}  // namespace ziggurat::kernels
