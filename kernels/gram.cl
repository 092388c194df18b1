/* The Gram matrix F Fᵀ of F: (channels, positions), in two stages of fixed order. */

#define SIDE 64      /* a tile of SIDE × SIDE entries */
#define DEPTH 32     /* positions per step */
#define THREADS 64   /* each holds 8 × 8 entries */
#define PITCH (SIDE + 1)

/* Stage 1: a group sums one tile over `span` positions. Only tiles on and above the diagonal are computed; they are
   numbered row by row. parts: (shares, tiles, SIDE, SIDE). */
KERNEL(THREADS) gram_parts(GLOBAL const float *RESTRICT f, GLOBAL float *RESTRICT parts, int channels, int positions,
                           int span) {
    LOCAL float left[DEPTH * PITCH];
    LOCAL float right[DEPTH * PITCH];
    const int id = LOCAL_ID, tx = id % 8, ty = id / 8;
    int across = (channels + SIDE - 1) / SIDE, row = 0, column = GROUP_ID(0);
    while (column >= across - row) {
        column -= across - row;
        row++;
    }
    column += row;
    const int first = GROUP_ID(1) * span, end = first + span < positions ? first + span : positions;
    float sums[8][8];
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) sums[i][j] = 0;
    for (int p = first; p < end; p += DEPTH) {
        const int at = p + id % DEPTH;
        BARRIER;
#pragma unroll 8
        for (int c = id / DEPTH; c < SIDE; c += THREADS / DEPTH) {
            const int a = row * SIDE + c, b = column * SIDE + c;
            left[id % DEPTH * PITCH + c] = a < channels && at < end ? f[a * positions + at] : 0;
            right[id % DEPTH * PITCH + c] = b < channels && at < end ? f[b * positions + at] : 0;
        }
        BARRIER;
#pragma unroll 4
        for (int k = 0; k < DEPTH; k++) {
            float a[8], b[8];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                a[i] = left[k * PITCH + i * 8 + ty];
                b[i] = right[k * PITCH + i * 8 + tx];
            }
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) sums[i][j] += a[i] * b[j];
        }
    }
    parts += (GROUP_ID(1) * GROUPS(0) + GROUP_ID(0)) * SIDE * SIDE;
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) parts[(i * 8 + ty) * SIDE + j * 8 + tx] = sums[i][j];
}

/* Stage 2: one entry per work-item, the sum of its parts times a factor; the lower half mirrors the upper. */
KERNEL(GROUP) gram_total(GLOBAL const float *RESTRICT parts, GLOBAL float *RESTRICT g, int channels, int shares,
                         int tiles, float factor) {
    const int i = ELEMENT;
    if (i >= channels * channels) return;
    int row = i / channels, column = i % channels;
    if (row > column) {
        const int other = row;
        row = column;
        column = other;
    }
    const int across = (channels + SIDE - 1) / SIDE, r = row / SIDE, c = column / SIDE;
    const int tile = r * across - r * (r - 1) / 2 + c - r;
    float total = 0;
    for (int s = 0; s < shares; s++) total += parts[((s * tiles + tile) * SIDE + row % SIDE) * SIDE + column % SIDE];
    g[i] = total * factor;
}
