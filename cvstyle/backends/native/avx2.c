/* The engine for x86-64 with AVX2 and FMA. */

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define NAME(x) x##_avx2
#define VL 8
#define ROWS 4
#if defined(__clang__) /* does not fit twelve accumulators beside three vectors and a factor into 16 registers */
#define NV 2
#else
#define NV 3
#endif
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
