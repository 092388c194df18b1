/* What the sources of convolutions share. */

INLINE float rectified(float value) { return value < 0 ? 0 : value; } /* NaN stays */

/* Whether a candidate takes the place of the largest so far; NaN does, and stays. */
#define BEATS(candidate, best) ((candidate) > (best) || (candidate) != (candidate))

#ifdef BM
/* The inner loop of a matrix product: a group computes a tile of BM × BN, each work-item TM × TN of it in registers,
   from BK rows of both operands in local memory. The work-item (ty, tx) has rows ty · 4 .. + 3 of each BM / (TM / 4)
   outputs, columns likewise: neighbours read neighbouring quads. */

#define THREADS ((BM / TM) * (BN / TN))
#define QUADS ((BK * BM / 4 + THREADS - 1) / THREADS) /* of w that a work-item fetches */

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
        for (int i = 0; i < TM; i += 4) {
            const float4 quad = *(LOCAL_POINTER const float4 *)&w[k * BM + ROW_OF(i, ty)];
            a[i] = quad.x;
            a[i + 1] = quad.y;
            a[i + 2] = quad.z;
            a[i + 3] = quad.w;
        }
#pragma unroll
        for (int j = 0; j < TN; j += 4) {
            const float4 quad = *(LOCAL_POINTER const float4 *)&x[k * BN + COLUMN_OF(j, tx)];
            b[j] = quad.x;
            b[j + 1] = quad.y;
            b[j + 2] = quad.z;
            b[j + 3] = quad.w;
        }
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) sums[i][j] += a[i] * b[j];
    }
}
#endif
