/* Gram matrices, reductions and other passes over whole arrays. */

enum { BLOCK = 1 << 14 };

INLINE float sum_lanes(vf v)
{
    float s = 0;
    for (int i = 0; i < VL; i++)
        s += v[i];
    return s;
}

/* Gram matrices: tiles of products of rows, summed along the positions in vectors. A part of the positions and a band
   of rows is one piece of work; its rows are copied, a chunk at a time, to where they share no cache sets. */

enum { GRAM_ROWS = 4, GRAM_COLUMNS = VL == 16 ? 4 : 2, GRAM_TILE = GRAM_ROWS * GRAM_COLUMNS, GRAM_BAND = 128 };

struct gram_run {
    const float *x;
    int64_t channels, positions, chunk, parts, per_part;
    int64_t tiles; /* to a row of tiles */
    float *sums;   /* (parts, rows of tiles, tiles, GRAM_TILE), those below the diagonal */
    float *rows;   /* per thread (channels rounded up, chunk) */
    float *g, factor;
};

/* sums += the products of GRAM_ROWS rows with GRAM_COLUMNS rows; n is a multiple of VL. */
INLINE void gram_tile(const float *rows, const float *columns, int64_t stride, int64_t n, float *sums)
{
    vf acc[GRAM_TILE];
    UNROLL for (int i = 0; i < GRAM_TILE; i++)
        acc[i] = (vf){0};
    for (int64_t p = 0; p < n; p += VL) {
        vf a[GRAM_ROWS], b[GRAM_COLUMNS];
        UNROLL for (int i = 0; i < GRAM_ROWS; i++)
            a[i] = load(rows + i * stride + p);
        UNROLL for (int j = 0; j < GRAM_COLUMNS; j++)
            b[j] = load(columns + j * stride + p);
        UNROLL for (int i = 0; i < GRAM_ROWS; i++)
            UNROLL for (int j = 0; j < GRAM_COLUMNS; j++)
                acc[i * GRAM_COLUMNS + j] += a[i] * b[j];
    }
    /* Pairs of neighbouring lanes are added until each vector is one lane. */
    int count = GRAM_TILE;
    UNROLL for (int lanes = VL; lanes > 1; lanes /= 2) {
        count /= 2;
        UNROLL for (int i = 0; i < count; i++)
            acc[i] = SHUFFLE(acc[2 * i], acc[2 * i + 1], EVEN) + SHUFFLE(acc[2 * i], acc[2 * i + 1], ODD);
    }
    UNROLL for (int i = 0; i < GRAM_TILE / VL; i++)
        store(sums + i * VL, load(sums + i * VL) + acc[i]);
}

static void gram_item(void *context, int64_t item, int64_t thread)
{
    const struct gram_run *run = context;
    int64_t c = run->channels, bands = up(c, GRAM_BAND), part = item / bands;
    int64_t band = (bands - 1 - item % bands) * GRAM_BAND, end = MIN(band + GRAM_BAND, up(c, GRAM_ROWS) * GRAM_ROWS);
    int64_t last = MIN((part + 1) * run->per_part, run->positions), stride = run->chunk + LINE;
    float *sums = run->sums + part * up(c, GRAM_ROWS) * run->tiles * GRAM_TILE;
    float *rows = run->rows + thread * (up(c, GRAM_ROWS) * GRAM_ROWS) * stride;
    for (int64_t i = band; i < end; i += GRAM_ROWS)
        memset(sums + i / GRAM_ROWS * run->tiles * GRAM_TILE, 0, run->tiles * GRAM_TILE * sizeof(float));
    for (int64_t first = part * run->per_part; first < last; first += run->chunk) {
        int64_t n = MIN(run->chunk, last - first);
        for (int64_t i = 0; i < end; i++)
            for (int64_t p = 0; p < n; p += VL) {
                const float *x = run->x + MIN(i, c - 1) * run->positions + first + p;
                __builtin_prefetch(x + 2 * run->positions); /* two rows ahead; beyond the last it does no harm */
                store(rows + i * stride + p, load_n(x, n - p));
            }
        for (int64_t i = band; i < end; i += GRAM_ROWS)
            for (int64_t j = 0; j < i + GRAM_ROWS; j += GRAM_COLUMNS)
                gram_tile(rows + i * stride, rows + j * stride, stride, up(n, VL) * VL,
                          sums + (i / GRAM_ROWS * run->tiles + j / GRAM_COLUMNS) * GRAM_TILE);
    }
}

/* LINE rows: so many, that the entries of g above the diagonal are written a cache line at a time. */
static void gram_sum_item(void *context, int64_t item, int64_t thread)
{
    const struct gram_run *run = context;
    int64_t c = run->channels, size = up(c, GRAM_ROWS) * run->tiles * GRAM_TILE, end = MIN((item + 1) * LINE, c);
    for (int64_t j = 0; j < end; j += GRAM_COLUMNS)
        for (int64_t i = MAX(item * LINE, j / GRAM_ROWS * GRAM_ROWS); i < end; i += GRAM_ROWS) {
            const float *at = run->sums + (i / GRAM_ROWS * run->tiles + j / GRAM_COLUMNS) * GRAM_TILE;
            float tile[GRAM_TILE];
            for (int k = 0; k < GRAM_TILE; k += VL) {
                vf sum = load(at + k);
                for (int64_t p = 1; p < run->parts; p++)
                    sum += load(at + p * size + k);
                store(tile + k, sum * splat(run->factor));
            }
            for (int64_t k = 0; k < MIN(GRAM_ROWS, end - i); k++)
                for (int64_t l = 0; l < MIN(GRAM_COLUMNS, i + k + 1 - j); l++)
                    run->g[(i + k) * c + j + l] = run->g[(j + l) * c + i + k] = tile[k * GRAM_COLUMNS + l];
        }
    (void)thread;
}

static struct gram_run gram_plan(int64_t channels, int64_t positions)
{
    struct gram_run run = {.channels = channels, .positions = positions};
    run.tiles = up(up(channels, GRAM_ROWS) * GRAM_ROWS, GRAM_COLUMNS);
    run.chunk = MAX(256, MIN(1024, (96 << 10) / channels / VL * VL)); /* 384 KB of rows where that can be */
    int64_t chunks = up(positions, run.chunk), most = MAX(1, (1 << 20) / (channels * channels)); /* 4 MB of sums */
    run.per_part = up(chunks, MIN(MIN(16, most), chunks)) * run.chunk;
    run.parts = up(positions, run.per_part);
    return run;
}

INLINE int64_t gram_sums(const struct gram_run *run)
{
    return run->parts * up(run->channels, GRAM_ROWS) * run->tiles * GRAM_TILE;
}

int64_t NAME(gram_work)(int64_t channels, int64_t positions, int64_t threads)
{
    struct gram_run run = gram_plan(channels, positions);
    return gram_sums(&run) + threads * up(channels, GRAM_ROWS) * GRAM_ROWS * (run.chunk + LINE);
}

/* g (channels, channels) ← factor · x xᵀ */
void NAME(gram)(const float *x, int64_t channels, int64_t positions, float factor, float *g, float *work,
                int64_t threads)
{
    struct gram_run run = gram_plan(channels, positions);
    run.x = x, run.g = g, run.factor = factor, run.sums = work, run.rows = work + gram_sums(&run);
    cvstyle_parallel(threads, run.parts * up(channels, GRAM_BAND), gram_item, &run);
    cvstyle_parallel(threads, up(channels, LINE), gram_sum_item, &run);
}

/* Element-wise: blocks of BLOCK elements */

struct flat {
    const float *x, *z;
    float *y;
    uint8_t *bits;
    double *sums;
    float factor, low, high;
    int64_t closed;
    int64_t size, blocks; /* size: of one plane */
};

/* The block that an item is: its first element in the plane and its length; returns the plane. */
INLINE int64_t block_of(const struct flat *a, int64_t item, int64_t *first, int64_t *count)
{
    *first = item % a->blocks * BLOCK;
    *count = MIN(BLOCK, a->size - *first);
    return item / a->blocks;
}

static void relu_item(void *context, int64_t item, int64_t thread)
{
    const struct flat *a = context;
    int64_t first, n, plane = block_of(a, item, &first, &n);
    const float *x = a->x + plane * a->size + first;
    float *y = a->y + plane * a->size + first;
    uint8_t *bits = a->bits + plane * up(a->size, 8) + first / 8;
    enum { STEP = VL < 8 ? 8 : VL };
    for (int64_t i = 0; i < n; i += STEP) {
        uint32_t word = 0;
        for (int64_t j = 0; j < STEP && i + j < n; j += VL) {
            vf v = load_n(x + i + j, n - i - j);
            word |= positive(v) << j;
            store_n(y + i + j, rectified(v), n - i - j);
        }
        memcpy(bits + i / 8, &word, up(MIN(STEP, n - i), 8)); /* little-endian */
    }
    (void)thread;
}

static void relu_backward_item(void *context, int64_t item, int64_t thread)
{
    const struct flat *a = context;
    int64_t first, n, plane = block_of(a, item, &first, &n);
    float *y = a->y + plane * a->size + first;
    const uint8_t *bits = a->bits + plane * up(a->size, 8) + first / 8;
    for (int64_t i = 0; i < n; i += VL) {
        uint32_t word = 0;
        memcpy(&word, bits + i / 8, up(MIN(VL, n - i), 8)); /* little-endian */
        store_n(y + i, where(lanes_of(word >> i % 8), load_n(y + i, n - i)), n - i);
    }
    (void)thread;
}

static void clip_item(void *context, int64_t item, int64_t thread)
{
    const struct flat *a = context;
    int64_t first, n;
    block_of(a, item, &first, &n);
    const float *x = a->x + first;
    float *y = a->y + first;
    uint8_t *bits = a->bits + first / 8;
    vf low = splat(a->low), high = splat(a->high);
    enum { STEP = VL < 8 ? 8 : VL };
    for (int64_t i = 0; i < n; i += STEP) {
        uint32_t word = 0;
        for (int64_t j = 0; j < STEP && i + j < n; j += VL) {
            vf v = load_n(x + i + j, n - i - j);
            vf raised = (vf)pick(v < low, (vi)low, (vi)v); /* NaN stays */
            vi inside = a->closed ? (v >= low) & (v <= high) : (v > low) & (v < high);
            word |= positive(where(inside, splat(1))) << j;
            store_n(y + i + j, (vf)pick(raised > high, (vi)high, (vi)raised), n - i - j);
        }
        memcpy(bits + i / 8, &word, up(MIN(STEP, n - i), 8)); /* little-endian */
    }
    (void)thread;
}

static void add_item(void *context, int64_t item, int64_t thread)
{
    const struct flat *a = context;
    int64_t first, n;
    block_of(a, item, &first, &n);
    const float *x = a->x + first;
    float *y = a->y + first;
    vf factor = splat(a->factor);
    for (int64_t i = 0; i < n; i += VL)
        store_n(y + i, load_n(y + i, n - i) + factor * load_n(x + i, n - i), n - i);
    (void)thread;
}

static void copy_item(void *context, int64_t item, int64_t thread)
{
    const struct flat *a = context;
    int64_t first, n;
    block_of(a, item, &first, &n);
    memcpy(a->y + first, a->x + first, n * sizeof(float));
    (void)thread;
}

static void dot_item(void *context, int64_t item, int64_t thread)
{
    const struct flat *a = context;
    int64_t first, n;
    block_of(a, item, &first, &n);
    const float *x = a->x + first, *z = a->z + first;
    vf sums[4] = {{0}};
    for (int64_t i = 0; i < n; i += 4 * VL)
        UNROLL for (int j = 0; j < 4; j++) {
            int64_t left = MAX(0, n - i - j * VL);
            sums[j] += load_n(x + i + j * VL, left) * load_n(z + i + j * VL, left);
        }
    a->sums[item] = (double)sum_lanes(sums[0]) + sum_lanes(sums[1]) + sum_lanes(sums[2]) + sum_lanes(sums[3]);
    (void)thread;
}

/* y ← max(x, 0), and bits of x > 0, packed plane by plane. x may be y. */
void NAME(relu)(const float *x, float *y, uint8_t *bits, int64_t planes, int64_t size, int64_t threads)
{
    struct flat a = {.x = x, .y = y, .bits = bits, .size = size, .blocks = up(size, BLOCK)};
    cvstyle_parallel(threads, planes * a.blocks, relu_item, &a);
}

/* y ← y where the bit is set, else 0. */
void NAME(relu_backward)(float *y, const uint8_t *bits, int64_t planes, int64_t size, int64_t threads)
{
    struct flat a = {.y = y, .bits = (uint8_t *)bits, .size = size, .blocks = up(size, BLOCK)};
    cvstyle_parallel(threads, planes * a.blocks, relu_backward_item, &a);
}

/* y ← x limited to low..high, and bits of what lies between, and on the limits if `closed`. x may be y. */
void NAME(clip)(const float *x, float *y, uint8_t *bits, float low, float high, int64_t closed, int64_t size,
                int64_t threads)
{
    struct flat a = {.x = x, .y = y, .bits = bits, .low = low, .high = high, .closed = closed, .size = size};
    a.blocks = up(size, BLOCK);
    cvstyle_parallel(threads, a.blocks, clip_item, &a);
}

/* y ← x */
void NAME(copy)(float *y, const float *x, int64_t size, int64_t threads)
{
    struct flat a = {.x = x, .y = y, .size = size, .blocks = up(size, BLOCK)};
    cvstyle_parallel(threads, a.blocks, copy_item, &a);
}

/* y ← y + factor · x */
void NAME(add_scaled)(float *y, float factor, const float *x, int64_t size, int64_t threads)
{
    struct flat a = {.x = x, .y = y, .factor = factor, .size = size, .blocks = up(size, BLOCK)};
    cvstyle_parallel(threads, a.blocks, add_item, &a);
}

/* Σ x·z, blocks summed in double precision. work: ⌈size / 16384⌉ doubles. */
double NAME(dot)(const float *x, const float *z, int64_t size, double *work, int64_t threads)
{
    struct flat a = {.x = x, .z = z, .sums = work, .size = size, .blocks = up(size, BLOCK)};
    double sum = 0;
    cvstyle_parallel(threads, a.blocks, dot_item, &a);
    for (int64_t i = 0; i < a.blocks; i++)
        sum += work[i];
    return sum;
}

struct panels {
    const float *matrix;
    float *out, factor;
    int64_t size;
};

static void panels_item(void *context, int64_t item, int64_t thread)
{
    const struct panels *a = context;
    for (int64_t row = item * LINE; row < MIN((item + 1) * LINE, a->size); row++)
        for (int64_t k = 0; k < a->size; k += PANEL)
            for (int64_t i = 0; i < PANEL; i++)
                a->out[k * a->size + row * PANEL + i] = k + i < a->size ? a->factor * a->matrix[row * a->size + k + i] : 0;
    (void)thread;
}

/* out (panels of rows, as `product` takes them) ← factor · a symmetric matrix, whose columns are its rows. */
void NAME(symmetric_panels)(const float *matrix, int64_t size, float factor, float *out, int64_t threads)
{
    struct panels a = {matrix, out, factor, size};
    cvstyle_parallel(threads, up(size, LINE), panels_item, &a);
}

/* Total variation, a row at a time; see base/losses.py */

struct variation {
    const float *x;
    float *out, weight;
    int64_t height, width;
    double *sums;
};

static void variation_item(void *context, int64_t item, int64_t thread)
{
    const struct variation *a = context;
    int64_t w = a->width, y = item % a->height;
    const float *x = a->x + item * w;
    float *out = a->out + item * w;
    double sum = 0;
    for (int64_t first = 0; first < w; first += 512) {
        float part = 0;
        for (int64_t i = first; i < MIN(first + 512, w); i++) {
            float g = 0;
            if (y + 1 < a->height && i + 1 < w) {
                float right = x[i] - x[i + 1], below = x[i] - x[i + w];
                part += right * right + below * below;
                g = right + below;
            }
            if (i && y + 1 < a->height)
                g += x[i] - x[i - 1];
            if (y && i + 1 < w)
                g += x[i] - x[i - w];
            out[i] += a->weight * g;
        }
        sum += part;
    }
    a->sums[item] = sum;
    (void)thread;
}

/* Adds the gradient to out and returns the value. x: (channels, height, width); work: channels · height doubles. */
double NAME(total_variation)(const float *x, int64_t channels, int64_t height, int64_t width, float weight, float *out,
                             double *work, int64_t threads)
{
    struct variation a = {x, out, weight, height, width, work};
    double sum = 0;
    cvstyle_parallel(threads, channels * height, variation_item, &a);
    for (int64_t i = 0; i < channels * height; i++)
        sum += work[i];
    return weight / 2 * sum;
}
