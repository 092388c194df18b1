/* Convolutions of any kind, in both directions, and matrix products (a convolution of one tap).

   `product` gathers the inputs of NR outputs into a panel (im2col) that stays in the cache while all filters pass over
   it. `few` is for a few outputs to a group, where gathering would cost more than the arithmetic: it adds each tap's
   shifted row to the rows of output, channel by channel. */

enum { FEW = 4, FEW_ROWS = 8, FEW_VECTORS = 4, MOST_TAPS = 128 };

/* A run of outputs in one row of the picture. */
struct run {
    int64_t lane, count, y, x;
};

static int64_t runs_of(const struct general *a, int64_t first, int64_t count, struct run *runs)
{
    int64_t n = 0;
    for (int64_t lane = 0; lane < count; n++) {
        int64_t y = (first + lane) / a->out_width, x = (first + lane) % a->out_width;
        int64_t length = MIN(count - lane, a->out_width - x);
        runs[n] = (struct run){lane, length, y, x};
        lane += length;
    }
    return n;
}

/* panel[channel][tap][NR] ← the inputs that outputs `runs` see. */
static void gather(const struct general *a, const float *x, const struct run *runs, int64_t count, int64_t ahead,
                   float *panel)
{
    for (int64_t c = 0; c < a->channels; c++, x += a->height * a->width) {
        if (a->taps == 1 && c + 2 < a->channels) /* a channel's few lines are too short a run to be foreseen */
            for (int64_t i = 0; i < ahead; i += LINE)
                __builtin_prefetch(x + (2 * a->height + runs->y) * a->width + runs->x + i);
        for (int64_t t = 0; t < a->taps; t++, panel += NR)
            for (int64_t s = 0; s < count; s++) {
                const struct run *run = runs + s;
                float *out = panel + run->lane;
                int64_t y = run->y * a->step_y + a->dy[t], left = run->x * a->step_x + a->dx[t];
                if (y < 0 || y >= a->height) {
                    memset(out, 0, run->count * sizeof(float));
                    continue;
                }
                const float *row = x + y * a->width;
                if (a->step_x != 1) {
                    for (int64_t i = 0; i < run->count; i++) {
                        int64_t at = left + i * a->step_x;
                        out[i] = at >= 0 && at < a->width ? row[at] : 0;
                    }
                    continue;
                }
                int64_t lo = MIN(MAX(0, -left), run->count), hi = MAX(lo, MIN(run->count, a->width - left));
                for (int64_t i = 0; i < lo; i++)
                    out[i] = 0;
                int64_t i = lo;
                for (; i + VL <= hi; i += VL)
                    store(out + i, load(row + left + i));
                if (i < hi)
                    memcpy(out + i, row + left + i, (hi - i) * sizeof(float));
                for (i = hi; i < run->count; i++)
                    out[i] = 0;
            }
    }
}

struct product_run {
    const struct general *a;
    int64_t panels, panels_k, parts, per_part, span, spans; /* span: panels that are gathered together */
};

INLINE void product_store(const struct general *a, int64_t output, int64_t first, int64_t left, vf y)
{
    float *out = a->y + output * a->plane + first;
    if (a->bias)
        y += splat(a->bias[output]);
    if (a->relu)
        y = rectified(y);
    if (a->bits_out) {
        uint32_t bits = positive(y);
        uint8_t *at = a->bits_out + output * up(a->out_height * a->out_width, 8) + first / 8;
        if (VL < 8 && first % 8)
            *at |= bits << 4;
        else
            memcpy(at, &bits, up(MIN(VL, left), 8)); /* little-endian */
    }
    if (a->accumulate)
        y += load_n(out, left);
    store_n(out, y, left);
}

/* PANEL outputs from k on at `count` positions from `first` on. */
INLINE void product_tile(int nv, const struct general *a, int64_t group, int64_t k, int64_t first, int64_t count,
                         const float *w, const float *panel)
{
    int64_t depth = a->channels * a->taps, outputs = MIN(PANEL, a->outputs - k);
    int contiguous = a->column == 1 && a->row == a->out_width;
    k += group * a->outputs;
    if (contiguous)
        for (int64_t r = 0; r < outputs; r++)
            UNROLL for (int v = 0; v < nv; v++)
                __builtin_prefetch(a->y + (k + r) * a->plane + first + v * VL, 1);
    for (int half = 0; half < PANEL; half += ROWS) {
        vf acc[ROWS][NV];
        multiply(nv, 0, depth, w + half, panel, acc);
        if (contiguous) {
            UNROLL for (int r = 0; r < ROWS; r++)
                if (half + r < outputs)
                    UNROLL for (int v = 0; v < nv; v++)
                        product_store(a, k + half + r, first + v * VL, count - v * VL, acc[r][v]);
            continue;
        }
        float rows[ROWS][NR];
        UNROLL for (int r = 0; r < ROWS; r++)
            UNROLL for (int v = 0; v < nv; v++)
                store(rows[r] + v * VL, acc[r][v]);
        for (int64_t r = 0; r < ROWS && half + r < outputs; r++)
            for (int64_t i = 0; i < count; i++) {
                int64_t y = (first + i) / a->out_width, x = (first + i) % a->out_width;
                a->y[(k + half + r) * a->plane + y * a->row + x * a->column] = rows[r][i];
            }
    }
}

static void product_item(void *context, int64_t item, int64_t thread)
{
    const struct product_run *run = context;
    const struct general *a = run->a;
    int64_t depth = a->channels * a->taps, positions = a->out_height * a->out_width;
    int64_t part = item % run->parts, first_panel = item / run->parts % run->spans * run->span;
    int64_t group = item / run->parts / run->spans, count = MIN(run->span, run->panels - first_panel);
    float *panels = a->work + thread * run->span * depth * NR;
    for (int64_t p = 0; p < count; p++) {
        struct run runs[NR];
        int64_t first = (first_panel + p) * NR, n = runs_of(a, first, MIN(NR, positions - first), runs);
        gather(a, a->x + group * a->channels * a->height * a->width, runs, n, p ? 0 : count * NR,
               panels + p * depth * NR);
    }
    int64_t k = part * run->per_part, end = MIN(k + run->per_part, run->panels_k);
    for (; k < end; k++) {
        const float *w = a->weight + (group * run->panels_k + k) * depth * PANEL;
        for (int64_t p = 0; p < count; p++) {
            int64_t first = (first_panel + p) * NR, tiles = MIN(NR, positions - first);
            const float *panel = panels + p * depth * NR;
#if NV >= 3
            if (tiles > 2 * VL)
                product_tile(3, a, group, k * PANEL, first, tiles, w, panel);
            else
#endif
                if (tiles > VL)
                    product_tile(2, a, group, k * PANEL, first, tiles, w, panel);
                else
                    product_tile(1, a, group, k * PANEL, first, tiles, w, panel);
        }
    }
}

static struct product_run product_plan(const struct general *a)
{
    int64_t depth = a->channels * a->taps, most = (96 << 10) / (depth * NR); /* 384 KB of gathered inputs */
    struct product_run run = {a, up(a->out_height * a->out_width, NR), up(a->outputs, PANEL), 1, 0, 1, 0};
    run.span = MAX(1, MIN(most, MIN(8, run.panels * a->groups / (4 * a->threads))));
    run.spans = up(run.panels, run.span);
    int64_t items = run.spans * a->groups;
    if (items < 2 * a->threads) /* too few for the threads: each gathers for itself and takes some filters */
        run.parts = MIN(run.panels_k, up(2 * a->threads, items));
    run.per_part = up(run.panels_k, run.parts);
    return run;
}

int64_t NAME(product_work)(const struct general *a)
{
    return a->threads * product_plan(a).span * a->channels * a->taps * NR;
}

void NAME(product)(const struct general *a)
{
    struct product_run run = product_plan(a);
    cvstyle_parallel(a->threads, run.spans * a->groups * run.parts, product_item, &run);
}

/* Few outputs */

struct few_run {
    const struct general *a;
    int64_t top, left, rows;           /* the first tap, rows of input for FEW_ROWS of output */
    int64_t tall, wide;                /* one output whose taps fill a grid: its size; else tall is 0 */
    int64_t length, phase, line;       /* floats of a whole row, of one phase of the columns, of a row of phases */
    int64_t out_line, size;
    const int64_t *at;                 /* per tap: its place in the rows */
};

/* row[i] ← the input at (channel, y, x0 + i), zero outside and where the mask is. */
INLINE void few_row(const struct general *a, int64_t channel, int64_t y, int64_t x0, int64_t n, float *row)
{
    int64_t lo = MIN(MAX(0, -x0), n), hi = MAX(lo, MIN(n, a->width - x0));
    if (y < 0 || y >= a->height)
        lo = hi = 0;
    memset(row, 0, lo * sizeof(float));
    memset(row + hi, 0, (n - hi) * sizeof(float));
    const float *x = a->x + (channel * a->height + y) * a->width + x0;
    if (!a->mask) {
        for (int64_t i = lo; i < hi; i += VL)
            store_n(row + i, load_n(x + i, hi - i), hi - i);
        return;
    }
    const uint8_t *mask = a->mask + channel * up(a->height * a->width, 8);
    for (int64_t i = lo; i < hi; i += VL) {
        int64_t bit = y * a->width + x0 + i;
        uint32_t bits;
        memcpy(&bits, mask + bit / 8, sizeof bits);
        store_n(row + i, where(lanes_of(bits >> bit % 8), load_n(x + i, hi - i)), hi - i);
    }
}

INLINE void few_taps(int outputs, int nv, int64_t taps, const int64_t *at, const float *w, const float *in, float *out,
                     int64_t out_stride)
{
    vf acc[FEW][FEW_VECTORS];
    UNROLL for (int k = 0; k < outputs; k++)
        UNROLL for (int v = 0; v < nv; v++)
            acc[k][v] = load(out + k * out_stride + v * VL);
    for (int64_t t = 0; t < taps; t++, w += outputs) {
        const float *x = in + at[t];
        vf d[FEW_VECTORS];
        UNROLL for (int v = 0; v < nv; v++)
            d[v] = load(x + v * VL);
        UNROLL for (int k = 0; k < outputs; k++) {
            vf factor = splat(w[k]);
            UNROLL for (int v = 0; v < nv; v++)
                acc[k][v] += factor * d[v];
        }
    }
    UNROLL for (int k = 0; k < outputs; k++)
        UNROLL for (int v = 0; v < nv; v++)
            store(out + k * out_stride + v * VL, acc[k][v]);
}

/* The same for one output whose taps fill a grid, FEW_ROWS rows at once, so that a vector, once loaded, serves up to `tall`
   rows: loads that are not aligned take longer than the arithmetic. grid: (wide, tall). */
INLINE void few_grid(int tall, const struct few_run *run, const float *grid, const float *in, float *out)
{
    enum { V = VL == 16 ? 2 : 1 };
    for (int64_t x = 0; x < run->a->out_width; x += V * VL) {
        vf acc[FEW_ROWS][V];
        UNROLL for (int y = 0; y < FEW_ROWS; y++)
            UNROLL for (int v = 0; v < V; v++)
                acc[y][v] = load(out + y * run->out_line + x + v * VL);
        for (int64_t c = 0; c < run->wide; c++) {
            vf w[7];
            UNROLL for (int i = 0; i < tall; i++)
                w[i] = splat(grid[c * tall + i]);
            UNROLL for (int r = 0; r < FEW_ROWS + tall - 1; r++) {
                vf d[V];
                UNROLL for (int v = 0; v < V; v++)
                    d[v] = load(in + r * run->line + x + c + v * VL);
                UNROLL for (int y = 0; y < FEW_ROWS; y++)
                    if (y <= r && r - y < tall)
                        UNROLL for (int v = 0; v < V; v++)
                            acc[y][v] += w[r - y] * d[v];
            }
        }
        UNROLL for (int y = 0; y < FEW_ROWS; y++)
            UNROLL for (int v = 0; v < V; v++)
                store(out + y * run->out_line + x + v * VL, acc[y][v]);
    }
}

INLINE void few_channel(int outputs, const struct few_run *run, const float *w, const float *in, float *out,
                        int64_t rows)
{
    const struct general *a = run->a;
    enum { WIDE = VL == 16 ? FEW_VECTORS : 2 };
    for (int64_t y = 0; y < rows; y++) {
        const float *from = in + y * a->step_y * run->line;
        float *to = out + y * run->out_line;
        int64_t x = 0;
        for (; x + VL < a->out_width; x += WIDE * VL)
            few_taps(outputs, WIDE, a->taps, run->at, w, from + x, to + x, FEW_ROWS * run->out_line);
        for (; x < a->out_width; x += VL)
            few_taps(outputs, 1, a->taps, run->at, w, from + x, to + x, FEW_ROWS * run->out_line);
    }
}

static void few_item(void *context, int64_t item, int64_t thread)
{
    const struct few_run *run = context;
    const struct general *a = run->a;
    int64_t blocks = up(a->out_height, FEW_ROWS), group = item / blocks, y0 = item % blocks * FEW_ROWS;
    int64_t rows = MIN(FEW_ROWS, a->out_height - y0), outputs = a->outputs;
    int64_t in_rows = rows == FEW_ROWS || run->tall ? run->rows : run->rows - (FEW_ROWS - rows) * a->step_y;
    float *out = a->work + thread * run->size, *in = out + outputs * FEW_ROWS * run->out_line;
    float *whole = in + run->rows * run->line;
    for (int64_t k = 0; k < outputs; k++) {
        float bias = a->bias ? a->bias[group * outputs + k] : 0;
        for (int64_t i = 0; i < FEW_ROWS * run->out_line; i++)
            out[k * FEW_ROWS * run->out_line + i] = bias;
    }
    for (int64_t c = 0; c < a->channels; c++) {
        int64_t channel = group * a->channels + c;
        for (int64_t r = 0; r < in_rows; r++) {
            int64_t y = y0 * a->step_y + run->top + r;
            float *row = in + r * run->line;
            /* The same row of the next channel; of the last one, the row that this one's next block begins with. */
            int64_t ahead = c + 1 < a->channels ? y + a->height : y + FEW_ROWS * a->step_y;
            if (y >= 0 && y < a->height)
                for (int64_t x = 0; x < a->width; x += LINE)
                    __builtin_prefetch(a->x + (channel * a->height + ahead) * a->width + x);
            if (a->step_x == 1) {
                few_row(a, channel, y, run->left, run->length, row);
                continue;
            }
            few_row(a, channel, y, run->left, run->length, whole);
            for (int64_t p = 0; p < a->step_x; p++)
                for (int64_t i = p, j = 0; i < run->length; i += a->step_x, j++)
                    row[p * run->phase + j] = whole[i];
        }
        const float *w = a->weight + channel * a->taps * outputs;
        if (run->tall) {
            float grid[MOST_TAPS];
            for (int64_t t = 0; t < a->taps; t++)
                grid[(a->dx[t] - run->left) * run->tall + a->dy[t] - run->top] = w[t];
            if (run->tall == 3)
                few_grid(3, run, grid, in, out);
            else if (run->tall == 5)
                few_grid(5, run, grid, in, out);
            else
                few_grid(7, run, grid, in, out);
        } else if (outputs == 1)
            few_channel(1, run, w, in, out, rows);
        else if (outputs == 2)
            few_channel(2, run, w, in, out, rows);
        else if (outputs == 3)
            few_channel(3, run, w, in, out, rows);
        else
            few_channel(4, run, w, in, out, rows);
    }
    for (int64_t k = 0; k < outputs; k++)
        for (int64_t y = 0; y < rows; y++) {
            const float *from = out + (k * FEW_ROWS + y) * run->out_line;
            float *to = a->y + (group * outputs + k) * a->plane + (y0 + y) * a->row;
            if (a->column == 1)
                memcpy(to, from, a->out_width * sizeof(float));
            else
                for (int64_t x = 0; x < a->out_width; x++)
                    to[x * a->column] = from[x];
        }
}

static void few_plan(const struct general *a, struct few_run *run)
{
    int64_t bottom = INT64_MIN, right = INT64_MIN;
    run->a = a;
    run->top = run->left = INT64_MAX;
    for (int64_t t = 0; t < a->taps; t++) {
        run->top = MIN(run->top, a->dy[t]);
        run->left = MIN(run->left, a->dx[t]);
        bottom = MAX(bottom, a->dy[t]);
        right = MAX(right, a->dx[t]);
    }
    int64_t tall = bottom - run->top + 1, wide = right - run->left + 1;
    int grid = a->outputs == 1 && a->step_y == 1 && a->step_x == 1 && tall * wide == a->taps && a->taps <= MOST_TAPS;
    run->wide = wide;
    run->tall = grid && wide > 1 && (tall == 3 || tall == 5 || tall == 7) ? tall : 0;
    enum { SLACK = FEW_VECTORS * VL };
    run->rows = (FEW_ROWS - 1) * a->step_y + bottom - run->top + 1;
    run->length = (a->out_width - 1) * a->step_x + right - run->left + 1;
    run->phase = up(run->length, a->step_x) + SLACK;
    run->line = a->step_x * run->phase;
    run->out_line = a->out_width + SLACK;
    run->size = a->outputs * FEW_ROWS * run->out_line + run->rows * run->line + run->length + SLACK;
    run->size = up(run->size, LINE) * LINE;
}

int64_t NAME(few_work)(const struct general *a)
{
    struct few_run run;
    few_plan(a, &run);
    return a->threads * run.size;
}

void NAME(few)(const struct general *a)
{
    struct few_run run;
    int64_t at[a->taps];
    few_plan(a, &run);
    for (int64_t t = 0; t < a->taps; t++) {
        int64_t x = a->dx[t] - run.left;
        at[t] = (a->dy[t] - run.top) * run.line + x % a->step_x * run.phase + x / a->step_x;
    }
    run.at = at;
    cvstyle_parallel(a->threads, a->groups * up(a->out_height, FEW_ROWS), few_item, &run);
}
