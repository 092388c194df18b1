/* Each group reduces `span` elements to one number, and these are joined (reduction.h). */

#define STAGE(name, initial, value, join)                                                                         \
    KERNEL(GROUP) name(GLOBAL const float *x, GLOBAL const float *y, GLOBAL float *parts, GLOBAL float *out,      \
                       GLOBAL uint *counter, int n, int span) {                                                   \
        LOCAL float shared[GROUP];                                                                                \
        int first = GROUP_ID(0) * span, end = n - first < span ? n : first + span;                                \
        float found = initial;                                                                                    \
        for (int i = first + LOCAL_ID; i < end; i += GROUP) found = join(found, value);                           \
        OVER_GROUP(shared, found, GROUP, join)                                                                    \
        FINISH(parts, out, counter, shared, join)                                                                 \
    }

STAGE(sum_of_products, 0, x[i] * y[i], PLUS)
STAGE(sum_of_magnitudes, 0, fabsf(x[i]), PLUS)
STAGE(largest_magnitude, 0, fabsf(x[i]), LARGER)

/* The second launch where none of the groups comes last; one group. */
KERNEL(GROUP) total(GLOBAL const float *parts, GLOBAL float *out, int count) {
    LOCAL float shared[GROUP];
    OVER_GROUPS(parts, out, shared, count, GROUP, 0, PLUS)
}

KERNEL(GROUP) largest(GLOBAL const float *parts, GLOBAL float *out, int count) {
    LOCAL float shared[GROUP];
    OVER_GROUPS(parts, out, shared, count, GROUP, 0, LARGER)
}

#define AT_ONCE 8 /* elements that a work-item reads before it writes any */

/* y ← y + factor · (x − target); in `squares` the sum of (x − target)², in `largest` the largest magnitude of y (where a
   group comes last). parts: two for each group. */
KERNEL(GROUP) add_difference(GLOBAL float *RESTRICT y, FACTOR, GLOBAL const float *RESTRICT x,
                             GLOBAL const float *RESTRICT target, GLOBAL float *parts, GLOBAL float *squares,
                             GLOBAL float *largest, GLOBAL uint *counter, int n, int span) {
    LOCAL float shared[GROUP];
    const int first = GROUP_ID(0) * span, end = n - first < span ? n : first + span;
    const float factor = FACTOR_VALUE;
    float total = 0, top = 0, differences[AT_ONCE], sums[AT_ONCE];
    for (int at = first + LOCAL_ID; at < end; at += AT_ONCE * GROUP) {
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const int i = at + k * GROUP;
            if (i < end) {
                differences[k] = x[i] - target[i];
                sums[k] = y[i] + factor * differences[k];
            }
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const int i = at + k * GROUP;
            if (i < end) {
                const float size = fabsf(sums[k]);
                y[i] = sums[k];
                total += differences[k] * differences[k];
                top = LARGER(top, size);
            }
        }
    }
    OVER_GROUP(shared, total, GROUP, PLUS)
    LEAVE(parts, squares, shared, GROUP_ID(0), GROUPS(0))
    OVER_GROUP(shared, top, GROUP, LARGER)
    LEAVE(parts + GROUPS(0), largest, shared, GROUP_ID(0), GROUPS(0))
    if (COMES_LAST(counter, shared) && GROUPS(0) > 1) {
        OVER_GROUPS(parts, squares, shared, GROUPS(0), GROUP, 0, PLUS)
        OVER_GROUPS(parts + GROUPS(0), largest, shared, GROUPS(0), GROUP, 0, LARGER)
    }
}

KERNEL(1) add_factors(GLOBAL const float *u, float ua, float ub, float uc, float ud, FACTOR, GLOBAL float *out) {
    out[0] = quotient(u[0], ua, ub, uc, ud) + FACTOR_VALUE;
}

/* Sums over an inner block of `count` positions, extents (.., m1, m2, m3) with the strides s0 to s3, for each of n outputs,
   extents (.., k1, k2, k3) with the strides t0 to t3. Partial sums are of few numbers, so that little is rounded away. */

#define BLOCKS int n, int k1, int k2, int k3, int t0, int t1, int t2, int t3, int count, int m1, int m2, int m3, int s0, \
               int s1, int s2, int s3
#define FIRST_OF(o) (x + place_of(o, n, k1, k2, k3, t0, t1, t2, t3))
#define NUMBER(i) from[place_of(i, count, m1, m2, m3, s0, s1, s2, s3)]

/* A group for each output and each `span` positions: out (outputs, spans). */
KERNEL(GROUP) sum_over(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT out, int span, BLOCKS) {
    LOCAL float shared[GROUP];
    const int first = GROUP_ID(1) * span, end = count - first < span ? count : first + span;
    GLOBAL const float *from = FIRST_OF(GROUP_ID(0));
    float total = 0;
    for (int i = first + LOCAL_ID; i < end; i += GROUP) total += NUMBER(i);
    total = group_sum(shared, total);
    if (LOCAL_ID == 0) out[GROUP_ID(0) * GROUPS(1) + GROUP_ID(1)] = total;
}

#define TOGETHER 16 /* numbers of a partial sum */

/* A work-item for each output, where these are many or a block is small. */
KERNEL(GROUP) sum_over_alone(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT out, BLOCKS) {
    int o = ELEMENT;
    if (o >= n) return;
    GLOBAL const float *from = FIRST_OF(o);
    float total = 0;
    for (int first = 0; first < count; first += TOGETHER) {
        const int end = count - first < TOGETHER ? count : first + TOGETHER;
        float part = 0;
        for (int i = first; i < end; i++) part += NUMBER(i);
        total += part;
    }
    out[o] = total;
}
