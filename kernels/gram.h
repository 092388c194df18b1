/* The end of the Gram matrix F Fᵀ, common to gram.cl and cuda/gram.cu: from parts of its tiles, which are numbered row by
   row on and above the diagonal, to the matrix. parts: (shares + sets, tiles, SIDE, SIDE), of which each share of the
   positions leaves one; a launch has (tiles, shares) groups. The order of sums is fixed: first within a set
   of `members` neighbouring shares, then over the sets, which leave their sums behind the shares. */

/* The last arguments of gram_parts. With `compares`, g is the matrix less the target, `squares` the sum of the squares and
   `largest` the largest magnitude of the difference, from two numbers for each tile in `sums`. */
#define GRAM_END                                                                                                     \
    GLOBAL float *RESTRICT g, GLOBAL const float *RESTRICT target, GLOBAL float *parts, GLOBAL float *sums,          \
        GLOBAL float *squares, GLOBAL float *largest, GLOBAL uint *counters, int members, float factor, int compares

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
INLINE void add_tiles(float4 (&totals)[quads], const float *from, int count, int stride) {
#pragma unroll
    for (int q = 0; q < quads; q++) totals[q] = together(0, 0, 0, 0);
#pragma unroll (quads > 8 ? 1 : 2) /* 8 to 16 reads under way in each work-item */
    for (int s = 0; s < count; s++) {
#pragma unroll
        for (int q = 0; q < quads; q++) {
            const float4 more = FRESH((const float4 *)(from + s * stride) + q * threads + LOCAL_ID);
            totals[q].x += more.x;
            totals[q].y += more.y;
            totals[q].z += more.z;
            totals[q].w += more.w;
        }
    }
}

/* After a group of `threads` wrote its part: the last group of a set adds the set, the last of these the tile, the last of
   all the numbers in `sums`. counters: one for each set of each tile, one for each tile, and one. shared: `threads` numbers
   that are not in use. */
template <int threads>
INLINE void finish_gram(GRAM_END, int row, int column, int channels, float *shared) {
    const int tiles = GROUPS(0), tile = GROUP_ID(0), shares = GROUPS(1), sets = (shares + members - 1) / members;
    const int set = GROUP_ID(1) / members, first = set * members, size = SIDE * SIDE, stride = tiles * size;
    const int own = shares - first < members ? shares - first : members, quads = SIDE * SIDE / 4 / threads;
    uint *place = (uint *)shared;
    float4 totals[quads];
    parts += tile * size;
    if (!comes_last(counters + tile * sets + set, own, place)) return;
    add_tiles<threads>(totals, parts + first * stride, own, stride);
    if (sets > 1) {
#pragma unroll
        for (int q = 0; q < quads; q++)
            ((float4 *)(parts + (shares + set) * stride))[q * threads + LOCAL_ID] = totals[q];
        if (!comes_last(counters + tiles * sets + tile, sets, place)) return;
        add_tiles<threads>(totals, parts + shares * stride, sets, stride);
    }
    float total = 0, top = 0;
#pragma unroll
    for (int q = 0; q < quads; q++) {
        const int at = (q * threads + LOCAL_ID) * 4, r = row * SIDE + at / SIDE, c = column * SIDE + at % SIDE;
        const float of_quad[4] = {totals[q].x, totals[q].y, totals[q].z, totals[q].w};
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (r <= c + k && c + k < channels) {
                const int to = r * channels + c + k;
                float value = __fmul_rn(of_quad[k], factor); /* rounded, with a target and without */
                if (compares) value -= target[to];
                const float square = value * value, magnitude = fabsf(value);
                g[to] = g[(c + k) * channels + r] = value;
                total += r < c + k ? 2 * square : square;
                top = LARGER(top, magnitude);
            }
    }
    if (!compares) return;
    OVER_GROUP(shared, total, threads, PLUS)
    LEAVE(sums, squares, shared, tile, tiles)
    OVER_GROUP(shared, top, threads, LARGER)
    LEAVE(sums + tiles, largest, shared, tile, tiles)
    if (comes_last(counters + tiles * (sets + 1), tiles, place) && tiles > 1) {
        OVER_GROUPS(sums, squares, shared, tiles, threads, 0, PLUS)
        OVER_GROUPS(sums + tiles, largest, shared, tiles, threads, 0, LARGER)
    }
}
#endif
