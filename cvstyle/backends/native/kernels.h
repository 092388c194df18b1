/* The engine's operations for one instruction set, written with the compiler's vector types.

   Before inclusion: NAME(x) gives a function its suffix; VL floats to a vector; the product's tile in registers is ROWS
   rows by NV vectors. Panels of filters are always PANEL rows high. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine.h"

#define PANEL 8
#define NR (NV * VL)
#define LINE 16 /* floats: added to strides that would otherwise be multiples of a page */

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint16_t vs __attribute__((vector_size(VL * 2)));
typedef uint8_t vb __attribute__((vector_size(VL)));
/* At any address: filters in a mapped file and the last gradient of lbfgs.h lie where they will. */
typedef float vf_any __attribute__((vector_size(VL * 4), aligned(1), may_alias));
typedef uint8_t vb_any __attribute__((vector_size(VL), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

INLINE int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
INLINE vf load(const float *p) { return *(const vf_any *)p; }
INLINE void store(float *p, vf v) { *(vf_any *)p = v; }
INLINE vf splat(float x) { return x - (vf){0}; }
INLINE vf where(vi mask, vf v) { return (vf)(mask & (vi)v); }
INLINE vi pick(vi mask, vi a, vi b) { return (mask & a) | (~mask & b); }

/* The first n lanes, the others zero. */
INLINE vf load_n(const float *p, int64_t n)
{
    if (n >= VL)
        return load(p);
#if VL == 16
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    vf v = {0};
    memcpy(&v, p, n * sizeof(float));
    return v;
#endif
}

INLINE void store_n(float *p, vf v, int64_t n)
{
    if (n >= VL)
        store(p, v);
#if VL == 16
    else
        _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
    else
        memcpy(p, &v, n * sizeof(float));
#endif
}

#if VL == 16
#define LANES {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define NEXT 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
#define THIRD_0 0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0
#define THIRD_1 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0
#define THIRD_2 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0
#define REST_0 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29
#define REST_1 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30
#define REST_2 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31
INLINE vf maximum(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE uint32_t positive(vf v) { return _mm512_cmp_ps_mask((__m512)v, _mm512_setzero_ps(), _CMP_GT_OQ); }
#elif VL == 8
#define LANES {0, 1, 2, 3, 4, 5, 6, 7}
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define NEXT 1, 2, 3, 4, 5, 6, 7, 8
#define THIRD_0 0, 3, 6, 9, 12, 15, 0, 0
#define THIRD_1 1, 4, 7, 10, 13, 0, 0, 0
#define THIRD_2 2, 5, 8, 11, 14, 0, 0, 0
#define REST_0 0, 1, 2, 3, 4, 5, 10, 13
#define REST_1 0, 1, 2, 3, 4, 8, 11, 14
#define REST_2 0, 1, 2, 3, 4, 9, 12, 15
INLINE vf maximum(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE uint32_t positive(vf v)
{
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_setzero_ps(), _CMP_GT_OQ));
}
#else
#define LANES {0, 1, 2, 3}
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#define NEXT 1, 2, 3, 4
#define THIRD_0 0, 3, 6, 0
#define THIRD_1 1, 4, 7, 0
#define THIRD_2 2, 5, 0, 0
#define REST_0 0, 1, 2, 5
#define REST_1 0, 1, 2, 6
#define REST_2 0, 1, 4, 7
INLINE vf maximum(vf a, vf b) { return (vf)pick(a > b, (vi)a, (vi)b); }
INLINE uint32_t positive(vf v)
{
    vi bits = (v > 0) & (vi){1, 2, 4, 8};
    return bits[0] | bits[1] | bits[2] | bits[3];
}
#endif

/* max(v, 0); NaN stays, since of two operands that cannot be compared `maximum` gives the second. */
INLINE vf rectified(vf v) { return maximum((vf){0}, v); }

#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

/* Lanes whose bit is set. */
INLINE vi lanes_of(uint32_t bits)
{
    const vi lane = LANES;
    return (((int32_t)bits - (vi){0}) >> lane & 1) != 0;
}

INLINE void store_bytes(uint8_t *p, vi v, int64_t n)
{
    vb bytes = __builtin_convertvector(v, vb);
    if (n >= VL)
        *(vb_any *)p = bytes;
    else
        memcpy(p, &bytes, n);
}

/* Filters lie in panels of 8 rows: one column after the other, a[8 c + r]; or, `across`, VL columns of a row together,
   a[8 c + VL r] for c a multiple of VL. */
INLINE int64_t panel_size(int across, int64_t depth) { return PANEL * (across ? up(depth, VL) * VL : depth); }
INLINE int64_t panel_row(int across, int64_t row) { return across ? row * VL : row; }

/* The product in registers: acc[r][v] = Σ_c a(r, c) · b[NR c + VL v ...], for the nv vectors that are in use. */
INLINE void multiply(int nv, int across, int64_t depth, const float *a, const float *b, vf acc[ROWS][NV])
{
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int v = 0; v < nv; v++)
            acc[r][v] = (vf){0};
    int64_t block = across ? VL : depth;
    for (int64_t first = 0; first < depth; first += block, a += across ? (PANEL - 1) * VL : 0)
        for (int64_t c = first; c < MIN(first + block, depth); c++, a += across ? 1 : PANEL, b += NR) {
            vf x[NV];
            UNROLL for (int v = 0; v < nv; v++)
                x[v] = load(b + v * VL);
            UNROLL for (int r = 0; r < ROWS; r++) {
                vf w = splat(a[panel_row(across, r)]);
                UNROLL for (int v = 0; v < nv; v++)
                    acc[r][v] += w * x[v];
            }
        }
}

/* One panel of 8 rows times a panel of nv vectors, stored with stride NR. */
INLINE void multiply_store(int nv, int across, int64_t depth, const float *a, const float *b, float *m)
{
    for (int half = 0; half < PANEL; half += ROWS) {
        vf acc[ROWS][NV];
        multiply(nv, across, depth, a + panel_row(across, half), b, acc);
        UNROLL for (int r = 0; r < ROWS; r++)
            UNROLL for (int v = 0; v < nv; v++)
                store(m + (half + r) * NR + v * VL, acc[r][v]);
    }
}

#include "winograd.h"
#include "general.h"
#include "elementwise.h"
#include "lbfgs.h"
#include "pyramid.h"
#include "pooling.h"
