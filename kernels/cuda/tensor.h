/* Tensor cores (PTX ISA, mma.sync of sm_80) behind a few primitives. On OpenCL the same names are an exact emulation: a
   warp is 32 consecutive work-items, lanes leave their registers in local memory in the documented places, and
   asynchronous copies arrive when they are waited for and not before. So one source runs on a GPU and, slowly, in a test.

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

#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#define COOPERATE UNROLL /* on a loop in whose body lanes exchange data */
#define UNROLL_EVERYWHERE UNROLL
#define ANEW(number) asm volatile("" : "+r"(number)) /* what was computed from it is not known any more */
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
#define ASYNC_STATE(copies, stages)
#define ASYNC_COPY(index, to, from, valid)                                                                            \
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint)__cvta_generic_to_shared(to)), "l"(from), \
                 "r"((valid) ? 16 : 0)                                                                                 \
                 : "memory")
#define ASYNC_COMMIT asm volatile("cp.async.commit_group;" ::: "memory")
#define ASYNC_WAIT(pending) asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory")

/* sums[i][j] += a[i] · b[j] for i < rows, j < columns. Lane l holds a: rows l/4 and l/4 + 8 of words l%4, then of words
   l%4 + 4; b: words l%4 and l%4 + 4 of column l/4; sums: columns 2(l%4) and 2(l%4) + 1 of row l/4, then of row l/4 + 8. */
#define FRAGMENTS(rows, columns, warps)
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

#else
#define UNROLL
#define COOPERATE
/* PoCL 3.0 vectorises some loops wrongly whose private arrays live across a barrier. */
#define UNROLL_EVERYWHERE _Pragma("unroll")
#define ANEW(number) (void)number
#define NO_UNROLL
#define IN_ORDER

INLINE float as_number(uint bits) { return as_float(bits); }
INLINE uint as_bits(float number) { return as_uint(number); }

#if PRECISION == 2
/* PoCL 3.0 has no half. */
INLINE uint half_bits(float number) {
    const uint bits = as_uint(number), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return 0x7fffu;
    if (size >= 0x477ff000u) return sign | 0x7c00u;                                     /* 65520 and above: infinity */
    if (size < 0x38800000u) return sign | as_uint(as_float(size) + 0.5f) - 0x3f000000u; /* steps of 2^-24 */
    return sign | (size + 0x0fffu + (size >> 13 & 1u)) - 0x38000000u >> 13;
}

INLINE float half_value(uint bits) {
    const uint size = bits & 0x7fffu;
    const float value = size >= 0x7c00u ? as_float(0x7f800000u | size << 13) : as_float(size << 13) * 0x1p112f;
    return bits & 0x8000u ? -value : value;
}
#endif

/* To the nearest, ties away from zero for tf32 and to even for the others, as the instructions do. */
INLINE uint word(float first, float second) {
#if PRECISION == 0
    const uint bits = as_uint(first);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
#elif PRECISION == 1
    uint halves[2] = {as_uint(first), as_uint(second)};
    for (int i = 0; i < 2; i++) {
        const uint bits = halves[i];
        halves[i] = bits + ((bits & 0x7f800000u) == 0x7f800000u ? 0 : 0x7fffu + (bits >> 16 & 1u)) >> 16;
        if ((bits & 0x7fffffffu) > 0x7f800000u) halves[i] |= 0x7fffu;
    }
    return halves[0] | halves[1] << 16;
#else
    return half_bits(first) | half_bits(second) << 16;
#endif
}

INLINE float product_of_words(uint a, uint b, float sum) {
#if PRECISION == 0
    return fma(as_float(a), as_float(b), sum);
#elif PRECISION == 1
    sum = fma(as_float(a << 16), as_float(b << 16), sum);
    return fma(as_float(a & 0xffff0000u), as_float(b & 0xffff0000u), sum);
#else
    sum = fma(half_value(a & 0xffffu), half_value(b & 0xffffu), sum);
    return fma(half_value(a >> 16), half_value(b >> 16), sum);
#endif
}

#define ASYNC_STATE(copies, stages)                      \
    uint4 async_value[stages][copies];                   \
    __local uint4 *async_to[stages][copies];             \
    int async_group = 0, async_done = 0;                 \
    const int async_copies = copies, async_stages = stages; \
    for (int s_ = 0; s_ < stages; s_++)                  \
        for (int i_ = 0; i_ < copies; i_++) async_to[s_][i_] = 0;
#define ASYNC_COPY(index, to, from, valid)                          \
    {                                                               \
        async_value[async_group % async_stages][index] = (valid) ? *(from) : (uint4)(0); \
        async_to[async_group % async_stages][index] = to;           \
    }
#define ASYNC_COMMIT async_group++
#define ASYNC_WAIT(pending)                                          \
    for (; async_done < async_group - (pending); async_done++)       \
        for (int i_ = 0; i_ < async_copies; i_++) {                  \
            __local uint4 *to_ = async_to[async_done % async_stages][i_]; \
            if (to_) *to_ = async_value[async_done % async_stages][i_]; \
            async_to[async_done % async_stages][i_] = 0;             \
        }

#define FRAGMENTS(rows, columns, warps)        \
    __local uint4 fragments_a[warps][rows][32]; \
    __local uint2 fragments_b[warps][columns][32]; \
    __local uint exchanged[warps][32];
#define MULTIPLY(sums, a, b, rows, columns)                                                                         \
    {                                                                                                               \
        for (int i_ = 0; i_ < (rows); i_++) fragments_a[WARP][i_][LANE] = a[i_];                                    \
        for (int j_ = 0; j_ < (columns); j_++) fragments_b[WARP][j_][LANE] = b[j_];                                 \
        BARRIER;                                                                                                    \
        for (int i_ = 0; i_ < (rows); i_++)                                                                         \
            for (int j_ = 0; j_ < (columns); j_++)                                                                  \
                mma(sums[i_][j_], fragments_a[WARP][i_], fragments_b[WARP][j_]);                                    \
        BARRIER;                                                                                                    \
    }
INLINE void mma(float *c, __local const uint4 *a, __local const uint2 *b) {
    for (int r = 0; r < 4; r++) {
        const int row = LANE / 4 + r / 2 * 8, column = LANE % 4 * 2 + r % 2;
        for (int k = 0; k < 8; k++) {
            const uint4 from_a = a[row % 8 * 4 + k % 4];
            const uint2 from_b = b[column * 4 + k % 4];
            const uint left = k < 4 ? (row < 8 ? from_a.x : from_a.y) : row < 8 ? from_a.z : from_a.w;
            c[r] = product_of_words(left, k < 4 ? from_b.x : from_b.y, c[r]);
        }
    }
}
#define OR_OF_FOUR(value)                                                                                      \
    {                                                                                                          \
        exchanged[WARP][LANE] = value;                                                                         \
        BARRIER;                                                                                               \
        const int first_ = LANE & ~3;                                                                          \
        value = exchanged[WARP][first_] | exchanged[WARP][first_ + 1] | exchanged[WARP][first_ + 2] |           \
                exchanged[WARP][first_ + 3];                                                                   \
        BARRIER;                                                                                               \
    }
#endif

/* What `word` of the same numbers leaves out, as a word. */
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

/* fp16 holds 6e-8 to 65504, so numbers are multiplied by a power of two on the way into a word: the one that brings the
   largest magnitude of their array, `peak`, to 2^14 up to 2^15. The other types have float's range. */
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
