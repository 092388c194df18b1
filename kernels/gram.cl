/* The Gram matrix F Fᵀ of F: (channels, positions), a tile of SIDE × SIDE entries at a time (gram.h). */

#define DEPTH 32     /* positions per step */
#define THREADS 64   /* each holds 8 × 8 entries */
#define PITCH (SIDE + 1)

/* A group sums one tile over `span` positions; the last groups to come do the rest (finish_gram). */
KERNEL(THREADS) gram_parts(GLOBAL const float *RESTRICT f, int channels, int positions, int span, GRAM_END) {
    LOCAL float left[DEPTH * PITCH];
    LOCAL float right[DEPTH * PITCH];
    const int id = LOCAL_ID, tx = id % 8, ty = id / 8;
    TILE_OF(row, column, GROUP_ID(0), (channels + SIDE - 1) / SIDE)
    const int first = GROUP_ID(1) * span, end = first + span < positions ? first + span : positions;
    float found[8][8];
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) found[i][j] = 0;
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
                for (int j = 0; j < 8; j++) found[i][j] += a[i] * b[j];
        }
    }
    GLOBAL float *part = parts + (GROUP_ID(1) * GROUPS(0) + GROUP_ID(0)) * SIDE * SIDE;
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) part[(i * 8 + ty) * SIDE + j * 8 + tx] = found[i][j];
#ifdef __CUDACC__
    finish_gram<THREADS>(g, target, parts, sums, squares, largest, counters, members, factor, compares, row, column,
                         channels, left);
#endif
}

#ifndef __CUDACC__
/* The same in a second launch, one entry per work-item; the lower half mirrors the upper. */
KERNEL(GROUP) gram_total(GLOBAL const float *RESTRICT parts, GLOBAL float *RESTRICT g, int channels, int shares,
                         int members, float factor) {
    const int i = ELEMENT, across = (channels + SIDE - 1) / SIDE, tiles = across * (across + 1) / 2;
    if (i >= channels * channels) return;
    int row = i / channels, column = i % channels;
    if (row > column) {
        const int other = row;
        row = column;
        column = other;
    }
    const int r = row / SIDE, c = column / SIDE, tile = r * across - r * (r - 1) / 2 + c - r;
    parts += (tile * SIDE + row % SIDE) * SIDE + column % SIDE;
    float total = 0;
    for (int first = 0; first < shares; first += members) {
        float sum = 0;
        for (int s = first; s < shares && s < first + members; s++) sum += parts[s * tiles * SIDE * SIDE];
        total += sum;
    }
    g[i] = total * factor;
}
#endif
