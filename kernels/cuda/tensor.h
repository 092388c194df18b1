/* Tensor cores (PTX ISA, mma.sync of sm_80) behind a few primitives.

   Operands are 32-bit words, WIDTH numbers each: one of tf32, or two neighbours along the summed axis of bf16 or fp16, the
   first in the lower half. In words all types share one layout: a product is 16 × 8 words times 8 words × 8.

   -D PRECISION  0: tf32, 1: bf16, 2: fp16 (sums are float32 in each) */

#if PRECISION
#define WIDTH 2
#else
#define WIDTH 1
#endif
#define LANE (LOCAL_ID & 31)
#define WARP (LOCAL_ID >> 5)

#define UNROLL _Pragma("unroll")
#define ANEW(number) asm volatile("" : "+r"(number)) /* values computed from the number are forgotten */
#define NO_UNROLL _Pragma("unroll 1")
#define IN_ORDER asm volatile("" ::: "memory") /* later loads stay behind it, so that they take no registers before */

INLINE uint word(float first, float second) {
    uint result;
#if PRECISION == 0
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(first));
#elif PRECISION == 1
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
#endif
    return result;
}

INLINE float as_number(uint bits) { return __uint_as_float(bits); }
INLINE uint as_bits(float number) { return __float_as_uint(number); }

/* Copies of 16 bytes to shared memory, counted in groups; zeros instead where `valid` is 0. */
#define ASYNC_COPY(to, from, valid)                                                                                   \
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint)__cvta_generic_to_shared(to)), "l"(from), \
                 "r"((valid) ? 16 : 0)                                                                                 \
                 : "memory")
#define ASYNC_COMMIT asm volatile("cp.async.commit_group;" ::: "memory")
#define ASYNC_WAIT(pending) asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory")

/* sums[i][j] += a[i] · b[j] for i < rows, j < columns. Lane l holds a: rows l/4 and l/4 + 8 of words l%4, then of words
   l%4 + 4; b: words l%4 and l%4 + 4 of column l/4; sums: columns 2(l%4) and 2(l%4) + 1 of row l/4, then of row l/4 + 8. */
#define MULTIPLY(sums, a, b, rows, columns)                                         \
    {                                                                               \
        UNROLL for (int i_ = 0; i_ < (rows); i_++) {                                \
            UNROLL for (int j_ = 0; j_ < (columns); j_++) mma(sums[i_][j_], a[i_], b[j_]); \
        }                                                                           \
    }
#if PRECISION == 0
#define MMA "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#elif PRECISION == 1
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#else
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#endif
INLINE void mma(float (&c)[4], const uint4 &a, const uint2 &b) {
    asm volatile(MMA " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
}

/* The bitwise or over the four lanes of a quarter-warp row (equal l/4). */
#define OR_OF_FOUR(value)                                \
    {                                                    \
        value |= __shfl_xor_sync(0xffffffffu, value, 1); \
        value |= __shfl_xor_sync(0xffffffffu, value, 2); \
    }

#if PRECISION == 2
INLINE float half_value(uint bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((ushort)bits));
    return value;
}
#endif

/* The remainders of the same numbers after `word`, as a word. */
INLINE uint rest(float first, float second) {
    const uint whole = word(first, second);
#if PRECISION == 0
    return word(first - as_number(whole), 0);
#elif PRECISION == 1
    return word(first - as_number(whole << 16), second - as_number(whole & 0xffff0000u));
#else
    return word(first - half_value(whole & 0xffffu), second - half_value(whole >> 16));
#endif
}

/* fp16 holds 6e-8 to 65504, so numbers are multiplied by a power of two on the way into a word, which brings the largest
   magnitude of their array, `peak`, to 2^14 up to 2^15. The other types have float's range. */
#if PRECISION == 2
INLINE float fitting(float peak) {
    int exponent = (int)(as_bits(peak) >> 23 & 255u) - 127;
    exponent = exponent < -60 ? -60 : exponent > 60 ? 60 : exponent;
    return as_number((uint)(14 - exponent + 127) << 23);
}
#else
INLINE float fitting(float peak) { return 1; }
#endif

/* A magnitude as bits, whose order is that of the magnitudes, NaN above all. */
INLINE uint magnitude(float value) { return as_bits(value) & 0x7fffffffu; }
INLINE uint larger(uint a, uint b) { return a > b ? a : b; }

/* The largest value of a group of `threads`, a power of two, in its first work-item; `shared` has a place for each. */
INLINE uint group_largest(LOCAL_POINTER uint *shared, uint value, int threads) {
    BARRIER;
    shared[LOCAL_ID] = value;
    for (int reach = threads / 2; reach > 0; reach /= 2) {
        BARRIER;
        if (LOCAL_ID < reach) shared[LOCAL_ID] = larger(shared[LOCAL_ID], shared[LOCAL_ID + reach]);
    }
    return shared[LOCAL_ID];
}
