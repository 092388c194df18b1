/* L-BFGS (see optimize/lbfgs.py, reference/optimizers.py). Pairs are bfloat16, the upper half of a float, in rows of n;
   behind the rows of changes stands the last gradient, float, since a difference of rounded ones would be noise. Sums
   have PARTS parts of the vectors, whatever the threads. */

enum { STRETCH = 2048, PARTS = 64 };

typedef uint16_t vh __attribute__((vector_size(VL * 2)));
typedef uint16_t vh_any __attribute__((vector_size(VL * 2), aligned(2), may_alias));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));

INLINE vf load_half(const uint16_t *p, int64_t n)
{
    vh v = {0};
    if (n >= VL)
        v = *(const vh_any *)p;
    else
        memcpy(&v, p, n * sizeof(uint16_t));
    return (vf)(__builtin_convertvector(v, vu) << 16);
}

/* v rounded to bfloat16, ties to even. */
INLINE vf rounded(vf v) { return (vf)(((vu)v + 0x7fff + ((vu)v >> 16 & 1)) & 0xffff0000u); }

INLINE void store_half(uint16_t *p, vf v, int64_t n)
{
    vh half = __builtin_convertvector((vu)v >> 16, vh);
    if (n >= VL)
        *(vh_any *)p = half;
    else
        memcpy(p, &half, n * sizeof(uint16_t));
}

struct history {
    const float *g, *coefficients;
    float *x;
    uint16_t *steps, *changes;
    int64_t slot, rows, capacity, n, per_part;
    float share;
    double *sums;
};

static struct history history_of(struct history a)
{
    a.per_part = up(up(a.n, STRETCH), PARTS) * STRETCH;
    return a;
}

INLINE float *last_gradient(const struct history *a) { return (float *)(a->changes + a->capacity * a->n); }

/* Sums of each of the rows times y and g, where y and g are `count` floats, zero up to a whole vector. */
INLINE void row_products(const struct history *a, const uint16_t *rows, int64_t first, int64_t count, const float *y,
                         const float *g, double *sums)
{
    for (int64_t r = 0; r < a->rows; r++) {
        const uint16_t *row = rows + r * a->n + first;
        vf with_y[2] = {{0}}, with_g[2] = {{0}};
        for (int64_t i = 0; i < count; i += 2 * VL) {
            __builtin_prefetch(row + a->n + i); /* the next row: beyond the last it does no harm */
            UNROLL for (int j = 0; j < 2; j++) {
                vf v = load_half(row + i + j * VL, MAX(0, count - i - j * VL));
                with_y[j] += v * load(y + i + j * VL);
                with_g[j] += v * load(g + i + j * VL);
            }
        }
        sums[2 * r] += sum_lanes(with_y[0] + with_y[1]);
        sums[2 * r + 1] += sum_lanes(with_g[0] + with_g[1]);
    }
}

static void history_products_item(void *context, int64_t part, int64_t thread)
{
    const struct history *a = context;
    double *sums = a->sums + part * 4 * a->rows;
    memset(sums, 0, 4 * a->rows * sizeof(double));
    for (int64_t first = part * a->per_part; first < MIN(a->n, (part + 1) * a->per_part); first += STRETCH) {
        float y[STRETCH], g[STRETCH];
        int64_t count = MIN(STRETCH, a->n - first);
        uint16_t *change = a->changes + a->slot * a->n + first;
        memset(y, 0, sizeof y);
        memset(g, 0, sizeof g);
        for (int64_t i = 0; i < count; i += VL) {
            vf now = load_n(a->g + first + i, count - i);
            vf difference = rounded(now - load_n(last_gradient(a) + first + i, count - i));
            store(y + i, difference);
            store(g + i, now);
            store_half(change + i, difference, count - i);
        }
        row_products(a, a->steps, first, count, y, g, sums);
        row_products(a, a->changes, first, count, y, g, sums + 2 * a->rows);
    }
    (void)thread;
}

static void history_combine_item(void *context, int64_t part, int64_t thread)
{
    const struct history *a = context;
    double squares = 0;
    for (int64_t first = part * a->per_part; first < MIN(a->n, (part + 1) * a->per_part); first += STRETCH) {
        float step[STRETCH];
        int64_t count = MIN(STRETCH, a->n - first);
        vf factor = splat(a->coefficients[2 * a->capacity]), square = {0};
        for (int64_t i = 0; i < count; i += VL) {
            vf g = load_n(a->g + first + i, count - i);
            store(step + i, factor * g);
            store_n(last_gradient(a) + first + i, g, count - i);
        }
        for (int64_t r = 0; r < a->rows; r++) {
            const uint16_t *s = a->steps + r * a->n + first, *y = a->changes + r * a->n + first;
            vf of_s = splat(a->coefficients[r]), of_y = splat(a->coefficients[a->capacity + r]);
            for (int64_t i = 0; i < count; i += VL) {
                vf now = load(step + i) + of_s * load_half(s + i, count - i) + of_y * load_half(y + i, count - i);
                __builtin_prefetch(s + a->n + i);
                __builtin_prefetch(y + a->n + i);
                store(step + i, now);
            }
        }
        for (int64_t i = 0; i < count; i += VL) {
            vf v = rounded(load(step + i));
            store_half(a->steps + a->slot * a->n + first + i, v, count - i);
            square += v * v;
        }
        squares += sum_lanes(square);
    }
    a->sums[part] = squares;
    (void)thread;
}

static void history_advance_item(void *context, int64_t part, int64_t thread)
{
    const struct history *a = context;
    int64_t end = MIN(a->n, (part + 1) * a->per_part);
    for (int64_t i = part * a->per_part; i < end; i += VL) {
        uint16_t *at = a->steps + a->slot * a->n + i;
        vf step = load_half(at, end - i);
        if (a->share < 1) {
            step = rounded(splat(a->share) * step);
            store_half(at, step, end - i);
        }
        store_n(a->x + i, load_n(a->x + i, end - i) + step, end - i);
    }
    (void)thread;
}

/* See lbfgs_products in base/optimizers.py. products: (2, rows, 2); work: PARTS · 4 · rows doubles. */
void NAME(lbfgs_products)(const float *g, const uint16_t *steps, uint16_t *changes, int64_t slot, int64_t rows,
                          int64_t capacity, int64_t n, double *products, double *work, int64_t threads)
{
    struct history a = history_of((struct history){
        .g = g, .steps = (uint16_t *)steps, .changes = changes, .slot = slot, .rows = rows, .capacity = capacity, .n = n,
        .sums = work});
    int64_t parts = up(n, a.per_part);
    cvstyle_parallel(threads, parts, history_products_item, &a);
    for (int64_t i = 0; i < 4 * rows; i++) {
        products[i] = 0;
        for (int64_t part = 0; part < parts; part++)
            products[i] += work[part * 4 * rows + i];
    }
}

/* See lbfgs_step in base/optimizers.py. work: PARTS doubles. */
void NAME(lbfgs_step)(float *x, const float *g, uint16_t *steps, uint16_t *changes, const float *coefficients,
                      int64_t slot, int64_t rows, int64_t capacity, int64_t n, double max_norm, double *work,
                      int64_t threads)
{
    struct history a = history_of((struct history){
        .x = x, .g = g, .steps = steps, .changes = changes, .coefficients = coefficients, .slot = slot, .rows = rows,
        .capacity = capacity, .n = n, .sums = work, .share = 1});
    int64_t parts = up(n, a.per_part);
    double squares = 0;
    cvstyle_parallel(threads, parts, history_combine_item, &a);
    for (int64_t part = 0; part < parts; part++)
        squares += work[part];
    if (squares > max_norm * max_norm)
        a.share = max_norm / __builtin_sqrt(squares);
    cvstyle_parallel(threads, parts, history_advance_item, &a);
}
