// The matrix library's blocked products, kept ready: making one takes longer than a small product.
#pragma once

#include <array>
#include <string_view>
#include <type_traits>

#include <dnnl.hpp>

#include <ziggurat/core/bf16.h>
#include <ziggurat/core/error.h>
#include <ziggurat/memory/arena.h>

namespace ziggurat::kernels {

using Layout = dnnl::memory::desc;
using Type = dnnl::memory::data_type;

template <class T>
constexpr Type kType = std::is_same_v<T, bf16> ? Type::bf16 : Type::f32;

inline dnnl::engine& cpu() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

inline Layout row_major(int64_t rows, int64_t cols, Type type) {
  return Layout({rows, cols}, type, dnnl::memory::format_tag::ab);
}
// A matrix [rows, cols] stored as its transpose.
inline Layout column_major(int64_t rows, int64_t cols, Type type) {
  return Layout({rows, cols}, type, dnnl::memory::format_tag::ba);
}

// Whether the library runs code of these instructions: the CPU has them, and ONEDNN_MAX_CPU_ISA allows it.
bool library_has(dnnl::cpu_isa isa);

// C = A B, or C += A B.
dnnl::matmul::primitive_desc choose_matmul(const Layout& a, const Layout& b, const Layout& c,
                                           bool accumulate);
// Whether the library multiplies so by its blocked kernels. What it falls back to is up to a hundred times
// slower.
bool is_blocked(const dnnl::matmul::primitive_desc& chosen);

// Of a call of the library. Error (device): it found no memory; (internal): anything else.
inline void check_library(dnnl_status_t status, const char* name) {
  if (status == dnnl_out_of_memory) {
    fail(ErrorKind::device, "[matmul] oneDNN {} found no memory: {}", name, Arena::describe_limits());
  }
  check(status == dnnl_success, ErrorKind::internal, "[matmul] oneDNN {} failed with status {}", name,
        static_cast<int>(status));
}

// Runs a primitive on these arguments. By the C interface: the C++ one takes a map, which allocates.
template <size_t N>
void execute(const dnnl::primitive& primitive, const dnnl::stream& stream,
             const std::array<dnnl_exec_arg_t, N>& arguments, const char* name) {
  check_library(dnnl_primitive_execute(primitive.get(), stream.get(), N, arguments.data()), name);
}

// A product of fixed layouts, for one caller at a time and as many threads as it had when it made this.
class Matmul {
 public:
  explicit Matmul(const dnnl::matmul::primitive_desc& chosen);
  void run(const void* a, const void* b, void* c);

 private:
  dnnl::stream stream_;
  dnnl::memory a_, b_, c_;
  dnnl::matmul primitive_;
};

}  // namespace ziggurat::kernels
