// What the lists of kernels are written with.
#pragma once

#include <deque>

#include "apps/kernel_cases.h"
#include <ziggurat/kernels/attention_shape.h>
#include <ziggurat/kernels/grouped_linear.h>
#include <ziggurat/kernels/packed_weights.h>

namespace ziggurat::apps {

// Memory lives as long as the lab.
class Lab {
 public:
  template <class T>
  T* values(int64_t n) {  // small positive numbers, none of them a denormal
    auto* x = data_.take<T>(n);
    for (int64_t i = 0; i < n; ++i) x[i] = T(0.001f * static_cast<float>(1 + i % 19));
    return x;
  }
  int32_t* scattered(int64_t n, int64_t limit);  // in [0, limit); n = limit, a power of 2: each once
  kernels::Segment* equal_shares(int64_t n, int64_t experts);  // of n rows
  // Copies of a weight [total, in] of `values`, in matrices of `rows`; null where this CPU has no packed
  // products.
  template <class T>
  kernels::PackedWeights* packed(const T* weight, int64_t total, int64_t rows, int64_t in,
                                 kernels::Copies copies) {
    if (!kernels::PackedWeights::supported<T>(total, rows, in, copies)) return nullptr;
    return &packed_.emplace_back(weight, total, rows, in, copies, data_);
  }

  int64_t bytes() const { return data_.used(); }
  Arena& workspace() { return workspace_; }
  Stream& stream() { return stream_; }

 private:
  Arena data_{"kernel operands", Arena::all_memory()}, workspace_{"kernel workspace", Arena::all_memory()};
  Stream stream_;
  std::deque<kernels::PackedWeights> packed_;
};

// configs/bench/small_dense.yaml and small_moe.yaml
constexpr int64_t kTokens = 2048, kWidth = 384, kFfn = 4 * kWidth, kVocab = 50304, kChunk = 512, kExperts = 8;
constexpr kernels::AttentionShape kHeads{8, 256, 6, 6, 64};
constexpr int64_t kN = kTokens * kWidth, kHidden = kTokens * kFfn, kQkv = kTokens * 3 * kWidth;
constexpr int64_t kParameters = int64_t{1} << 24;
constexpr int64_t kTexts = 8, kContext = 1024;  // of generating
constexpr double kScale = 0.125;                // 1 / sqrt(head_dim)
constexpr const char *kRows = "2048 x 384", *kWide = "2048 x 1536";

// n elements, each of which is so many bytes read or written.
template <class... Bytes>
Floor traffic(int64_t n, Bytes... of_an_element) {
  return {Floor::Kind::traffic, static_cast<double>(n) * static_cast<double>((of_an_element + ... + 0))};
}
inline Floor reads(int64_t n, size_t bytes) { return {Floor::Kind::reads, double(n) * double(bytes)}; }
inline Floor products(double flops) { return {Floor::Kind::products, flops}; }

class Cases {
 public:
  explicit Cases(std::vector<KernelCase>& list, DType dtype) : list_(list), dtype_(dtype) {}

  // setup(lab): operands, and a function that calls the kernel once.
  template <class Setup>
  void operator()(const std::string& name, const std::string& shape, Floor floor, const Setup& setup) {
    list_.push_back({name, shape, dtype_, floor, setup});
  }

 private:
  std::vector<KernelCase>& list_;
  DType dtype_;
};

void add_products(std::vector<KernelCase>& list);
void add_layers(std::vector<KernelCase>& list);
void add_moe(std::vector<KernelCase>& list);
void add_slabs(std::vector<KernelCase>& list);  // what walks over parameters, or reads them once

}  // namespace ziggurat::apps
