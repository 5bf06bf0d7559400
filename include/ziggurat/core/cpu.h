// The CPU that this program was built for, beside the one that it runs on. A program that meets instructions
// its CPU lacks is killed by SIGILL, which tells nobody what to do; so this is compared at start, before any
// code that was compiled for the CPU of the build runs (core/cpu_check.cpp), and told with its cure.
#pragma once

#include <cstddef>
#include <cstdint>

// What compilers put into ordinary code by themselves: vectors and operations on bits. FEATURE(the compiler's
// macro, its name for the same, the x86-64 level that it came with; 5: none). What only intrinsics reach is
// not here (AMX, keys, hashes, random numbers): tests/install/cpu_features.py holds the two lists against the
// compiler's.
#define ZIGGURAT_CPU_FEATURES(FEATURE)               \
  FEATURE(__SSE3__, "sse3", 2)                       \
  FEATURE(__SSSE3__, "ssse3", 2)                     \
  FEATURE(__SSE4_1__, "sse4.1", 2)                   \
  FEATURE(__SSE4_2__, "sse4.2", 2)                   \
  FEATURE(__POPCNT__, "popcnt", 2)                   \
  FEATURE(__AVX__, "avx", 3)                         \
  FEATURE(__AVX2__, "avx2", 3)                       \
  FEATURE(__BMI__, "bmi", 3)                         \
  FEATURE(__BMI2__, "bmi2", 3)                       \
  FEATURE(__F16C__, "f16c", 3)                       \
  FEATURE(__FMA__, "fma", 3)                         \
  FEATURE(__LZCNT__, "lzcnt", 3)                     \
  FEATURE(__MOVBE__, "movbe", 3)                     \
  FEATURE(__AVX512F__, "avx512f", 4)                 \
  FEATURE(__AVX512BW__, "avx512bw", 4)               \
  FEATURE(__AVX512CD__, "avx512cd", 4)               \
  FEATURE(__AVX512DQ__, "avx512dq", 4)               \
  FEATURE(__AVX512VL__, "avx512vl", 4)               \
  FEATURE(__AVX512IFMA__, "avx512ifma", 5)           \
  FEATURE(__AVX512VBMI__, "avx512vbmi", 5)           \
  FEATURE(__AVX512VBMI2__, "avx512vbmi2", 5)         \
  FEATURE(__AVX512VNNI__, "avx512vnni", 5)           \
  FEATURE(__AVX512BITALG__, "avx512bitalg", 5)       \
  FEATURE(__AVX512VPOPCNTDQ__, "avx512vpopcntdq", 5) \
  FEATURE(__AVX512BF16__, "avx512bf16", 5)           \
  FEATURE(__AVX512FP16__, "avx512fp16", 5)           \
  FEATURE(__AVX512ER__, "avx512er", 5)               \
  FEATURE(__AVX512PF__, "avx512pf", 5)               \
  FEATURE(__AVX5124FMAPS__, "avx5124fmaps", 5)       \
  FEATURE(__AVX5124VNNIW__, "avx5124vnniw", 5)       \
  FEATURE(__AVXVNNI__, "avxvnni", 5)                 \
  FEATURE(__GFNI__, "gfni", 5)                       \
  FEATURE(__SSE4A__, "sse4a", 5)                     \
  FEATURE(__FMA4__, "fma4", 5)                       \
  FEATURE(__XOP__, "xop", 5)                         \
  FEATURE(__TBM__, "tbm", 5)

namespace ziggurat {

// A set of them: bit i stands for the i-th of the list.
using CpuFeatures = uint64_t;

// What the compiler was allowed to use, and how the build said so (ZIGGURAT_MARCH).
extern const CpuFeatures kBuiltForFeatures;
extern const char kBuiltForMarch[];

CpuFeatures features_of_this_cpu();

// 1 to 4: the CPU runs what is built with -march=x86-64, x86-64-v2, -v3 and -v4.
int x86_64_level(CpuFeatures features);

// An error's text, cut to `size`; empty if a CPU with `here` runs what was built for `built_for`. Functions
// of this file may run before anything else does: they call nothing but the C library.
void explain_missing_features(CpuFeatures built_for, CpuFeatures here, const char* cpu, char* text,
                              size_t size);

// Its name as the maker wrote it, e.g. "AMD EPYC 7402P 24-Core Processor"; cut to `size`.
void name_of_this_cpu(char* text, size_t size);

}  // namespace ziggurat
