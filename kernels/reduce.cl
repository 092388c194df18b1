/* Reductions in two stages of fixed order, so that the same numbers give the same bytes each time. */

/* Stage 1: each group reduces `span` elements to one. */
#define STAGE(name, initial, value, join)                                                        \
    KERNEL(GROUP) name(GLOBAL const float *x, GLOBAL const float *y, GLOBAL float *parts, int n, int span) { \
        LOCAL float shared[GROUP];                                                               \
        int first = GROUP_ID(0) * span, end = n - first < span ? n : first + span;               \
        float total = initial;                                                                   \
        for (int i = first + LOCAL_ID; i < end; i += GROUP) total = join(total, value);          \
        shared[LOCAL_ID] = total;                                                                \
        for (int reach = GROUP / 2; reach > 0; reach /= 2) {                                        \
            BARRIER;                                                                             \
            if (LOCAL_ID < reach) shared[LOCAL_ID] = join(shared[LOCAL_ID], shared[LOCAL_ID + reach]); \
        }                                                                                        \
        if (LOCAL_ID == 0) parts[GROUP_ID(0)] = shared[0];                                       \
    }

#define PLUS(a, b) ((a) + (b))

STAGE(sum_of_products, 0, x[i] * y[i], PLUS)
STAGE(sum_of_magnitudes, 0, fabsf(x[i]), PLUS)
STAGE(largest_magnitude, 0, fabsf(x[i]), LARGER)
/* Stage 2, run as one group. */
STAGE(total, 0, x[i], PLUS)
STAGE(largest, 0, x[i], LARGER)

KERNEL(1) add_factors(GLOBAL const float *u, float ua, float ub, float uc, float ud, FACTOR, GLOBAL float *out) {
    out[0] = quotient(u[0], ua, ub, uc, ud) + FACTOR_VALUE;
}

/* One group per output: the sum over an inner block of (m0, m1, m2, m3) positions with their strides. */
KERNEL(GROUP) sum_over(GLOBAL const float *x, GLOBAL float *out, int k1, int k2, int k3, int t0, int t1, int t2, int t3,
                       int count, int m1, int m2, int m3, int s0, int s1, int s2, int s3) {
    LOCAL float shared[GROUP];
    int o = GROUP_ID(0);
    int base = o / k3 / k2 / k1 * t0 + o / k3 / k2 % k1 * t1 + o / k3 % k2 * t2 + o % k3 * t3;
    float total = 0;
    for (int i = LOCAL_ID; i < count; i += GROUP)
        total += x[base + i / m3 / m2 / m1 * s0 + i / m3 / m2 % m1 * s1 + i / m3 % m2 * s2 + i % m3 * s3];
    total = group_sum(shared, total);
    if (LOCAL_ID == 0) out[o] = total;
}
