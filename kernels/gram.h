/* The end of the Gram matrix F Fᵀ, common to gram.cl and cuda/gram.cu: from parts of its tiles, which are numbered row by
   row on and above the diagonal, to the matrix. parts: (shares + sets, tiles, SIDE, SIDE), of which each share of the
   positions leaves one; a launch has (tiles, shares) groups. The order of sums is fixed: those of a set, `members`
   neighbouring shares, and then those of the sets, which leave them behind the shares. */

#define SIDE 64

#define TILE_OF(row, column, tile, across)                          \
    int row = 0, column = tile;                                     \
    while (column >= (across)-row) {                                \
        column -= (across)-row;                                     \
        row++;                                                      \
    }                                                               \
    column += row;

#ifdef __CUDACC__
/* The sum of `count` tiles that are `stride` floats apart; each of `threads` work-items has some quads. */
template <int threads, int quads>
INLINE void add_tiles(float4 (&sums)[quads], const float *from, int count, int stride) {
#pragma unroll
    for (int q = 0; q < quads; q++) sums[q] = together(0, 0, 0, 0);
#pragma unroll 2
    for (int s = 0; s < count; s++) {
#pragma unroll
        for (int q = 0; q < quads; q++) {
            const float4 more = FRESH((const float4 *)(from + s * stride) + q * threads + LOCAL_ID);
            sums[q].x += more.x;
            sums[q].y += more.y;
            sums[q].z += more.z;
            sums[q].w += more.w;
        }
    }
}

/* After all of a group of `threads` wrote their part: the last group of a set adds the set, the last of these the tile.
   counters: one for each set of each tile, and one for each tile. place: see comes_last. */
template <int threads>
INLINE void finish_gram(float *parts, float *RESTRICT g, uint *counters, uint *place, int row, int column, int channels,
                        int members, float factor) {
    const int tiles = GROUPS(0), tile = GROUP_ID(0), shares = GROUPS(1), sets = (shares + members - 1) / members;
    const int set = GROUP_ID(1) / members, first = set * members, size = SIDE * SIDE, stride = tiles * size;
    const int own = shares - first < members ? shares - first : members, quads = SIDE * SIDE / 4 / threads;
    float4 sums[quads];
    parts += tile * size;
    if (!comes_last(counters + tile * sets + set, own, place)) return;
    add_tiles<threads>(sums, parts + first * stride, own, stride);
    if (sets > 1) {
#pragma unroll
        for (int q = 0; q < quads; q++)
            ((float4 *)(parts + (shares + set) * stride))[q * threads + LOCAL_ID] = sums[q];
        if (!comes_last(counters + tiles * sets + tile, sets, place)) return;
        add_tiles<threads>(sums, parts + shares * stride, sets, stride);
    }
#pragma unroll
    for (int q = 0; q < quads; q++) {
        const int at = (q * threads + LOCAL_ID) * 4, r = row * SIDE + at / SIDE, c = column * SIDE + at % SIDE;
        const float of_quad[4] = {sums[q].x, sums[q].y, sums[q].z, sums[q].w};
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (r <= c + k && c + k < channels) g[r * channels + c + k] = g[(c + k) * channels + r] = of_quad[k] * factor;
    }
}
#endif
