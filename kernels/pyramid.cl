/* Maps (planes, h, w) at half and at twice the size; see Backend.halve and add_doubled in backends/numpy.py. One element
   per work-item. */

/* What position 2i − 1 + k of a length of n is multiplied by for position i of half the length. */
INLINE float share(int k, int position, int n) {
    if (position >= n && n % 2) return 0;
    return k == 0 || k == 3 ? 0.125f : 0.375f;
}

#define WITHIN(position, n) ((position) < 0 ? 0 : (position) < (n) ? (position) : (n) - 1)

/* small ← x; count: elements of small. */
KERNEL(GROUP) halve(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT small, int h, int w, int count) {
    const int id = ELEMENT, columns = (w + 1) / 2, rows = (h + 1) / 2;
    if (id >= count) return;
    const int column = id % columns, row = id / columns % rows;
    GLOBAL const float *plane = x + (size_t)(id / columns / rows) * h * w;
    float total = 0;
#pragma unroll
    for (int ky = 0; ky < 4; ky++) {
        const int y = 2 * row - 1 + ky;
        GLOBAL const float *line = plane + WITHIN(y, h) * w;
        float sum = 0;
#pragma unroll
        for (int kx = 0; kx < 4; kx++) {
            const int position = 2 * column - 1 + kx;
            sum += share(kx, position, w) * line[WITHIN(position, w)];
        }
        total += share(ky, y, h) * sum;
    }
    small[id] = total;
}

/* x ← factor · x + small at twice the size; count: elements of x. */
KERNEL(GROUP) add_doubled(GLOBAL float *RESTRICT x, float factor, GLOBAL const float *RESTRICT small, int h, int w,
                          int count) {
    const int id = ELEMENT, columns = (w + 1) / 2, rows = (h + 1) / 2;
    if (id >= count) return;
    const int column = id % w, row = id / w % h, i = row / 2, j = column / 2;
    GLOBAL const float *plane = small + (size_t)(id / w / h) * rows * columns;
    const int beside = WITHIN(column % 2 ? j + 1 : j - 1, columns), over = WITHIN(row % 2 ? i + 1 : i - 1, rows);
    const float near = 0.75f * plane[i * columns + j] + 0.25f * plane[i * columns + beside];
    const float far = 0.75f * plane[over * columns + j] + 0.25f * plane[over * columns + beside];
    x[id] = factor * x[id] + (0.75f * near + 0.25f * far);
}
