/* Convolution of stride 1 with few channels on one side, as of a picture (a network's first layer), where the blocks of
   convolution.cl would compute zeros for the most part. Registers hold sums of four neighbours in a row; local memory
   holds the map with its margin once for all taps.

   -D SIDE      taps along both axes, 3 to 7
   -D CHANNELS  channels of the picture, 1 to 4
   -D PROLOGUE  NONE, or for `backward` MASK_BITS (portable.h)

   Bits: (channels, height, ceil(width / 32)) words. */

#define COLUMNS 32
#define ROWS 16
#define PITCH ((COLUMNS + SIDE + 2) / 4 * 4) /* COLUMNS + SIDE − 1, to read four at a time */
#define QUADS ((SIDE + 6) / 4)               /* that hold the SIDE + 3 numbers which four neighbours see */
#define AREA ((ROWS + SIDE - 1) * PITCH)

#define FOUR_OF(array, at) (*(LOCAL_POINTER const float4 *)&(array)[at])
/* A patch of maps `from`, from patch_row and patch_column on, with zeros around; `count` channels from the first. */
#define FETCH_PATCH(to, from, count, condition)                                                                   \
    _Pragma("unroll 4") for (int i_ = LOCAL_ID; i_ < (count)*AREA; i_ += THREADS) {                                \
        const int channel_ = i_ / AREA, row_ = patch_row + i_ % AREA / PITCH, column_ = patch_column + i_ % PITCH; \
        float value_ = 0;                                                                                          \
        if ((uint)row_ < (uint)height && (uint)column_ < (uint)width && (condition))                               \
            value_ = (from)[(channel_ * height + row_) * width + column_];                                         \
        to[i_] = value_;                                                                                           \
    }

/* y = w ⋆ x + bias. A group computes OUTPUTS channels of a patch, a work-item four neighbours in each of them.
   epilogue: BIAS, RELU or RELU_BITS (portable.h). weights: (outputs / OUTPUTS, CHANNELS, SIDE, SIDE, OUTPUTS).
   largest: the largest magnitude of y, where `leaves` is set (leave_largest). */

#define OUTPUTS 16
#define THREADS (COLUMNS / 4 * ROWS)
#define WEIGHTS (CHANNELS * SIDE * SIDE * OUTPUTS)

KERNEL_RESIDENT(THREADS, 4) forward(GLOBAL const float *RESTRICT x, GLOBAL const float *RESTRICT weights,
                                    GLOBAL const float *RESTRICT bias, GLOBAL float *RESTRICT y,
                                    GLOBAL uint *RESTRICT bits, GLOBAL float *largest, GLOBAL uint *counters, int height,
                                    int width, int out_height, int out_width, int pad_y, int pad_x, int epilogue,
                                    int leaves) {
    LOCAL ALIGNED float patch[CHANNELS * AREA];
    LOCAL ALIGNED float w[WEIGHTS];
    LOCAL uchar nibbles[OUTPUTS][ROWS][COLUMNS / 4];
    LOCAL float tops[THREADS];
    const int across = (out_width + COLUMNS - 1) / COLUMNS, tx = LOCAL_ID % (COLUMNS / 4), ty = LOCAL_ID / (COLUMNS / 4);
    const int first_row = GROUP_ID(0) / across * ROWS, first_column = GROUP_ID(0) % across * COLUMNS;
    const int patch_row = first_row - pad_y, patch_column = first_column - pad_x, first_output = GROUP_ID(1) * OUTPUTS;
    FETCH_PATCH(patch, x, CHANNELS, 1)
    for (int i = LOCAL_ID; i < WEIGHTS; i += THREADS) w[i] = weights[GROUP_ID(1) * WEIGHTS + i];
    BARRIER;

    float sums[OUTPUTS][4];
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++)
#pragma unroll
        for (int p = 0; p < 4; p++) sums[o][p] = bias[first_output + o];
    for (int line = 0; line < CHANNELS * SIDE; line++) { /* of one channel, one row of taps */
        const int at = line / SIDE * AREA + (ty + line % SIDE) * PITCH + tx * 4;
        float seen[QUADS * 4];
#pragma unroll
        for (int q = 0; q < QUADS; q++) SPREAD(seen, q * 4, FOUR_OF(patch, at + q * 4))
#pragma unroll
        for (int tap = 0; tap < SIDE; tap++)
#pragma unroll
            for (int o = 0; o < OUTPUTS; o += 4) {
                const float4 quad = FOUR_OF(w, (line * SIDE + tap) * OUTPUTS + o);
#pragma unroll
                for (int p = 0; p < 4; p++) {
                    sums[o][p] += quad.x * seen[tap + p];
                    sums[o + 1][p] += quad.y * seen[tap + p];
                    sums[o + 2][p] += quad.z * seen[tap + p];
                    sums[o + 3][p] += quad.w * seen[tap + p];
                }
            }
    }

    const int row = first_row + ty, column = first_column + tx * 4;
    float top = 0;
#pragma unroll
    for (int o = 0; o < OUTPUTS; o++) {
        GLOBAL float *to = y + ((first_output + o) * out_height + row) * out_width + column;
        uint flags = 0;
#pragma unroll
        for (int p = 0; p < 4; p++) {
            const int inside = row < out_height && column + p < out_width;
            flags |= (uint)(inside && sums[o][p] > 0) << p;
            if (epilogue != BIAS) sums[o][p] = rectified(sums[o][p]);
            const float size = inside ? fabsf(sums[o][p]) : 0;
            top = LARGER(top, size);
            if (inside && out_width % 4 != 0) to[p] = sums[o][p];
        }
        if (out_width % 4 == 0 && row < out_height && column < out_width) {
            *(GLOBAL float4 *)to = together(sums[o][0], sums[o][1], sums[o][2], sums[o][3]);
        }
        nibbles[o][ty][tx] = (uchar)flags;
    }
    tops[LOCAL_ID] = top;
    for (int reach = THREADS / 2; reach > 0; reach /= 2) {
        BARRIER;
        if (LOCAL_ID < reach) tops[LOCAL_ID] = LARGER(tops[LOCAL_ID], tops[LOCAL_ID + reach]);
    }
    if (leaves && LOCAL_ID == 0) leave_largest(largest, counters, __float_as_uint(tops[0]), GROUPS(0) * GROUPS(1));
    if (epilogue == RELU_BITS)
        for (int i = LOCAL_ID; i < OUTPUTS * ROWS; i += THREADS) {
            const int o = i / ROWS, line = first_row + i % ROWS;
            if (line < out_height) {
                uint word = 0;
                for (int q = 0; q < COLUMNS / 4; q++) word |= (uint)nibbles[o][i % ROWS][q] << (q * 4);
                bits[((first_output + o) * out_height + line) * across + first_column / COLUMNS] = word;
            }
        }
}
#undef THREADS

/* The gradient for the picture from g (channels, height, width), a convolution with the rotated filters. A group computes
   a patch of all channels of the picture; a work-item two rows of four neighbours, over a quarter of the channels.
   weights: (channels, SIDE, SIDE, 4), channels a multiple of CHUNK. */

#define CHUNK 8
#define SHARES 4
#define PLACES (COLUMNS / 4 * (ROWS / 2))
#define THREADS (PLACES * SHARES)
#define TAPS (SIDE * SIDE * 4)

#if PROLOGUE
#define COUNTS mask[(channel_ * height + row_) * ((width + 31) / 32) + (column_ >> 5)] >> (column_ & 31) & 1u
#else
#define COUNTS 1
#endif

KERNEL_RESIDENT(THREADS, SIDE > 3 ? 2 : 3) backward(GLOBAL const float *RESTRICT g, GLOBAL const float *RESTRICT weights,
                                     GLOBAL const uint *RESTRICT mask, GLOBAL float *RESTRICT y, int channels,
                                     int height, int width, int out_height, int out_width, int pad_y, int pad_x) {
    LOCAL ALIGNED float patch[CHUNK * AREA];
    LOCAL ALIGNED float w[CHUNK * TAPS];
    const int across = (out_width + COLUMNS - 1) / COLUMNS, place = LOCAL_ID % PLACES, share = LOCAL_ID / PLACES;
    const int tx = place % (COLUMNS / 4), ty = place / (COLUMNS / 4) * 2;
    const int first_row = GROUP_ID(0) / across * ROWS, first_column = GROUP_ID(0) % across * COLUMNS;
    const int patch_row = first_row - pad_y, patch_column = first_column - pad_x;
    float sums[2][CHANNELS][4];
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int c = 0; c < CHANNELS; c++)
#pragma unroll
            for (int p = 0; p < 4; p++) sums[r][c][p] = 0;
    for (int first = 0; first < channels; first += CHUNK) {
        BARRIER;
        FETCH_PATCH(patch, g, CHUNK, COUNTS)
        for (int i = LOCAL_ID; i < CHUNK * TAPS; i += THREADS) w[i] = weights[i];
        g += CHUNK * height * width;
        mask += CHUNK * height * ((width + 31) / 32);
        weights += CHUNK * TAPS;
        BARRIER;
        for (int k = share * (CHUNK / SHARES); k < (share + 1) * (CHUNK / SHARES); k++) {
#pragma unroll 1
            for (int line = 0; line <= SIDE; line++) {
                float seen[QUADS * 4];
#pragma unroll
                for (int q = 0; q < QUADS; q++)
                    SPREAD(seen, q * 4, FOUR_OF(patch, k * AREA + (ty + line) * PITCH + (tx + q) * 4))
#pragma unroll
                for (int r = 0; r < 2; r++) { /* this line meets row `line` of the taps for the first, line − 1 below */
                    if (line - r < 0 || line - r >= SIDE) continue;
#pragma unroll
                    for (int tap = 0; tap < SIDE; tap++) {
                        float of_channels[4];
                        SPREAD(of_channels, 0, FOUR_OF(w, k * TAPS + ((line - r) * SIDE + tap) * 4))
#pragma unroll
                        for (int c = 0; c < CHANNELS; c++)
#pragma unroll
                            for (int p = 0; p < 4; p++) sums[r][c][p] += of_channels[c] * seen[tap + p];
                    }
                }
            }
        }
    }
#define EACH_SUM(body)                                                                     \
    _Pragma("unroll") for (int r = 0; r < 2; r++)                                          \
        _Pragma("unroll") for (int c = 0; c < CHANNELS; c++)                               \
            _Pragma("unroll") for (int p = 0; p < 4; p++) {                                \
                LOCAL_POINTER float *shared = patch + ((r * CHANNELS + c) * 4 + p) * PLACES + place; \
                body;                                                                      \
            }
    for (int s = 1; s < SHARES; s++) { /* in fixed order */
        BARRIER;
        if (share == s) EACH_SUM(*shared = sums[r][c][p])
        BARRIER;
        if (share == 0) EACH_SUM(sums[r][c][p] += *shared)
    }
    const int row = first_row + ty, column = first_column + tx * 4;
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int c = 0; c < CHANNELS; c++)
#pragma unroll
            for (int p = 0; p < 4; p++)
                if (share == 0 && row + r < out_height && column + p < out_width)
                    y[(c * out_height + row + r) * out_width + column + p] = sums[r][c][p];
}
