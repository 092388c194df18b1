/* Convolution of stride 1, SIDE × SIDE taps, "same" padding, as a matrix product on tensor cores: outputs × positions, the
   sum over channels and taps. See tensor.h for words and fragments.

   A group computes BM outputs at a patch of PH × 16 positions; a warp MT × 16 of the outputs at NT × 8 of the positions.
   The channels come in chunks of KW words:
   - the patch with its margin, read once for all taps, through registers, where numbers are masked, scaled and rounded.
     In shared memory a word's plane takes PLANE places, 8 or 24 more than a multiple of 32, so that the 4 words × 8
     positions of a fragment lie in 32 banks whatever the tap;
   - the weights of one row of taps at a time, by asynchronous copies through STAGES buffers; the host has put them in the
     order in which lanes read them, four words at a time.
   With SPLIT every number is the sum of two words, the rounded number and the rest, and a chunk takes three passes, first
   word × first, first × rest of the weights, rest of x × first: about float32's precision for three times the products.
   Each chunk of the weights is then followed by a chunk of rests.

   With WGMMA (wgmma.h) four warps compute 64 outputs at the whole patch, as two halves of 8 columns each. The patch lies
   as 4 words of one position after the other, in which a tap is another place for the descriptor to start; the weights,
   in the lanes' order already, go from memory into registers. Of split numbers both words are there at once, and a chunk
   takes two rounds: words of the weights × both, rests × words. The other product of PLUS goes by mma.sync, whose sums
   lie in the same way.

   y[o, p] = sum + bias through the epilogue (portable.h); or y += factor · sum where `accumulate` is set (the Gram
   gradient: SIDE 1, weights from pack.cu). With PLUS the sum begins with factor times another product, of `plus_w` and
   `plus_x` (as many channels as outputs): a Gram gradient, and the gradient to which it is added, in one pass. Where
   blocks are few, or do not fill the last wave of the multiprocessors, the channels are split over groups (splits > 1):
   each puts its sums into `parts`, as they lie in registers, and the last group to come at a block, by a counter of the
   block's own after two of `scratch`, adds them in the order of the channels and continues alone.
   Bits, of masks and results: 16 to a word, rows of whole words: (channels, height, ceil(width / 16)).
   With RELU_POOL each window lies in one lane: y and `bits` are (channels, ceil(height / 2), ceil(width / 2)), and a
   winner is one byte.
   For fp16 the largest magnitude of y is left in `largest`, which has one place.
   channels: multiple of KW · WIDTH; outputs: multiple of 16.

   -D BM, PH, WM, WN  block, and warps along outputs and along positions
   -D SIDE, STAGES    taps along an axis, buffers for weights
   -D SPLIT           1: numbers are the sum of two words
   -D PROLOGUE        NONE, MASK_BITS or POOL_WINNERS (portable.h)
   -D PLUS            1: with SIDE 3, another product comes first
   -D WGMMA           1: by warpgroups; WN is 1 then, SIDE 3, STAGES without meaning */

#define PW 16
#if PROLOGUE == POOL_WINNERS
#define MASK uchar
#else
#define MASK ushort
#endif
#define THREADS (WM * WN * 32)
#define MT (BM / WM / 16)
#define NT (PH * PW / WN / 8)
#define KW (SIDE == 1 ? 16 : 8)
#define PITCH (PW + SIDE - 1)
#define AREA ((PH + SIDE - 1) * PITCH)
#define PLANE ((AREA + 7) / 16 * 16 + 8)
#if WGMMA
#define NUMBERS (4 * WIDTH) /* of one position in an item, which a work-item fetches and stores as a whole */
#else
#define NUMBERS WIDTH
#endif
#define COUNT (KW * WIDTH / NUMBERS * AREA)                     /* items of a chunk */
#define ITEMS ((COUNT + THREADS * SIDE - 1) / (THREADS * SIDE)) /* that a work-item fetches at a time */
#define BLOCK (SIDE * (KW / 8) * 32)                 /* quads of weights for 16 outputs and one row of taps */
#define COPIES ((BM / 16 * BLOCK + THREADS - 1) / THREADS)
#define PARTS (SPLIT + 1) /* of a number: its word, and the rest */
#define PASSES (SPLIT ? WGMMA ? 2 : 3 : 1)
#define PLUS_PLANE (PH * PW + 8) /* of a word without margin */
#define PLUS_ITEMS (KW * PH * PW / THREADS / 2) /* that a work-item fetches at a time */
#define PLUS_COPIES ((BM / 16 * 32 + THREADS - 1) / THREADS)
#define PLUS_ROWS (MT > 1 ? MT / 2 : 1) /* rows of fragments, by PLUS_COLUMNS: half of a warp's sums */
#define PLUS_COLUMNS (MT > 1 ? NT : NT / 2)

KERNEL_RESIDENT(THREADS, RESIDENT) convolution(GLOBAL const float *RESTRICT x, GLOBAL const uint4 *RESTRICT w,
                       GLOBAL const float *RESTRICT bias, GLOBAL float *RESTRICT y,
                       GLOBAL const MASK *RESTRICT mask, GLOBAL ushort *RESTRICT bits,
                       GLOBAL const float *RESTRICT peak_x, GLOBAL const float *RESTRICT peak_w,
                       GLOBAL float *RESTRICT largest, GLOBAL const float *RESTRICT plus_x,
                       GLOBAL const uint4 *RESTRICT plus_w, GLOBAL const float *RESTRICT peak_plus_x,
                       GLOBAL const float *RESTRICT peak_plus_w, GLOBAL float4 *parts, GLOBAL uint *scratch, FACTOR,
                       int channels, int height, int width, int outputs, int splits, int epilogue, int accumulate) {
    LOCAL float scales[4]; /* of x, the result, plus_x, the sum that it begins with; here they take no registers */
#if WGMMA
    LOCAL uint4 tile_x[2 * PARTS * COUNT];
    uint4 a[SIDE * SIDE]; /* the weights of three steps */
#else
    LOCAL uint4 tile_w[STAGES][BM / 16 * BLOCK];
    LOCAL uint tile_x[2][KW * PLANE];
#endif
    int id = LOCAL_ID;
    const int lane = LANE, warp_m = WARP / WN, warp_n = WARP % WN;
    const int across = (width + PW - 1) / PW, plane = height * width;
    const int first_row = GROUP_ID(0) / across * PH, first_column = GROUP_ID(0) % across * PW;
    const int first_block = GROUP_ID(1) * (BM / 16), blocks = outputs / 16;
    if (id == 0) {
        const float scale_x = fitting(peak_x[0]), scale_w = fitting(peak_w[0]);
        scales[0] = scale_x;
        scales[1] = (PLUS ? 1 : FACTOR_VALUE) / scale_x / scale_w;
        if (PLUS) { /* each is a power of two, and in this order no quotient and no product overflows */
            scales[2] = fitting(peak_plus_x[0]);
            scales[3] = FACTOR_VALUE / scales[2] * scale_x / fitting(peak_plus_w[0]) * scale_w;
        }
    }
    BARRIER;
    float sums[MT][NT][4];
    UNROLL for (int i = 0; i < MT; i++) {
        UNROLL for (int j = 0; j < NT; j++) {
            UNROLL for (int r = 0; r < 4; r++) sums[i][j][r] = 0;
        }
    }

#if PLUS
    /* Chunks of KW words of the other product's channels, shared out as the first one's are; one barrier for each,
       since words and weights have two buffers. */
    {
        const int plus_chunks = outputs / (KW * WIDTH), plus_share = (plus_chunks + splits - 1) / splits;
        const int start = GROUP_ID(2) * plus_share;
        const int end = start + plus_share < plus_chunks ? start + plus_share : plus_chunks;
        const float plus_scale = scales[2];
        float plus_fetched[PLUS_ITEMS][WIDTH];
        plus_x += start * KW * WIDTH * plane; /* the chunk that is fetched next */
#define PLUS_FETCH(part)                                                                                            \
    {                                                                                                               \
        UNROLL for (int i_ = 0; i_ < PLUS_ITEMS; i_++) {                                                            \
            const int item_ = id + ((part)*PLUS_ITEMS + i_) * THREADS, at_ = item_ % (PH * PW);                     \
            const int row_ = first_row + at_ / PW, column_ = first_column + at_ % PW;                               \
            UNROLL for (int c_ = 0; c_ < WIDTH; c_++) {                                                             \
                const int channel_ = item_ / (PH * PW) * WIDTH + c_;                                                \
                float value_ = 0;                                                                                   \
                if (row_ < height && column_ < width) value_ = plus_x[channel_ * plane + row_ * width + column_];   \
                plus_fetched[i_][c_] = value_;                                                                      \
            }                                                                                                       \
        }                                                                                                           \
    }
#define PLUS_STORE(part, buffer)                                                                                    \
    {                                                                                                               \
        UNROLL for (int i_ = 0; i_ < PLUS_ITEMS; i_++) {                                                            \
            const int item_ = id + ((part)*PLUS_ITEMS + i_) * THREADS;                                              \
            PLUS_X(buffer)[item_ + item_ / (PH * PW) * (PLUS_PLANE - PH * PW)] =                                    \
                word(plus_fetched[i_][0] * plus_scale, plus_fetched[i_][WIDTH - 1] * plus_scale);                   \
        }                                                                                                           \
    }
#define PLUS_QUAD(chunk, block) ((((chunk) / 2 * blocks + (block)) * 2 + (chunk) % 2) * 32) /* two are one of pack.cu's */
#if WGMMA /* weights from memory into registers */
#define PLUS_X(buffer) ((LOCAL_POINTER uint *)tile_x + (buffer)*KW * PLUS_PLANE)
#define PLUS_WEIGHTS(chunk, buffer) ahead = plus_w[PLUS_QUAD(chunk, block) + lane];
        const int block = first_block + WARP < blocks ? first_block + WARP : blocks - 1;
        uint4 ahead;
#else
#define PLUS_X(buffer) tile_x[buffer]
#define PLUS_WEIGHTS(chunk, buffer)                                                                                 \
    {                                                                                                               \
        UNROLL for (int i_ = 0; i_ < PLUS_COPIES; i_++) {                                                           \
            const int quad_ = id + i_ * THREADS, block_ = first_block + quad_ / 32, valid_ = block_ < blocks;       \
            const int from_ = PLUS_QUAD(chunk, block_) + quad_ % 32;                                                \
            if (quad_ < BM / 16 * 32)                                                                               \
                ASYNC_COPY(&tile_w[buffer][quad_], plus_w + (valid_ ? from_ : 0), valid_);                      \
        }                                                                                                           \
        ASYNC_COMMIT;                                                                                               \
    }
#endif
        if (start < end) {
            PLUS_WEIGHTS(start, 0)
            for (int part = 0; part < 2; part++) {
                PLUS_FETCH(part)
                PLUS_STORE(part, 0)
            }
        }
        for (int chunk = start; chunk < end; chunk++) {
            const int at = (chunk - start) % 2, fetches = chunk + 1 < end;
            if (PLUS_ITEMS * WIDTH > 2) ANEW(id); /* as below */
            ASYNC_WAIT(0);
            BARRIER;
#if WGMMA
            const uint4 now = ahead;
#endif
            if (fetches) PLUS_WEIGHTS(chunk + 1, at ^ 1)
            plus_x += KW * WIDTH * plane;
            UNROLL for (int part = 0; part < 2; part++) { /* half of the sums, while half of the words come */
                uint4 a[PLUS_ROWS];
                uint2 b[PLUS_COLUMNS];
                const int first_i = part * PLUS_ROWS % MT, first_j = part * PLUS_COLUMNS % NT;
                if (fetches) PLUS_FETCH(part)
                UNROLL for (int j = 0; j < PLUS_COLUMNS; j++) {
                    LOCAL_POINTER const uint *from = PLUS_X(at) + lane % 4 * PLUS_PLANE + lane / 4;
                    b[j].x = from[(warp_n * NT + first_j + j) * 8];
                    b[j].y = from[(warp_n * NT + first_j + j) * 8 + 4 * PLUS_PLANE];
                }
#if WGMMA
                a[0] = now;
#else
                UNROLL for (int i = 0; i < PLUS_ROWS; i++) a[i] = tile_w[at][(warp_m * MT + first_i + i) * 32 + lane];
#endif
                UNROLL for (int i = 0; i < PLUS_ROWS; i++) {
                    UNROLL for (int j = 0; j < PLUS_COLUMNS; j++) mma(sums[first_i + i][first_j + j], a[i], b[j]);
                }
                if (fetches) PLUS_STORE(part, at ^ 1)
                IN_ORDER;
            }
        }
        BARRIER;
        const float ratio = scales[3];
        UNROLL for (int i = 0; i < MT; i++) {
            UNROLL for (int j = 0; j < NT; j++) {
                UNROLL for (int r = 0; r < 4; r++) sums[i][j][r] *= ratio;
            }
        }
    }
#endif
    const int pooled_height = (height + 1) / 2, pooled_width = (width + 1) / 2;
    const int pooled_plane = pooled_height * pooled_width;
    const int chunks = channels / (KW * WIDTH), share = (chunks + splits - 1) / splits;
    const int first_chunk = GROUP_ID(2) * share;
    const int count = PASSES * (first_chunk + share < chunks ? share : chunks - first_chunk); /* may be 0 or less */
    const int steps = count > 0 ? count * SIDE : 0;

    int channel = first_chunk * KW * WIDTH; /* the first of the chunk that is fetched next */
    float fetched[ITEMS][NUMBERS];
    MASK marks[ITEMS][NUMBERS]; /* their bits or winners in the mask */

    /* A chunk is fetched in SIDE parts, one with each row of taps, so that little of it is in registers at a time. Numbers
       do not wait for their marks, which are looked at when they are stored: else each would be a branch to wait at. */
#define FETCH(part)                                                                                                 \
    {                                                                                                               \
        UNROLL for (int i_ = 0; i_ < ITEMS; i_++) {                                                      \
            const int item_ = id + ((part)*ITEMS + i_) * THREADS, at_ = item_ % AREA;                               \
            const int row_ = first_row + at_ / PITCH - SIDE / 2, column_ = first_column + at_ % PITCH - SIDE / 2;   \
            const int inside_ = item_ < COUNT && (uint)row_ < (uint)height && (uint)column_ < (uint)width;          \
            UNROLL for (int c_ = 0; c_ < NUMBERS; c_++) {                                                \
                const int line_ = (channel + item_ / AREA * NUMBERS + c_) * LINES + row_ / STEP;                    \
                float value_ = 0;                                                                                   \
                MASK mark_ = 0;                                                                                     \
                if (inside_) {                                                                                      \
                    value_ = x[line_ * LENGTH + column_ / STEP];                                                    \
                    mark_ = MARK;                                                                                   \
                }                                                                                                   \
                fetched[i_][c_] = value_;                                                                           \
                marks[i_][c_] = mark_;                                                                              \
            }                                                                                                       \
        }                                                                                                           \
    }
#if PROLOGUE == POOL_WINNERS
#define LINES pooled_height
#define LENGTH pooled_width
#define STEP 2
#define MARK mask[line_ * pooled_width + column_ / 2]
#define COUNTS(mark, row, column) ((mark) == (((row)&1) * 2 + ((column)&1)))
#else
#define LINES height
#define LENGTH width
#define STEP 1
#if PROLOGUE
#define MARK mask[line_ * across + (column_ >> 4)]
#define COUNTS(mark, row, column) (((mark)&1u << ((column)&15)) != 0)
#else
#define MARK 0
#define COUNTS(mark, row, column) 1
#endif
#endif
/* A number on its way into a word. Groups begin at even rows and at multiples of 16 columns, so its place in the patch
   says which mark counts. */
#define NUMBER(item, i, c)                                                                                          \
    (COUNTS(marks[i][c], (item) % AREA / PITCH - SIDE / 2, (item) % AREA % PITCH - SIDE / 2) ? fetched[i][c] * scales[0] : 0)

#if WGMMA
    /* A step is a row of taps of the words' weights and then, where numbers are split, of the rests'. While its products
       run, the weights of the next step but one come out of memory, and a part of the next chunk. */
#define STORE(part, buffer)                                                                                         \
    {                                                                                                               \
        UNROLL for (int i_ = 0; i_ < ITEMS; i_++) {                                                      \
            const int item_ = id + ((part)*ITEMS + i_) * THREADS, to_ = (buffer)*PARTS * COUNT + item_;             \
            if (item_ < COUNT) {                                                                                    \
                tile_x[to_] = ITEM(word, i_);                                                           \
                if (SPLIT) tile_x[to_ + COUNT] = ITEM(rest, i_);                                        \
            }                                                                                                       \
        }                                                                                                           \
    }
#define ITEM(kind, i) make_uint4(PAIR(kind, i, 0), PAIR(kind, i, 1), PAIR(kind, i, 2), PAIR(kind, i, 3))
#define PAIR(kind, i, k) kind(NUMBER(item_, i, (k)*WIDTH), NUMBER(item_, i, (k)*WIDTH + WIDTH - 1))

#define FETCH_WEIGHTS(set, step)                                                                                    \
    {                                                                                                               \
        const int from_ = ((step) < steps ? (step) : steps - 1) * blocks * BLOCK;                                   \
        UNROLL for (int t_ = 0; t_ < SIDE; t_++) a[(set)*SIDE + t_] = w[from_ + t_ * 32];                      \
    }

#define ROUND (SIDE * PARTS) /* steps of a chunk */
#define NEXT_CHUNK channel += KW * WIDTH;

    const int block = first_block + WARP < blocks ? first_block + WARP : blocks - 1;
    w += (first_chunk * PARTS * SIDE * blocks + block) * BLOCK + lane;
    if (steps > 0) {
        FETCH_WEIGHTS(0, 0)
        FETCH_WEIGHTS(1, 1)
        UNROLL for (int part = 0; part < SIDE; part++) {
            FETCH(part)
            STORE(part, 0)
        }
        NEXT_CHUNK
        if (ROUND < steps) FETCH(0)
    }
    PUBLISH
    int buffer = 0;
    for (int first_step = 0; first_step < steps; first_step += ROUND) {
        const ulong patch = DESCRIPTOR(SHARED_ADDRESS(tile_x, buffer * PARTS * COUNT), AREA, PITCH);
        UNROLL for (int r = 0; r < ROUND; r++) {
            PRODUCT_BEGIN;
            UNROLL for (int t = 0; t < SIDE * 2; t++) { /* taps, and halves of the patch's columns */
                const ulong at = patch + r % SIDE * PITCH + t / 2 + t % 2 * 8;
                PRODUCT(sums[0], t % 2, a[r % SIDE * SIDE + t / 2], at)
                if (SPLIT && r < SIDE) PRODUCT(sums[0], t % 2, a[r % SIDE * SIDE + t / 2], at + COUNT)
            }
            PRODUCT_COMMIT;
            /* After the first step's wait, no product reads the other buffer any more. */
            PRODUCT_WAIT(sums[0], 1, r == 0)
            FETCH_WEIGHTS((r + 2) % SIDE, first_step + r + 2)
            ANEW(id); /* all that comes of it has no place in registers */
            if (r < SIDE && first_step + ROUND < steps) {
                STORE(r, buffer ^ 1)
                if (r < SIDE - 1) FETCH(r + 1)
                else NEXT_CHUNK
            }
            if (r == ROUND - 1 && first_step + 2 * ROUND < steps) FETCH(0)
        }
        PUBLISH
        buffer ^= 1;
    }
    PRODUCT_WAIT(sums[0], 0, 0)
#else
#define STORE(part, buffer)                                                                                         \
    {                                                                                                               \
        UNROLL for (int i_ = 0; i_ < ITEMS; i_++) {                                                                 \
            const int item_ = id + ((part)*ITEMS + i_) * THREADS;                                                   \
            if (item_ < COUNT)                                                                                      \
                tile_x[buffer][item_ + item_ / AREA * (PLANE - AREA)] =                                             \
                    WORD(NUMBER(item_, i_, 0), NUMBER(item_, i_, WIDTH - 1));                                       \
        }                                                                                                           \
    }
#if SPLIT
#define WORD(first, second) (pass == 2 ? rest(first, second) : word(first, second))
#define WEIGHTS(chunk) ((chunk) / 3 * 2 + ((chunk) % 3 == 1))
#else
#define WORD(first, second) word(first, second)
#define WEIGHTS(chunk) (chunk)
#endif

#define NEXT_CHUNK                           \
    if (++pass == PASSES) {                  \
        pass = 0;                            \
        channel += KW * WIDTH;               \
    }

#define COPY_WEIGHTS(step, buffer)                                                                                  \
    {                                                                                                               \
        if ((step) < steps) {                                                                                       \
            UNROLL for (int i_ = 0; i_ < COPIES; i_++) {                                                            \
                const int quad_ = id + i_ * THREADS, valid_ = first_block + quad_ / BLOCK < blocks;                 \
                const int chunk_ = first_chunk * (SPLIT ? 2 : 1) + WEIGHTS((step) / SIDE);                          \
                const int from_ = ((chunk_ * SIDE + (step) % SIDE) * blocks + first_block) * BLOCK + quad_;         \
                if (quad_ < BM / 16 * BLOCK)                                                                        \
                    ASYNC_COPY(&tile_w[buffer][quad_], w + (valid_ ? from_ : 0), valid_);                       \
            }                                                                                                       \
        }                                                                                                           \
        ASYNC_COMMIT;                                                                                               \
    }

    int pass = 0; /* of the chunk of x that is fetched next */
    UNROLL for (int s = 0; s < STAGES - 1; s++) COPY_WEIGHTS(s, s)
    if (steps > 0) {
        NO_UNROLL for (int part = 0; part < SIDE; part++) {
            FETCH(part)
            STORE(part, 0)
        }
        NEXT_CHUNK
    }
    int tap_row = 0, chunk = 0, stage = 0, buffer = 0;
    for (int step = 0; step < steps; step++) {
        ASYNC_WAIT(STAGES - 2);
        BARRIER; /* this step's words are there, and the words of the step before are not read any more */
        {
            const int free_stage = stage == 0 ? STAGES - 1 : stage - 1;
            COPY_WEIGHTS(step + STAGES - 1, free_stage)
        }
        const int fetches = chunk + 1 < count && !(SPLIT && pass == 1); /* that pass has the words of the one before */
        if (ITEMS * NUMBERS > 2) ANEW(id); /* where much is fetched, all that comes of it has no place in registers */
        if (fetches) FETCH(tap_row)
        LOCAL_POINTER const uint *from_x = tile_x[buffer] + lane % 4 * PLANE + lane / 4 + tap_row * PITCH;
        UNROLL for (int t = 0; t < SIDE * (KW / 8); t++) {
            const int tap = t / (KW / 8), k = t % (KW / 8);
            uint4 a[MT];
            uint2 b[NT];
            UNROLL for (int i = 0; i < MT; i++)
                a[i] = tile_w[stage][(warp_m * MT + i) * BLOCK + t * 32 + lane];
            UNROLL for (int j = 0; j < NT; j++) {
                const int tile = warp_n * NT + j;
                LOCAL_POINTER const uint *at = from_x + k * 8 * PLANE + tile / 2 * PITCH + tile % 2 * 8 + tap;
                b[j].x = at[0];
                b[j].y = at[4 * PLANE];
            }
            MULTIPLY(sums, a, b, MT, NT)
        }
        if (fetches) STORE(tap_row, buffer ^ 1)
        if (++tap_row == SIDE) {
            tap_row = 0;
            chunk++;
            buffer ^= fetches;
            NEXT_CHUNK
        }
        if (++stage == STAGES) stage = 0;
    }

#endif

    const int tile = GROUP_ID(1) * GROUPS(0) + GROUP_ID(0);
    if (splits > 1) {
        parts += tile * splits * (MT * NT * THREADS) + LOCAL_ID;
        UNROLL for (int i = 0; i < MT * NT; i++) {
            const float(&four)[4] = sums[i / NT][i % NT];
            parts[(GROUP_ID(2) * (MT * NT) + i) * THREADS] = together(four[0], four[1], four[2], four[3]);
        }
        if (!comes_last(scratch + 2 + tile, splits, (LOCAL_POINTER uint *)tile_x)) return;
    }

    const int pools = epilogue == RELU_POOL;
    const float unscale = scales[1];
    uint top = 0;
    UNROLL for (int i = 0; i < MT; i++) {
        if (splits > 1) { /* the sums of all shares, a few at a time, for which there are registers */
            UNROLL for (int first = 0; first < NT; first += 4) {
                UNROLL for (int j = first; j < first + 4; j++)
                    SPREAD(sums[i][j], 0, FRESH(parts + (i * NT + j) * THREADS))
                NO_UNROLL for (int share = 1; share < splits; share++) {
                    UNROLL for (int j = first; j < first + 4; j++) {
                        const float4 more = FRESH(parts + ((share * MT + i) * NT + j) * THREADS);
                        sums[i][j][0] += more.x;
                        sums[i][j][1] += more.y;
                        sums[i][j][2] += more.z;
                        sums[i][j][3] += more.w;
                    }
                }
            }
        }
        UNROLL for (int half_ = 0; half_ < 2; half_++) {
            const int output = (first_block + warp_m * MT + i) * 16 + half_ * 8 + lane / 4, valid = output < outputs;
            const float shift = SIDE > 1 && valid ? bias[output] : 0;
            uint flags[(NT + 3) / 4];
            UNROLL for (int j = 0; j < (NT + 3) / 4; j++) flags[j] = 0;
#if SIDE > 1
            UNROLL for (int j = 0; j < NT; j += j % 2 ? 3 : 1) { /* two tiles of 8 columns, and the two a row below */
                const int tile = warp_n * NT + j;
                const int row = first_row + tile / 2, column = first_column + tile % 2 * 8 + lane % 4 * 2;
                const int to = output * pooled_plane + row / 2 * pooled_width + column / 2;
                if (pools && valid && row < height && column < width) {
                    float largest = sums[i][j][half_ * 2] * unscale + shift;
                    const float right = sums[i][j][half_ * 2 + 1] * unscale + shift;
                    const float below = sums[i][j + 2][half_ * 2] * unscale + shift;
                    const float corner = sums[i][j + 2][half_ * 2 + 1] * unscale + shift;
                    int winner = 0;
                    TAKE_LARGEST(largest, winner, column + 1 < width, row + 1 < height, right, below, corner)
                    y[to] = largest < 0 ? 0 : largest;
                    top = larger(top, magnitude(largest < 0 ? 0 : largest));
                    ((GLOBAL uchar *)bits)[to] = (uchar)(largest > 0 ? winner : 4);
                }
            }
#endif
            UNROLL for (int j = 0; j < NT; j++) {
                const int tile = warp_n * NT + j;
                const int row = first_row + tile / 2, column = first_column + tile % 2 * 8 + lane % 4 * 2;
                float first = sums[i][j][half_ * 2] * unscale + shift;
                float second = sums[i][j][half_ * 2 + 1] * unscale + shift;
                if (pools || !valid || row >= height || column >= width) continue;
                const int both = column + 1 < width;
                GLOBAL float *to = y + output * plane + row * width + column;
#if SIDE == 1
                if (accumulate) {
                    first += to[0];
                    if (both) second += to[1];
                }
#else
                if (epilogue != BIAS) {
                    flags[j / 4] |= (uint)((first > 0) | (both && second > 0) << 1) << (j % 4 * 8 + lane % 4 * 2);
                    first = first < 0 ? 0 : first; /* NaN stays */
                    second = second < 0 ? 0 : second;
                }
#endif
                top = larger(top, larger(magnitude(first), both ? magnitude(second) : 0));
                if (width % 2 == 0) {
                    float2 pair;
                    pair.x = first;
                    pair.y = second;
                    *(GLOBAL float2 *)to = pair;
                } else {
                    to[0] = first;
                    if (both) to[1] = second;
                }
            }
            UNROLL for (int j = 0; j < (NT + 3) / 4; j++) OR_OF_FOUR(flags[j])
            UNROLL for (int j = 0; j < NT; j += 2) {
                const int row = first_row + (warp_n * NT + j) / 2;
                if (epilogue == RELU_BITS && lane % 4 == 0 && valid && row < height)
                    bits[(output * height + row) * across + first_column / PW] = (ushort)(flags[j / 4] >> (j % 4 * 8));
            }
        }
    }
#if PRECISION == 2
    top = group_largest((LOCAL_POINTER uint *)tile_x, top, THREADS);
    if (id == 0) leave_largest(largest, scratch, top, GROUPS(0) * GROUPS(1));
#endif
}
