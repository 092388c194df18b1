/* 3×3 convolution of stride 1 by Winograd's F(4×4, 3×3) (Lavin and Gray 2016): a tile of 4×4 outputs comes from 6×6
   inputs, transformed to 36 numbers ("frequencies"); the frequencies of all channels are multiplied by 36 matrices of
   transformed filters, and the 36 sums transformed to the tile's outputs: 2.25 products per output and channel instead of
   9. Three kernels, for each batch of tiles:

   winograd_input     v[frequency, channel, tile] from x
   winograd_product   m[split, frequency, output, tile] = Σ_channel u[frequency, channel, output] · v
   winograd_output    y from m, with bias, ReLU and pool

   The gradient for the input is the same convolution with filters rotated by 180°. A tile that is read and written
   rotated by 180° as well needs no other transformed filters (adjoint = 1), only their matrices transposed.

   -D NEAR, FAR            the transforms interpolate at 0, ±NEAR, ±FAR and ∞
   -D BM, BN, BK, TM, TN   the product's block
   -D TRANSPOSED           1: u is [frequency, output, channel]
   -D PROLOGUE             see portable.h
   epilogue: see portable.h, but RELU_BITS stores 16 bits for each tile, row by row, the lowest first

   Tiles start shift_y and shift_x before the outputs (even numbers with a pool, 0 with adjoint; the pads of the input
   include them), and the tiles of a mask mask_y and mask_x before x. `batch`, a multiple of four, is the number of tiles
   for which v and m have room, of which `count`, from `first` on, are computed. Rows and columns of u are rounded up to
   multiples of eight, with zeros. v and m are parts of one array, since the pool wastes less on one block than on two. */

#define SIDE 6 /* of a tile's inputs */
#define FREQUENCIES (SIDE * SIDE)

/* Arguments of a batch and of the map of tiles, as the host lays them out. */
#define BATCH int first, int count, int batch, int across, int adjoint

#ifdef PROLOGUE
/* Row i of the transform is the polynomial that is zero at all finite points but the i-th; the last one's at all. */
INLINE void transform_input(const float d[SIDE], float t[SIDE]) {
    const float squares = NEAR * NEAR + FAR * FAR, product = NEAR * NEAR * FAR * FAR;
    const float even_near = d[4] - FAR * FAR * d[2], odd_near = NEAR * (d[3] - FAR * FAR * d[1]);
    const float even_far = d[4] - NEAR * NEAR * d[2], odd_far = FAR * (d[3] - NEAR * NEAR * d[1]);
    t[0] = product * d[0] - squares * d[2] + d[4];
    t[1] = even_near + odd_near;
    t[2] = even_near - odd_near;
    t[3] = even_far + odd_far;
    t[4] = even_far - odd_far;
    t[5] = product * d[1] - squares * d[3] + d[5];
}

KERNEL(GROUP) winograd_input(GLOBAL const float *RESTRICT x, GLOBAL const uint *RESTRICT mask, GLOBAL float *RESTRICT v,
                             BATCH, int channels, int height, int width, int pad_y, int pad_x, int mask_y, int mask_x,
                             int pooled_height, int pooled_width) {
    const int at = ELEMENT, channel = at / batch, tile = first + at % batch;
    if (channel >= channels || at % batch >= count) return;
    const int step = adjoint ? -1 : 1;
    const int iy0 = tile / across * 4 + (adjoint ? 3 + pad_y : -pad_y);
    const int ix0 = tile % across * 4 + (adjoint ? 3 + pad_x : -pad_x);
#if PROLOGUE == POOL_WINNERS
    GLOBAL const uchar *winners = (GLOBAL const uchar *)mask + channel * pooled_height * pooled_width;
    x += channel * pooled_height * pooled_width;
#else
    x += channel * height * width;
#endif
#if PROLOGUE == MASK_BITS
    mask += channel * ((height * width + 31) / 32);
#elif PROLOGUE == MASK_TILES
    const int mask_width = (width + mask_x + 3) / 4;
    GLOBAL const ushort *blocks = (GLOBAL const ushort *)mask + channel * ((height + mask_y + 3) / 4) * mask_width;
#endif
    float rows[SIDE][SIDE];
#pragma unroll
    for (int i = 0; i < SIDE; i++) {
        float d[SIDE];
        const int iy = iy0 + i * step;
#pragma unroll
        for (int j = 0; j < SIDE; j++) {
            const int ix = ix0 + j * step;
            d[j] = 0;
            if ((uint)iy < (uint)height && (uint)ix < (uint)width) {
#if PROLOGUE == POOL_WINNERS
                const int place = (iy >> 1) * pooled_width + (ix >> 1);
                if (winners[place] == ((iy & 1) << 1 | (ix & 1))) d[j] = x[place];
#elif PROLOGUE == MASK_TILES
                if (BLOCK_BIT(blocks, mask_width, iy + mask_y, ix + mask_x)) d[j] = x[iy * width + ix];
#elif PROLOGUE
                if (BIT(mask, iy * width + ix)) d[j] = x[iy * width + ix];
#else
                d[j] = x[iy * width + ix];
#endif
            }
        }
        transform_input(d, rows[i]);
    }
    v += at;
#pragma unroll
    for (int j = 0; j < SIDE; j++) {
        float column[SIDE], t[SIDE];
#pragma unroll
        for (int i = 0; i < SIDE; i++) column[i] = rows[i][j];
        transform_input(column, t);
#pragma unroll
        for (int i = 0; i < SIDE; i++) v[(i * SIDE + j) * channels * batch] = t[i];
    }
}

#elif defined(BM)
/* The third axis of groups counts splits × frequencies × groups of channels; channels, outputs: numbers in one group. */
KERNEL_RESIDENT(THREADS, RESIDENT / THREADS) winograd_product(GLOBAL const float *RESTRICT v,
                                                              GLOBAL const float *RESTRICT u, GLOBAL float *RESTRICT m,
                                                              int start_of_m, int channels, int outputs, int batch,
                                                              int splits) {
    LOCAL ALIGNED float tile_u[2][BK][BM];
    LOCAL ALIGNED float tile_v[2][BK][BN];
    const int id = LOCAL_ID, ty = id / (BN / TN), tx = id % (BN / TN);
    const int first_output = GROUP_ID(1) * BM, first_tile = GROUP_ID(0) * BN;
    const int matrices = GROUPS(2) / splits, matrix = GROUP_ID(2) % matrices;
    const int rows = (channels + 7) / 8 * 8, columns = (outputs + 7) / 8 * 8;
    const int chunks = (channels + BK - 1) / BK, share = (chunks + splits - 1) / splits;
    int chunk = GROUP_ID(2) / matrices * share;
    const int end = chunk + share < chunks ? chunk + share : chunks;
    v += matrix * channels * batch;
    u += matrix * rows * columns;

#define QUADS_V ((BK * BN / 4 + THREADS - 1) / THREADS)
    float4 fetched_u[QUADS], fetched_v[QUADS_V], zero;
    zero.x = zero.y = zero.z = zero.w = 0;

    /* The place of the work-item's i-th quad of u in its block; transposed, a quad is four channels of one output. */
#if TRANSPOSED
#define ROW_OF_QUAD (quad % (BK / 4) * 4)
#define COLUMN_OF_QUAD (quad / (BK / 4))
#define PLACE_OF_QUAD ((first_output + COLUMN_OF_QUAD) * rows + chunk * BK + ROW_OF_QUAD)
#else
#define ROW_OF_QUAD (quad / (BM / 4))
#define COLUMN_OF_QUAD (quad % (BM / 4) * 4)
#define PLACE_OF_QUAD ((chunk * BK + ROW_OF_QUAD) * columns + first_output + COLUMN_OF_QUAD)
#endif
#define IN_TILE (QUADS * THREADS == BK * BM / 4 || quad < BK * BM / 4)

#define FETCH                                                                                                          \
    {                                                                                                                  \
        _Pragma("unroll") for (int i = 0; i < QUADS_V; i++) {                                                          \
            const int quad = id + i * THREADS, p = first_tile + quad % (BN / 4) * 4;                                   \
            const int channel = chunk * BK + quad / (BN / 4);                                                          \
            fetched_v[i] =                                                                                             \
                channel < channels && p < batch ? *(GLOBAL const float4 *)(v + channel * batch + p) : zero;              \
        }                                                                                                              \
        _Pragma("unroll") for (int i = 0; i < QUADS; i++) {                                                            \
            const int quad = id + i * THREADS;                                                                         \
            if (IN_TILE)                                                                                               \
                fetched_u[i] =                                                                                         \
                    first_output + COLUMN_OF_QUAD < columns ? *(GLOBAL const float4 *)(u + PLACE_OF_QUAD) : zero;      \
        }                                                                                                              \
        chunk++;                                                                                                       \
    }

#define STORE(buffer)                                                                                                  \
    {                                                                                                                  \
        _Pragma("unroll") for (int i = 0; i < QUADS_V; i++) {                                                          \
            const int quad = id + i * THREADS;                                                                         \
            *(LOCAL_POINTER float4 *)&tile_v[buffer][quad / (BN / 4)][quad % (BN / 4) * 4] = fetched_v[i];             \
        }                                                                                                              \
        _Pragma("unroll") for (int i = 0; i < QUADS; i++) {                                                            \
            const int quad = id + i * THREADS;                                                                         \
            if (IN_TILE) STORE_QUAD(tile_u[buffer], fetched_u[i])                                                      \
        }                                                                                                              \
    }
#if TRANSPOSED
#define STORE_QUAD(to, quad_u)                           \
    {                                                    \
        to[ROW_OF_QUAD][COLUMN_OF_QUAD] = quad_u.x;      \
        to[ROW_OF_QUAD + 1][COLUMN_OF_QUAD] = quad_u.y;  \
        to[ROW_OF_QUAD + 2][COLUMN_OF_QUAD] = quad_u.z;  \
        to[ROW_OF_QUAD + 3][COLUMN_OF_QUAD] = quad_u.w;  \
    }
#else
#define STORE_QUAD(to, quad_u) *(LOCAL_POINTER float4 *)&to[ROW_OF_QUAD][COLUMN_OF_QUAD] = quad_u;
#endif

    const int steps = end - chunk; /* none in a share beyond the last */
    ACCUMULATE(sums, steps, tile_u, tile_v, ty, tx)

    m += start_of_m + GROUP_ID(2) * outputs * batch;
#pragma unroll
    for (int i = 0; i < TM; i++) {
        const int output = first_output + ROW_OF(i, ty);
#pragma unroll
        for (int j = 0; j < TN; j += 4) {
            const int p = first_tile + COLUMN_OF(j, tx);
            if (output < outputs && p < batch)
                *(GLOBAL float4 *)(m + output * batch + p) =
                    together(sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]);
        }
    }
}

#else
/* The values of a polynomial's powers at the points, summed: the transpose of evaluation. */
INLINE void transform_output(const float m[SIDE], float y[4]) {
    const float even_near = m[1] + m[2], odd_near = NEAR * (m[1] - m[2]);
    const float even_far = m[3] + m[4], odd_far = FAR * (m[3] - m[4]);
    y[0] = m[0] + even_near + even_far;
    y[1] = odd_near + odd_far;
    y[2] = NEAR * NEAR * even_near + FAR * FAR * even_far;
    y[3] = NEAR * NEAR * odd_near + FAR * FAR * odd_far + m[5];
}

KERNEL(GROUP) winograd_output(GLOBAL const float *RESTRICT m, int start_of_m, GLOBAL const float *RESTRICT bias,
                              GLOBAL float *RESTRICT y, GLOBAL ushort *RESTRICT bits, BATCH, int splits, int outputs,
                              int height, int width, int shift_y, int shift_x, int epilogue, int pooled_height,
                              int pooled_width) {
    const int at = ELEMENT, output = at / batch, tile = first + at % batch;
    if (output >= outputs || at % batch >= count) return;
    const int row0 = tile / across * 4 - shift_y, column0 = tile % across * 4 - shift_x, plane = outputs * batch;
    float columns[4][SIDE];
    m += start_of_m + at;
#pragma unroll
    for (int j = 0; j < SIDE; j++) {
        float sums[SIDE], t[4];
#pragma unroll
        for (int i = 0; i < SIDE; i++) sums[i] = m[(i * SIDE + j) * plane];
        for (int share = 1; share < splits; share++)
#pragma unroll
            for (int i = 0; i < SIDE; i++) sums[i] += m[(share * FREQUENCIES + i * SIDE + j) * plane];
        transform_output(sums, t);
#pragma unroll
        for (int i = 0; i < 4; i++) columns[i][j] = t[i];
    }
    float tile_y[4][4];
    const float shift = bias[output];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float t[4];
        transform_output(columns[i], t);
#pragma unroll
        for (int j = 0; j < 4; j++) tile_y[i][j] = t[adjoint ? 3 - j : j] + shift;
    }

    if (epilogue == RELU_POOL) {
#pragma unroll
        for (int i = 0; i < 4; i += 2)
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                const int row = row0 + i, column = column0 + j;
                const int right = column + 1 < width, below = row + 1 < height;
                float best = tile_y[i][j];
                int winner = 0;
                TAKE_LARGEST(best, winner, right, below, tile_y[i][j + 1], tile_y[i + 1][j], tile_y[i + 1][j + 1])
                if (row >= 0 && column >= 0 && row / 2 < pooled_height && column / 2 < pooled_width) {
                    const int to = (output * pooled_height + row / 2) * pooled_width + column / 2;
                    y[to] = rectified(best);
                    ((GLOBAL uchar *)bits)[to] = (uchar)(best > 0 ? winner : 4);
                }
            }
        return;
    }
    uint flags = 0;
    y += output * height * width;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = row0 + (adjoint ? 3 - i : i);
        if ((uint)row < (uint)height) {
            GLOBAL float *to = y + row * width + column0;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                flags |= (uint)(tile_y[i][j] > 0) << (i * 4 + j); /* flags beyond borders are not read */
                if (epilogue != BIAS) tile_y[i][j] = rectified(tile_y[i][j]);
            }
            if (width % 4 == 0 && shift_x == 0) {
                *(GLOBAL float4 *)to = together(tile_y[i][0], tile_y[i][1], tile_y[i][2], tile_y[i][3]);
            } else {
#pragma unroll
                for (int j = 0; j < 4; j++)
                    if ((uint)(column0 + j) < (uint)width) to[j] = tile_y[i][j];
            }
        }
    }
    if (epilogue == RELU_BITS) bits[output * ((height + shift_y + 3) / 4) * across + tile] = (ushort)flags;
}
#endif
