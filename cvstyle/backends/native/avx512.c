/* The engine for x86-64 with AVX-512. */

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#define NAME(x) x##_avx512
#define VL 16
#define ROWS 8
#define NV 3
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
