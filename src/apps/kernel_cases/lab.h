// What the lists of kernels are written with.
#pragma once

#include <deque>
#include <initializer_list>
#include <string>
#include <vector>

#include "apps/kernel_cases.h"
#include <ziggurat/core/error.h>
#include <ziggurat/kernels/attention_shape.h>
#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/kernels/row_groups.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/device.h>
#include <ziggurat/runtime/kernel_support.h>

namespace ziggurat::apps {

// Operands lie on `device`. Memory lives as long as the lab.
class Lab {
 public:
  explicit Lab(Device device = Device::cpu, CaseSize size = CaseSize::timed);

  template <class T>
  T* values(int64_t n) {  // small positive numbers, none of them a denormal
    return filled<T>(n, [](int64_t i) { return T(0.001f * static_cast<float>(1 + i % 19)); });
  }
  template <class T>
  T* constant(int64_t n, T value) {
    return filled<T>(n, [=](int64_t) { return value; });
  }
  int32_t* scattered(int64_t n, int64_t limit);  // in [0, limit); n = limit, a power of 2: each once
  kernels::RowGroups equal_shares(int64_t n, int64_t experts);  // of n rows
  // Copies of a weight [total, in] of `values`, in matrices of `rows`; null where this device has no packed
  // products.
  template <class T>
  kernels::PackedWeights* packed(const T* weight, int64_t total, int64_t rows, int64_t in,
                                 kernels::Copies copies) {
    if (data_.device() != Device::cpu) return nullptr;
    if (!kernels::PackedWeights::supported<T>(total, rows, in, copies)) return nullptr;
    return &packed_.emplace_back(weight, total, rows, in, copies, data_);
  }

  // Of weights with which so many rows are multiplied while they last.
  uint64_t version(int64_t rows) {
    stream_.set_weight_rows(rows);
    return 1;
  }

  int64_t bytes() const { return data_.used(); }
  Arena& workspace() { return workspace_; }
  Stream& stream() { return stream_; }

 private:
  template <class T, class F>
  T* filled(int64_t n, const F& value) {  // by element
    auto* const x = data_.take_on_device<T>(n);
    if (data_.device() == Device::cpu) {
      for (int64_t i = 0; i < n; ++i) x[i] = value(i);
      return x;
    }
    std::vector<T> host(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) host[static_cast<size_t>(i)] = value(i);
    put(host.data(), x, n * static_cast<int64_t>(sizeof(T)));
    return x;
  }
  void put(const void* from, void* to, int64_t bytes);

  Arena data_, workspace_;
  Stream stream_;
  std::deque<kernels::PackedWeights> packed_;
};

// For times, on the CPU those of configs/bench/small_dense.yaml and small_moe.yaml, on a GPU those of a step
// that fills it: 16,384 tokens of a model 1,024 wide. For counts small ones: the emulated device of the tests
// runs each in less than a second.
template <Device D, CaseSize size>
struct Sizes {
  static constexpr bool kTimed = size == CaseSize::timed, kOnGpu = kTimed && D == Device::cuda;
  static constexpr kernels::AttentionShape kHeads = kOnGpu   ? kernels::AttentionShape{16, 1024, 16, 16, 64}
                                                    : kTimed ? kernels::AttentionShape{8, 256, 6, 6, 64}
                                                             : kernels::AttentionShape{2, 256, 2, 2, 64};
  static constexpr int64_t kTokens = kHeads.rows(), kWidth = kHeads.heads * kHeads.head_dim,
                           kFfn = 4 * kWidth, kVocab = kTimed ? 50304 : 1024,
                           kChunk = kOnGpu   ? 4096
                                    : kTimed ? 512
                                             : 128,
                           kExperts = 8;
  static constexpr int64_t kN = kTokens * kWidth, kHidden = kTokens * kFfn, kQkv = kTokens * 3 * kWidth;
  static constexpr int64_t kSquare = kOnGpu ? 4096 : kTimed ? 1024 : 64;  // of a product of square matrices
  static constexpr int64_t kParameters = int64_t{1} << (kOnGpu ? 26 : kTimed ? 24 : 16);
  static constexpr int64_t kTexts = 8, kContext = 1024;  // of generating
};
constexpr double kScale = 0.125;  // 1 / sqrt(head_dim)

// "2048 x 384"
std::string shape_of(std::initializer_list<int64_t> sizes);
// "8 x 256, 6 x 64"
inline std::string shape_of(const kernels::AttentionShape& s) {
  return shape_of({s.batch, s.length}) + ", " + shape_of({s.heads, s.head_dim});
}

// n elements, each of which is so many bytes read or written.
template <class... Bytes>
Floor traffic(int64_t n, Bytes... of_an_element) {
  const double bytes = static_cast<double>(n) * static_cast<double>((of_an_element + ... + 0));
  return {Floor::Kind::traffic, bytes, bytes};
}
inline Floor reads(int64_t n, size_t bytes) {
  return {Floor::Kind::reads, double(n) * double(bytes), double(n) * double(bytes)};
}
// `bytes`: of operands and results, each moved once.
inline Floor products(double flops, double bytes) { return {Floor::Kind::products, flops, bytes}; }

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

// Calls list<D, Sizes<D, size>>() for the device D. Throws Error(argument) where this build has no kernels
// for it, and for counts on the CPU.
template <class F>
void list_for(Device device, CaseSize size, const F& list) {
  constexpr CaseSize kTimed = CaseSize::timed, kCounted = CaseSize::counted;
  constexpr Device kCpu = Device::cpu, kCuda = Device::cuda;
  if constexpr (kHasCuda) {
    if (device == kCuda && size == kTimed) return list.template operator()<kCuda, Sizes<kCuda, kTimed>>();
    if (device == kCuda) return list.template operator()<kCuda, Sizes<kCuda, kCounted>>();
  }
  check(device == kCpu && size == kTimed, ErrorKind::argument, "this build has no kernels for {}",
        to_string(device));
  list.template operator()<kCpu, Sizes<kCpu, kTimed>>();
}

void add_products(std::vector<KernelCase>& list, Device device, CaseSize size);
void add_layers(std::vector<KernelCase>& list, Device device, CaseSize size);
void add_moe(std::vector<KernelCase>& list, Device device, CaseSize size);
// What walks over parameters, or reads them once.
void add_slabs(std::vector<KernelCase>& list, Device device, CaseSize size);

}  // namespace ziggurat::apps
