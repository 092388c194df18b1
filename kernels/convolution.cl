/* Convolution as an implicit matrix product: y[o, p] = Σ_k w[k, o] · x[k, p] with k over (channel, tap) and p over output
   positions. A group computes a block of BM outputs by BN positions in steps of BK channels of one tap; each work-item
   holds TM × TN of it in registers. Both operands pass through local memory, in two buffers: while one is multiplied, the
   next is loaded from global memory.

   One kernel serves
   - the forward direction: position (u, v) reads (u · stride + tap · dilation − pad);
   - the gradient for the input (adjoint = 1): it reads the output's gradient at (position + pad − tap · dilation) / stride
     where the quotient is whole. Positions of equal remainder (a phase) meet the same taps, so each phase is a dense convolution
     with some of the taps, without products with zeros;
   - the product of a matrix with feature maps (the Gram gradient), as a 1×1 convolution.
   Where positions are few, the channels are split over groups (splits > 1), which leave partial sums for finish.cl.

   -D BM, BN, BK, TM, TN   the block
   -D PROLOGUE             see portable.h; the tiles of MASK_TILES start mask_y and mask_x before x
   -D MATRIX               0; 1: w is a (channels, outputs) matrix without padding, scaled by a factor on the device, and
                           y is added to when `accumulate` is set
   epilogue: see portable.h; with RELU_POOL four positions in a row are a window, which one work-item holds.

   Weights: (group, tap, channels rounded up to 8, outputs rounded up to 4), zero where rounded up, and 128 more floats
   that may be read. Bits: rows of whole words, one row per channel. */

#define COLUMNS (BN > THREADS ? BN / THREADS : 1)  /* positions that a work-item fetches */
#define ROW_STEP (BN > THREADS ? 1 : THREADS / BN)
#define ROWS (BK / ROW_STEP)                       /* channels that it fetches at each position */

/* Constants of a launch that all work-items share, as the host lays them out. */
#define LAYOUT                                                                                                         \
    int channels, int height, int width, int outputs, int out_height, int out_width, int taps_y, int taps_x,          \
        int stride_y, int stride_x, int dilation_y, int dilation_x, int pad_y, int pad_x, int apart_y, int apart_x,   \
        int groups, int splits, int adjoint, int epilogue, int pooled_height, int pooled_width, int mask_y, int mask_x

/* First tap that meets positions of this remainder; taps where there is none. */
INLINE int first_tap(int remainder, int pad, int dilation, int stride, int step) {
    int tap = 0;
    while (tap < step && (remainder + pad - tap * dilation) % stride != 0) tap++;
    return tap;
}

KERNEL_RESIDENT(THREADS, (MATRIX ? 384 : RESIDENT) / THREADS) convolution(GLOBAL const float *RESTRICT x, GLOBAL const float *RESTRICT w,
                            GLOBAL const float *RESTRICT bias, GLOBAL float *RESTRICT y,
                            GLOBAL const uint *RESTRICT mask, GLOBAL uint *RESTRICT bits, FACTOR, int accumulate,
                            LAYOUT) {
    LOCAL ALIGNED float tile_w[2][BK][BM];
    LOCAL ALIGNED float tile_x[2][BK][BN];
    LOCAL uchar nibbles[BM][BN / 4];
    LOCAL int kept[5]; /* numbers for the end alone, so that they take no registers meanwhile */
    const int id = LOCAL_ID, first_output = GROUP_ID(1) * BM, first_position = GROUP_ID(0) * BN;
    const int pooled_plane = pooled_height * pooled_width;
    const int input_plane = PROLOGUE == POOL_WINNERS ? pooled_plane : height * width;

    /* The group of channels, the phase and the split of this group of work-items. */
    int z = GROUP_ID(2);
    const int group = z % groups;
    z /= groups;
    int remainder_y = 0, remainder_x = 0, rows = out_height, columns = out_width;
    int tap_y0 = 0, tap_x0 = 0, count_y = taps_y, count_x = taps_x; /* taps from tap_y0 on, apart_y from one to the next */
    int start_y = -pad_y, start_x = -pad_x, step_y = dilation_y, step_x = dilation_x, read_y = stride_y, read_x = stride_x;
    if (adjoint) {
        remainder_x = z % stride_x;
        remainder_y = z / stride_x % stride_y;
        z = z / stride_x / stride_y;
        rows = (out_height - remainder_y + stride_y - 1) / stride_y;
        columns = (out_width - remainder_x + stride_x - 1) / stride_x;
        tap_y0 = first_tap(remainder_y, pad_y, dilation_y, stride_y, apart_y);
        tap_x0 = first_tap(remainder_x, pad_x, dilation_x, stride_x, apart_x);
        count_y = tap_y0 < apart_y && tap_y0 < taps_y ? (taps_y - tap_y0 + apart_y - 1) / apart_y : 0;
        count_x = tap_x0 < apart_x && tap_x0 < taps_x ? (taps_x - tap_x0 + apart_x - 1) / apart_x : 0;
        start_y = (remainder_y + pad_y - tap_y0 * dilation_y) / stride_y;
        start_x = (remainder_x + pad_x - tap_x0 * dilation_x) / stride_x;
        step_y = -apart_y * dilation_y / stride_y;
        step_x = -apart_x * dilation_x / stride_x;
        read_y = read_x = 1;
    }
    const int split = z;
    const int position_count = epilogue == RELU_POOL ? 4 * pooled_plane : rows * columns;
    if (columns == 0) columns = 1; /* a phase without positions: nothing may divide by it */
    if (id == 0) {
        kept[0] = position_count;
        kept[1] = columns;
        kept[2] = remainder_y;
        kept[3] = remainder_x;
        kept[4] = split * groups + group;
    }

#if MATRIX
    const int channel_pitch = channels, output_pitch = outputs;
#else
    const int channel_pitch = (channels + 7) / 8 * 8, output_pitch = (outputs + 3) / 4 * 4;
#endif
    const int chunks = (channels + BK - 1) / BK, share = (chunks + splits - 1) / splits;
    const int first_chunk = split * share;
    const int last_chunk = first_chunk + share < chunks ? first_chunk + share : chunks;
    /* A phase may have fewer positions than the largest one: then a group does nothing. It does not return here, since
       PoCL 3.0 compiles a return before a barrier wrongly. */
    const int busy = first_position < position_count && last_chunk > first_chunk;
    const int steps = busy ? (last_chunk - first_chunk) * count_y * count_x : 0;
    x += group * channels * input_plane;
    w += group * taps_y * taps_x * channel_pitch * output_pitch;

    /* This work-item fetches COLUMNS positions of x, ROWS channels from fetch_row on. */
    const int fetch_row = id / BN, fetch_column = id % BN;
    int fetch_y[COLUMNS], fetch_x[COLUMNS];
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) {
        const int p = first_position + fetch_column + j * THREADS, window = p / 4;
        const int row = epilogue == RELU_POOL ? window / pooled_width * 2 + (p >> 1 & 1) : p / columns;
        const int column = epilogue == RELU_POOL ? window % pooled_width * 2 + (p & 1) : p % columns;
        /* A position beyond the last gets a row that fails every test for being inside. */
        fetch_y[j] = p < position_count ? row * read_y + start_y : -(1 << 29);
        fetch_x[j] = column * read_x + start_x;
    }

    float fetched_x[COLUMNS][ROWS];
    float4 fetched_w[QUADS];
    int chunk = first_chunk, at_y = 0, at_x = 0; /* the step that is fetched next */

#define FETCH                                                                                                          \
    {                                                                                                                  \
        const int tap = (tap_y0 + at_y * apart_y) * taps_x + tap_x0 + at_x * apart_x;                             \
        const int channel0 = chunk * BK + fetch_row;                                                                   \
        _Pragma("unroll") for (int j = 0; j < COLUMNS; j++) {                                                          \
            const int iy = fetch_y[j] + at_y * step_y, ix = fetch_x[j] + at_x * step_x;                                \
            const int inside = (uint)iy < (uint)height && (uint)ix < (uint)width;                                      \
            const int place = PROLOGUE == POOL_WINNERS ? (iy >> 1) * pooled_width + (ix >> 1) : iy * width + ix;                    \
            _Pragma("unroll") for (int i = 0; i < ROWS; i++) {                                                         \
                const int channel = channel0 + i * ROW_STEP;                                                           \
                float value = 0;                                                                                       \
                if (inside && channel < channels) {                                                                    \
                    value = x[channel * input_plane + place];                                                          \
                    MASK_VALUE                                                                                         \
                }                                                                                                      \
                fetched_x[j][i] = value;                                                                               \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("unroll") for (int i = 0; i < QUADS; i++) {                                                            \
            const int quad = id + i * THREADS, row = quad / (BM / 4), column = quad % (BM / 4) * 4;                    \
            if (QUADS * THREADS == BK * BM / 4 || row < BK) {                                                          \
                GLOBAL const float *from =                                                                             \
                    w + (tap * channel_pitch + chunk * BK + row) * output_pitch + first_output + column;               \
                WEIGHT_VALUE                                                                                           \
            }                                                                                                          \
        }                                                                                                              \
        if (++at_x == count_x) {                                                                                       \
            at_x = 0;                                                                                                  \
            if (++at_y == count_y) {                                                                                   \
                at_y = 0;                                                                                              \
                chunk++;                                                                                               \
            }                                                                                                          \
        }                                                                                                              \
    }

#if PROLOGUE == POOL_WINNERS
    GLOBAL const uchar *winners = (GLOBAL const uchar *)mask + group * channels * input_plane;
#define MASK_VALUE \
    if (winners[channel * input_plane + place] != ((iy & 1) << 1 | (ix & 1))) value = 0;
#elif PROLOGUE == MASK_TILES
    const int across = (width + mask_x + 3) / 4, blocks = (height + mask_y + 3) / 4 * across;
    GLOBAL const ushort *block = (GLOBAL const ushort *)mask + group * channels * blocks;
#define MASK_VALUE \
    if (!BLOCK_BIT(block + channel * blocks, across, iy + mask_y, ix + mask_x)) value = 0;
#elif PROLOGUE
    mask += group * channels * ((input_plane + 31) / 32);
#define MASK_VALUE \
    if (!(mask[channel * ((input_plane + 31) / 32) + (place >> 5)] >> (place & 31) & 1u)) value = 0;
#else
#define MASK_VALUE
#endif

#if MATRIX
#define ONE_WEIGHT(field, i) \
    fetched_w[i_].field = chunk * BK + row < channels && first_output + column + i < outputs ? from[i] : 0;
#define WEIGHT_VALUE              \
    {                             \
        const int i_ = i;         \
        ONE_WEIGHT(x, 0)          \
        ONE_WEIGHT(y, 1)          \
        ONE_WEIGHT(z, 2)          \
        ONE_WEIGHT(w, 3)          \
    }
#else
#define WEIGHT_VALUE fetched_w[i] = *(GLOBAL const float4 *)from;
#endif

#define STORE(buffer)                                                                                                  \
    {                                                                                                                  \
        _Pragma("unroll") for (int j = 0; j < COLUMNS; j++) _Pragma("unroll") for (int i = 0; i < ROWS; i++)           \
            tile_x[buffer][fetch_row + i * ROW_STEP][fetch_column + j * THREADS] = fetched_x[j][i];                    \
        _Pragma("unroll") for (int i = 0; i < QUADS; i++) {                                                            \
            const int quad = id + i * THREADS, row = quad / (BM / 4), column = quad % (BM / 4) * 4;                    \
            if (QUADS * THREADS == BK * BM / 4 || row < BK)                                                            \
                *(LOCAL_POINTER float4 *)&tile_w[buffer][row][column] = fetched_w[i];                                  \
        }                                                                                                              \
    }

    const int ty = id / (BN / TN), tx = id % (BN / TN);
    ACCUMULATE(sums, steps, tile_w, tile_x, ty, tx)

    const int positions = kept[0], row_length = kept[1], phase_y = kept[2], phase_x = kept[3], part = kept[4];
    const int output_plane = epilogue == RELU_POOL ? positions : out_height * out_width;
    const int finished = splits == 1;
    if (!finished || epilogue != RELU_POOL) y += part * outputs * output_plane;
#pragma unroll
    for (int i = 0; i < TM; i++) {
        const int row = ROW_OF(i, ty), output = first_output + row;
        float shift = 0;
#if !MATRIX
        if (finished && output < outputs) shift = bias[part * outputs + output];
#endif
#pragma unroll
        for (int j = 0; j < TN; j += 4) {
            const int column = COLUMN_OF(j, tx), p = first_position + column;
            float v0 = sums[i][j] + shift, v1 = sums[i][j + 1] + shift;
            float v2 = sums[i][j + 2] + shift, v3 = sums[i][j + 3] + shift;
            if (finished && epilogue == RELU_POOL) {
                const int window = p / 4, row0 = window / pooled_width * 2, column0 = window % pooled_width * 2;
                const int right = column0 + 1 < out_width, below = row0 + 1 < out_height;
                int winner = 0;
                TAKE_LARGEST(v0, winner, right, below, v1, v2, v3)
                if (output < outputs && p < positions) {
                    const int to = (part * outputs + output) * pooled_plane + window;
                    y[to] = rectified(v0);
                    ((GLOBAL uchar *)bits)[to] = (uchar)(v0 > 0 ? winner : 4);
                }
            } else if (finished && epilogue != BIAS) {
                /* Positions beyond the last are sums of zeros and the bias: their bits must not be set. */
                const int left = positions - p;
                nibbles[row][column / 4] = (uchar)((v0 > 0 && left > 0) | (v1 > 0 && left > 1) << 1 |
                                                   (v2 > 0 && left > 2) << 2 | (v3 > 0 && left > 3) << 3);
                v0 = rectified(v0);
                v1 = rectified(v1);
                v2 = rectified(v2);
                v3 = rectified(v3);
            }
            if (output < outputs && !(finished && epilogue == RELU_POOL)) {
                GLOBAL float *to = y + output * output_plane;
#if MATRIX
                const float factor = FACTOR_VALUE;
                v0 *= factor;
                v1 *= factor;
                v2 *= factor;
                v3 *= factor;
                if (accumulate) {
                    if (p < positions) v0 += to[p];
                    if (p + 1 < positions) v1 += to[p + 1];
                    if (p + 2 < positions) v2 += to[p + 2];
                    if (p + 3 < positions) v3 += to[p + 3];
                }
#endif
                if (adjoint && stride_y * stride_x > 1) {
#define SCATTER(q, value)    \
    if ((q) < positions)     \
        to[((q) / row_length * stride_y + phase_y) * out_width + (q) % row_length * stride_x + phase_x] = value;
                    SCATTER(p, v0)
                    SCATTER(p + 1, v1)
                    SCATTER(p + 2, v2)
                    SCATTER(p + 3, v3)
                } else if (p + 3 < positions && output_plane % 4 == 0) {
                    *(GLOBAL float4 *)(to + p) = together(v0, v1, v2, v3);
                } else {
                    if (p < positions) to[p] = v0;
                    if (p + 1 < positions) to[p + 1] = v1;
                    if (p + 2 < positions) to[p + 2] = v2;
                    if (p + 3 < positions) to[p + 3] = v3;
                }
            }
        }
    }

    BARRIER;
    if (finished && epilogue == RELU_BITS)
        for (int i = id; i < BM * (BN / 32); i += THREADS) {
            const int row = i / (BN / 32), word = i % (BN / 32), output = first_output + row;
            if (output < outputs && first_position + word * 32 < positions) {
                uint value = 0;
                for (int j = 0; j < 8; j++) value |= (uint)nibbles[row][word * 8 + j] << (j * 4);
                bits[(part * outputs + output) * ((output_plane + 31) / 32) + first_position / 32 + word] = value;
            }
        }
}
