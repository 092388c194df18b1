/* Common to convolution.cl and winograd.cl. */

/* The bit of a position in the mask of winograd.cl: 16 bits for each 4×4 block, `across` blocks to a row. */
#define BLOCK_BIT(blocks, across, y, x) \
    ((blocks)[((y) >> 2) * (across) + ((x) >> 2)] >> (((y) & 3) << 2 | ((x) & 3)) & 1)

#ifdef BM
/* The inner loop of a matrix product: a group computes a block of BM × BN, each work-item TM × TN of it in registers,
   from BK rows of both operands in local memory. The work-item (ty, tx) has rows ty · 4 .. + 3 of each BM / (TM / 4)
   outputs, columns likewise: neighbours read neighbouring quads. */

#define THREADS ((BM / TM) * (BN / TN))
#define QUADS ((BK * BM / 4 + THREADS - 1) / THREADS) /* quads of w that a work-item fetches */

/* In groups of 64 each work-item fetches more and needs more registers. */
#define RESIDENT (THREADS == 64 ? 384 : 512)

/* The row or column of a work-item's i-th one. */
#define ROW_OF(i, ty) ((i) / 4 * (BM * 4 / TM) + (ty) * 4 + (i) % 4)
#define COLUMN_OF(j, tx) ((j) / 4 * (BN * 4 / TN) + (tx) * 4 + (j) % 4)

/* sums += wᵀ x for w: (BK, BM), x: (BK, BN) */
INLINE void multiply(LOCAL_POINTER const float *w, LOCAL_POINTER const float *x, float sums[TM][TN], int ty, int tx) {
#pragma unroll 2 /* more of it needs more registers than two groups per multiprocessor leave (sm_90) */
    for (int k = 0; k < BK; k++) {
        float a[TM], b[TN];
#pragma unroll
        for (int i = 0; i < TM; i += 4) SPREAD(a, i, *(LOCAL_POINTER const float4 *)&w[k * BM + ROW_OF(i, ty)])
#pragma unroll
        for (int j = 0; j < TN; j += 4) SPREAD(b, j, *(LOCAL_POINTER const float4 *)&x[k * BN + COLUMN_OF(j, tx)])
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) sums[i][j] += a[i] * b[j];
    }
}

/* float sums[TM][TN]: the product of `steps` chunks of w and x, which have two buffers in local memory. FETCH loads the
   next chunk into registers while one is multiplied, and STORE(buffer) stores it in local memory. */
#define ACCUMULATE(sums, steps, w, x, ty, tx)                                                        \
    float sums[TM][TN];                                                                              \
    _Pragma("unroll") for (int i_ = 0; i_ < TM; i_++)                                                \
        _Pragma("unroll") for (int j_ = 0; j_ < TN; j_++) sums[i_][j_] = 0;                          \
    {                                                                                                \
        int buffer_ = 0;                                                                             \
        if ((steps) > 0) {                                                                           \
            FETCH                                                                                    \
            STORE(0)                                                                                 \
        }                                                                                            \
        BARRIER;                                                                                     \
        for (int step_ = 1; step_ <= (steps); step_++) {                                             \
            if (step_ < (steps)) FETCH                                                               \
            multiply(&w[buffer_][0][0], &x[buffer_][0][0], sums, ty, tx);                            \
            if (step_ < (steps)) STORE(buffer_ ^ 1)                                                  \
            BARRIER;                                                                                 \
            buffer_ ^= 1;                                                                            \
        }                                                                                            \
    }
#endif
