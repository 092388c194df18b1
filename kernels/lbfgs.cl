/* L-BFGS on inner products; backends/base/optimizers.py describes the arrays. The row of the next pair
   is on the device alone, in ring[0]. */

/* y ← g − y in the newest row. */
KERNEL(GROUP) complete_pair(GLOBAL const float *RESTRICT g, GLOBAL float *RESTRICT changes,
                            GLOBAL const float *RESTRICT ring, int n) {
    const int i = ELEMENT;
    if (i >= n) return;
    GLOBAL float *y = changes + (size_t)ring[0] * n;
    y[i] = g[i] - y[i];
}

#define TOGETHER 4 /* rows that a group multiplies at once */

/* Products of rows of steps and changes with the newest y and with g, over `span` columns; parts: (shares, 2, rows, 2).
   Groups: (shares, rows / TOGETHER rounded up, 2). */
KERNEL(GROUP) products(GLOBAL const float *RESTRICT g, GLOBAL const float *RESTRICT steps,
                       GLOBAL const float *RESTRICT changes, GLOBAL const float *RESTRICT ring,
                       GLOBAL float *RESTRICT parts, int rows, int n, int span) {
    LOCAL float shared[GROUP];
    const int first = GROUP_ID(0) * span, end = n - first < span ? n : first + span, row = GROUP_ID(1) * TOGETHER;
    GLOBAL const float *y = changes + (size_t)ring[0] * n;
    GLOBAL const float *vectors = GROUP_ID(2) ? changes : steps;
    float with_y[TOGETHER], with_g[TOGETHER];
#pragma unroll
    for (int r = 0; r < TOGETHER; r++) with_y[r] = with_g[r] = 0;
    for (int i = first + LOCAL_ID; i < end; i += GROUP) {
        const float a = y[i], b = g[i];
#pragma unroll
        for (int r = 0; r < TOGETHER; r++)
            if (row + r < rows) {
                const float value = vectors[(size_t)(row + r) * n + i];
                with_y[r] += value * a;
                with_g[r] += value * b;
            }
    }
#pragma unroll
    for (int r = 0; r < TOGETHER; r++) {
        const float sum_y = group_sum(shared, with_y[r]), sum_g = group_sum(shared, with_g[r]);
        if (LOCAL_ID == 0 && row + r < rows) {
            GLOBAL float *to = parts + (((size_t)GROUP_ID(0) * 2 + GROUP_ID(2)) * rows + row + r) * 2;
            to[0] = sum_y;
            to[1] = sum_g;
        }
    }
}

#ifdef CAPACITY
/* Tables of few pairs are held in local memory: the recursion waits for each number. */
#define HELD (CAPACITY <= 48)

/* The two-loop recursion on products; one group. measured: (2, rows, 2), the sum of `parts` over `shares`. */
KERNEL(GROUP) coefficients(GLOBAL const float *parts, GLOBAL float *measured, GLOBAL float *table, GLOBAL float *ring,
                           GLOBAL float *out, int rows, int shares, float curvature, float rate) {
    LOCAL wide along[CAPACITY];
    LOCAL wide alpha[CAPACITY];
    const int id = LOCAL_ID;
    GLOBAL float *kept_sy = table, *kept_yy = table + CAPACITY * CAPACITY;
#if HELD
    LOCAL float sy[CAPACITY * CAPACITY];
    LOCAL float yy[CAPACITY * CAPACITY];
    for (int i = id; i < CAPACITY * CAPACITY; i += GROUP) {
        sy[i] = kept_sy[i];
        yy[i] = kept_yy[i];
    }
#else
    GLOBAL float *sy = kept_sy, *yy = kept_yy;
#endif
    for (int i = id; i < rows * 4; i += GROUP) {
        wide total = 0;
#pragma unroll 16
        for (int s = 0; s < shares; s++) total += parts[(size_t)s * rows * 4 + i];
        measured[i] = (float)total;
    }
    for (int i = id; i < 2 * CAPACITY + 1; i += GROUP) out[i] = 0;
    BARRIER;
    int slot = (int)ring[0], count = (int)ring[1];
    wide scale = ring[2];
    for (int i = id; i < rows; i += GROUP) {
        const float with_s = measured[i * 2], with_y = measured[(rows + i) * 2];
        kept_sy[i * CAPACITY + slot] = sy[i * CAPACITY + slot] = with_s;
        kept_yy[i * CAPACITY + slot] = yy[i * CAPACITY + slot] = with_y;
        kept_yy[slot * CAPACITY + i] = yy[slot * CAPACITY + i] = with_y;
    }
    BARRIER;
    if (sy[slot * CAPACITY + slot] > curvature) {
        scale = (wide)sy[slot * CAPACITY + slot] / yy[slot * CAPACITY + slot];
        slot = (slot + 1) % CAPACITY;
        count = count + 1 < CAPACITY ? count + 1 : CAPACITY - 1;
    }
    const int oldest = slot - count + CAPACITY;
#define PAIR(i) ((oldest + (i)) % CAPACITY)
    for (int i = id; i < count; i += GROUP) along[i] = -measured[PAIR(i) * 2 + 1]; /* s_i · q */
    BARRIER;
    for (int j = count - 1; j >= 0; j--) {
        const int newer = PAIR(j);
        const wide a = along[j] / sy[newer * CAPACITY + newer];
        if (id == 0) alpha[j] = a;
        for (int i = id; i < j; i += GROUP) along[i] -= a * sy[PAIR(i) * CAPACITY + newer];
        BARRIER;
    }
    for (int i = id; i < count; i += GROUP) { /* y_i · r */
        wide total = measured[(rows + PAIR(i)) * 2 + 1];
        for (int j = 0; j < count; j++) total += alpha[j] * yy[PAIR(j) * CAPACITY + PAIR(i)];
        along[i] = -scale * total;
    }
    BARRIER;
    for (int j = 0; j < count; j++) {
        const int older = PAIR(j);
        const wide s = alpha[j] - along[j] / sy[older * CAPACITY + older];
        for (int i = j + 1 + id; i < count; i += GROUP) along[i] += s * sy[older * CAPACITY + PAIR(i)];
        if (id == 0) {
            out[older] = (float)(rate * s);
            out[CAPACITY + older] = (float)(-rate * scale * alpha[j]);
        }
        BARRIER;
    }
    if (id == 0) {
        out[2 * CAPACITY] = (float)(-rate * scale);
        ring[0] = slot;
        ring[1] = count;
        ring[2] = (float)scale;
    }
}
#endif

/* Before there is a pair: −rate / max(least, value) for the gradient. */
KERNEL(GROUP) first_coefficients(GLOBAL float *out, FACTOR, float least, float rate, int n) {
    const int i = ELEMENT;
    if (i < n) out[i] = i < n - 1 ? 0 : -rate / fmaxf(least, FACTOR_VALUE);
}

/* s, the combination of the rows and g, and g go to the ring's next row; in `total` s · s, of which each group sums `span`
   columns (reduction.h). A row with a coefficient of zero may hold anything. */
KERNEL(GROUP) combine(GLOBAL const float *RESTRICT g, GLOBAL float *steps, GLOBAL float *changes,
                      GLOBAL const float *RESTRICT coefficients, GLOBAL const float *RESTRICT ring,
                      GLOBAL float *parts, GLOBAL float *total, GLOBAL uint *counter, int capacity, int rows, int n,
                      int span) {
    LOCAL float shared[GROUP];
    const int first = GROUP_ID(0) * span, end = n - first < span ? n : first + span;
    const size_t newest = (size_t)ring[0] * n;
    float squares = 0;
    for (int i = first + LOCAL_ID; i < end; i += GROUP) {
        const float gradient = g[i];
        float step = coefficients[2 * capacity] * gradient;
#pragma unroll 8
        for (int r = 0; r < rows; r++) {
            const float of_step = coefficients[r], of_change = coefficients[capacity + r];
            if (of_step != 0) step += of_step * steps[(size_t)r * n + i];
            if (of_change != 0) step += of_change * changes[(size_t)r * n + i];
        }
        steps[newest + i] = step;
        changes[newest + i] = gradient;
        squares += step * step;
    }
    OVER_GROUP(shared, squares, GROUP, PLUS)
    FINISH(parts, total, counter, shared, PLUS)
}

/* x ← x + s, or s where nothing `adds`, for the s that `combine` left, shortened to a norm of `longest`; squares: s · s. */
KERNEL(GROUP) advance(GLOBAL float *RESTRICT x, int adds, GLOBAL float *RESTRICT steps,
                      GLOBAL const float *RESTRICT ring, GLOBAL const float *RESTRICT squares, float longest, int n) {
    const int i = ELEMENT;
    if (i >= n) return;
    const size_t at = (size_t)ring[0] * n + i;
    const float norm = sqrtf(squares[0]);
    float step = steps[at];
    if (norm > longest) {
        step *= longest / norm;
        steps[at] = step;
    }
    x[i] = adds ? x[i] + step : step;
}
