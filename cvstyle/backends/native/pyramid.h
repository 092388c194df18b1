/* Maps at half and at twice the size; see reference/optimizers.py. A row is an item, in strips of STRIP columns of
   the smaller map. */

enum { STRIP = 512 };

struct pyramid {
    const float *from;
    float *to, factor;
    int64_t height, width; /* of the larger map */
};

static void halve_item(void *context, int64_t item, int64_t thread)
{
    const struct pyramid *a = context;
    int64_t h = a->height, w = a->width, rows = up(h, 2), columns = up(w, 2), i = item % rows;
    const float *x = a->from + item / rows * h * w, *row[4];
    vf weight[4];
    for (int k = 0; k < 4; k++) {
        int64_t y = 2 * i - 1 + k;
        row[k] = x + MIN(MAX(y, 0), h - 1) * w;
        weight[k] = splat(y >= h && h % 2 ? 0 : k == 0 || k == 3 ? 0.125f : 0.375f);
    }
    for (int64_t first = 0; first < columns; first += STRIP) {
        int64_t n = MIN(STRIP, columns - first), start = 2 * first - 1; /* of line, in the larger map */
        float line[2 * STRIP + 2 + 2 * VL] = {0};
        for (int64_t j = MAX(start, 0), end = MIN(start + 2 * n + 2, w); j < end; j += VL) {
            vf sum = {0};
            UNROLL for (int k = 0; k < 4; k++)
                sum += weight[k] * load_n(row[k] + j, end - j);
            store(line + j - start, sum);
        }
        if (first == 0)
            line[0] = line[1];
        if (first + n == columns && w % 2 == 0)
            line[2 * n + 1] = line[2 * n];
        for (int64_t j = 0; j < n; j += VL) {
            const float *at = line + 2 * j;
            vf p = load(at), q = load(at + VL), r = load(at + 2), s = load(at + 2 + VL);
            vf outer = SHUFFLE(p, q, EVEN) + SHUFFLE(r, s, ODD), inner = SHUFFLE(p, q, ODD) + SHUFFLE(r, s, EVEN);
            store_n(a->to + item * columns + first + j, splat(0.125f) * outer + splat(0.375f) * inner, n - j);
        }
    }
    (void)thread;
}

static void add_doubled_item(void *context, int64_t item, int64_t thread)
{
    const struct pyramid *a = context;
    int64_t h = a->height, w = a->width, rows = up(h, 2), columns = up(w, 2), y = item % h, i = y / 2;
    const float *half = a->from + item / h * rows * columns, *near = half + i * columns;
    const float *far = half + (y % 2 ? MIN(i + 1, rows - 1) : MAX(i - 1, 0)) * columns;
    for (int64_t first = 0; first < columns; first += STRIP) {
        int64_t n = MIN(STRIP, columns - first), start = first - 1; /* of line */
        float line[STRIP + 2 + VL], *to = a->to + item * w + 2 * first;
        for (int64_t j = MAX(start, 0), end = MIN(start + n + 2, columns); j < end; j += VL)
            store(line + j - start,
                  splat(0.75f) * load_n(near + j, end - j) + splat(0.25f) * load_n(far + j, end - j));
        if (first == 0)
            line[0] = line[1];
        if (first + n == columns)
            line[n + 1] = line[n];
        for (int64_t j = 0; j < n; j += VL) {
            vf centre = splat(0.75f) * load(line + j + 1);
            vf even = centre + splat(0.25f) * load(line + j), odd = centre + splat(0.25f) * load(line + j + 2);
            vf low = SHUFFLE(even, odd, LOW), high = SHUFFLE(even, odd, HIGH), factor = splat(a->factor);
            int64_t left = w - 2 * (first + j);
            store_n(to + 2 * j, factor * load_n(to + 2 * j, left) + low, left);
            if (left > VL)
                store_n(to + 2 * j + VL, factor * load_n(to + 2 * j + VL, left - VL) + high, left - VL);
        }
    }
    (void)thread;
}

/* half (planes, ⌈height/2⌉, ⌈width/2⌉) ← x */
void NAME(halve)(const float *x, int64_t planes, int64_t height, int64_t width, float *half, int64_t threads)
{
    struct pyramid a = {x, half, 0, height, width};
    cvstyle_parallel(threads, planes * up(height, 2), halve_item, &a);
}

/* x ← factor · x + half at twice the size */
void NAME(add_doubled)(float *x, int64_t planes, int64_t height, int64_t width, float factor, const float *half,
                       int64_t threads)
{
    struct pyramid a = {half, x, factor, height, width};
    cvstyle_parallel(threads, planes * height, add_doubled_item, &a);
}
