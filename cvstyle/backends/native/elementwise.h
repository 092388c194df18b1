/* Gram matrices, reductions, and what else passes over whole arrays. */

enum { BLOCK = 1 << 14, GRAM_CHUNK = 1024, GRAM_ROWS = 4, GRAM_COLUMNS = VL == 16 ? 4 : 2, GRAM_BAND = 32 };

INLINE float sum_lanes(vf v)
{
    float s = 0;
    for (int i = 0; i < VL; i++)
        s += v[i];
    return s;
}

/* Gram: part p of the positions, a band of rows */

struct gram_run {
    const float *x;
    int64_t channels, positions, parts, per_part;
    float *sums; /* (parts, channels, channels), lower triangle */
};

INLINE void gram_tile(const float *const rows[GRAM_ROWS], const float *const columns[GRAM_COLUMNS], int64_t n,
                      float sums[GRAM_ROWS][GRAM_COLUMNS])
{
    vf acc[GRAM_ROWS][GRAM_COLUMNS];
    UNROLL for (int i = 0; i < GRAM_ROWS; i++)
        UNROLL for (int j = 0; j < GRAM_COLUMNS; j++)
            acc[i][j] = (vf){0};
    int64_t p = 0;
    for (; p + VL <= n; p += VL) {
        vf a[GRAM_ROWS], b[GRAM_COLUMNS];
        UNROLL for (int i = 0; i < GRAM_ROWS; i++)
            a[i] = load(rows[i] + p);
        UNROLL for (int j = 0; j < GRAM_COLUMNS; j++)
            b[j] = load(columns[j] + p);
        UNROLL for (int i = 0; i < GRAM_ROWS; i++)
            UNROLL for (int j = 0; j < GRAM_COLUMNS; j++)
                acc[i][j] += a[i] * b[j];
    }
    UNROLL for (int i = 0; i < GRAM_ROWS; i++)
        UNROLL for (int j = 0; j < GRAM_COLUMNS; j++) {
            float s = sum_lanes(acc[i][j]);
            for (int64_t q = p; q < n; q++)
                s += rows[i][q] * columns[j][q];
            sums[i][j] += s;
        }
}

static void gram_item(void *context, int64_t item, int64_t thread)
{
    const struct gram_run *run = context;
    int64_t bands = up(run->channels, GRAM_BAND), part = item / bands, band = (bands - 1 - item % bands) * GRAM_BAND;
    int64_t last = MIN((part + 1) * run->per_part, run->positions), c = run->channels;
    float *sums = run->sums + part * c * c;
    for (int64_t i = band; i < MIN(band + GRAM_BAND, c); i++)
        memset(sums + i * c, 0, c * sizeof(float));
    for (int64_t first = part * run->per_part; first < last; first += GRAM_CHUNK) {
        int64_t n = MIN(GRAM_CHUNK, last - first);
        for (int64_t i = band; i < MIN(band + GRAM_BAND, c); i += GRAM_ROWS)
            for (int64_t j = 0; j < MIN(i + GRAM_ROWS, c); j += GRAM_COLUMNS) {
                const float *rows[GRAM_ROWS], *columns[GRAM_COLUMNS];
                float tile[GRAM_ROWS][GRAM_COLUMNS] = {{0}};
                for (int k = 0; k < GRAM_ROWS; k++)
                    rows[k] = run->x + MIN(i + k, c - 1) * run->positions + first;
                for (int k = 0; k < GRAM_COLUMNS; k++)
                    columns[k] = run->x + MIN(j + k, c - 1) * run->positions + first;
                gram_tile(rows, columns, n, tile);
                for (int64_t k = 0; k < MIN(GRAM_ROWS, c - i); k++)
                    for (int64_t l = 0; l < MIN(GRAM_COLUMNS, c - j); l++)
                        sums[(i + k) * c + j + l] += tile[k][l];
            }
    }
    (void)thread;
}

static void gram_parts(int64_t channels, int64_t positions, int64_t *parts, int64_t *per_part)
{
    int64_t most = MAX(1, (1 << 20) / (channels * channels)); /* 4 MB of sums */
    int64_t chunks = up(positions, GRAM_CHUNK), count = MIN(MIN(16, most), chunks);
    *per_part = up(chunks, count) * GRAM_CHUNK;
    *parts = up(positions, *per_part);
}

int64_t NAME(gram_work)(int64_t channels, int64_t positions)
{
    int64_t parts, per_part;
    gram_parts(channels, positions, &parts, &per_part);
    return parts * channels * channels;
}

/* g (channels, channels) ← factor · x xᵀ */
void NAME(gram)(const float *x, int64_t channels, int64_t positions, float factor, float *g, float *work,
                int64_t threads)
{
    struct gram_run run = {x, channels, positions, 0, 0, work};
    gram_parts(channels, positions, &run.parts, &run.per_part);
    cvstyle_parallel(threads, run.parts * up(channels, GRAM_BAND), gram_item, &run);
    for (int64_t i = 0; i < channels; i++)
        for (int64_t j = 0; j <= i; j++) {
            float s = 0;
            for (int64_t p = 0; p < run.parts; p++)
                s += work[(p * channels + i) * channels + j];
            g[i * channels + j] = g[j * channels + i] = factor * s;
        }
}

/* Element-wise: blocks of BLOCK elements */

struct flat {
    const float *x, *z;
    float *y;
    uint8_t *bits;
    double *sums;
    float factor;
    int64_t size, planes, blocks; /* size: of one plane */
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
            store_n(y + i + j, maximum(v, (vf){0}), n - i - j);
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
    struct flat a = {.x = x, .y = y, .bits = bits, .size = size, .planes = planes, .blocks = up(size, BLOCK)};
    cvstyle_parallel(threads, planes * a.blocks, relu_item, &a);
}

/* y ← y where the bit is set, else 0. */
void NAME(relu_backward)(float *y, const uint8_t *bits, int64_t planes, int64_t size, int64_t threads)
{
    struct flat a = {.y = y, .bits = (uint8_t *)bits, .size = size, .planes = planes, .blocks = up(size, BLOCK)};
    cvstyle_parallel(threads, planes * a.blocks, relu_backward_item, &a);
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

/* Total variation, a row at a time; see numpy.Backend.total_variation */

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
