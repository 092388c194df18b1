/* The Gram matrix F Fᵀ of F: (channels, positions) on tensor cores; as gram_parts in gram.cl. A group sums one tile of
   64 × 64 over `span` positions; its four warps hold 32 × 32 each. channels: multiple of 64. */

#define THREADS 128
#define KW 16    /* words of positions per step */
#define PITCH 20 /* of rows in shared memory: 8 rows × 4 words of a fragment lie in 32 banks */
#define ITEMS (SIDE * KW / THREADS)

KERNEL_RESIDENT(THREADS, 4) gram_parts(GLOBAL const float *RESTRICT f, GLOBAL const float *RESTRICT peak, int channels,
                                       int positions, int span, GRAM_END) {
    LOCAL uint tiles[2][2][SIDE * PITCH];
    const int id = LOCAL_ID, lane = LANE, warp_m = WARP / 2, warp_n = WARP % 2;
    TILE_OF(row, column, GROUP_ID(0), channels / SIDE)
    const int first = GROUP_ID(1) * span, end = first + span < positions ? first + span : positions;
    const int operands = row == column ? 1 : 2, right = operands - 1;
    const float scale = fitting(peak[0]);
    float fetched[2][ITEMS][WIDTH];

#define FETCH(start)                                                                                                  \
    {                                                                                                                 \
        UNROLL for (int o_ = 0; o_ < 2; o_++) {                                                                       \
            GLOBAL const float *from_ = f + (o_ ? column : row) * SIDE * positions;                                   \
            UNROLL for (int i_ = 0; i_ < ITEMS; i_++) {                                                               \
                const int item_ = id + i_ * THREADS, at_ = (start) + item_ % KW * WIDTH;                              \
                UNROLL for (int c_ = 0; c_ < WIDTH; c_++) {                                                           \
                    float value_ = 0;                                                                                 \
                    if (o_ < operands && at_ + c_ < end) value_ = from_[item_ / KW * positions + at_ + c_];           \
                    fetched[o_][i_][c_] = value_;                                                                     \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
    }
#define STORE(buffer)                                                                                                 \
    {                                                                                                                 \
        UNROLL for (int o_ = 0; o_ < 2; o_++) {                                                                       \
            UNROLL for (int i_ = 0; i_ < ITEMS; i_++) {                                                               \
                const int item_ = id + i_ * THREADS;                                                                  \
                if (o_ < operands)                                                                                    \
                    tiles[buffer][o_][item_ / KW * PITCH + item_ % KW] =                                              \
                        word(fetched[o_][i_][0] * scale, fetched[o_][i_][WIDTH - 1] * scale);                         \
            }                                                                                                         \
        }                                                                                                             \
    }

    float found[2][4][4];
    UNROLL for (int i = 0; i < 2; i++) {
        UNROLL for (int j = 0; j < 4; j++) {
            UNROLL for (int r = 0; r < 4; r++) found[i][j][r] = 0;
        }
    }
    FETCH(first)
    STORE(0)
    int buffer = 0;
    for (int p = first; p < end; p += KW * WIDTH) {
        const int next = p + KW * WIDTH;
        BARRIER;
        if (next < end) FETCH(next)
        LOCAL_POINTER const uint *from_a = tiles[buffer][0] + (warp_m * 32 + lane / 4) * PITCH + lane % 4;
        LOCAL_POINTER const uint *from_b = tiles[buffer][right] + (warp_n * 32 + lane / 4) * PITCH + lane % 4;
        UNROLL for (int k = 0; k < KW; k += 8) {
            uint4 a[2];
            uint2 b[4];
            UNROLL for (int i = 0; i < 2; i++) {
                LOCAL_POINTER const uint *at = from_a + i * 16 * PITCH + k;
                a[i].x = at[0];
                a[i].y = at[8 * PITCH];
                a[i].z = at[4];
                a[i].w = at[8 * PITCH + 4];
            }
            UNROLL for (int j = 0; j < 4; j++) {
                LOCAL_POINTER const uint *at = from_b + j * 8 * PITCH + k;
                b[j].x = at[0];
                b[j].y = at[4];
            }
            MULTIPLY(found, a, b, 2, 4)
        }
        if (next < end) STORE(buffer ^ 1)
        buffer ^= 1;
    }
    float *part = parts + (GROUP_ID(1) * GROUPS(0) + GROUP_ID(0)) * SIDE * SIDE;
    UNROLL for (int i = 0; i < 2; i++) {
        UNROLL for (int j = 0; j < 4; j++) {
            UNROLL for (int r = 0; r < 4; r++)
                part[(warp_m * 32 + i * 16 + r / 2 * 8 + lane / 4) * SIDE + warp_n * 32 + j * 8 + lane % 4 * 2 + r % 2] =
                    found[i][j][r] / scale / scale;
        }
    }
    finish_gram<THREADS>(g, target, parts, sums, squares, largest, counters, members, factor, compares, row, column,
                         channels, (float *)tiles[0][0]);
}
