/* 3×3 convolutions by Winograd's F(4×4, 3×3) (Lavin and Gray 2016) at the points 0, ±5/8, ±3/2, ∞, which round half as
   much as 0, ±1, ±2, ∞ (docs/performance.md).

   A tile is 4×4 outputs from 6×6 inputs; the 36 transformed elements ("frequencies") of all channels are multiplied by
   36 matrices of transformed filters. NR tiles form a panel. Three ways to go through the work, of the same pieces:
   where there are many tiles each thread takes whole panels, whose data stays in its cache; where there are few, or the
   filters are many, each takes groups of outputs on a block of panels; where the groups are fewer than that asks for, all
   threads do one piece after the other. */

enum { FREQUENCIES = 36, TILE = 4, ROW = TILE * NR + 8 * VL, GROUP_OWN = 32, GROUP_SHARED = 64, CHUNK = 8,
       ACROSS = 256 };

struct winograd_run {
    const struct winograd *a;
    int64_t tiles_x, tiles, panels, panels_k;
    float *u, *v, *m;
    int64_t stride_u, stride_v, stride_m;             /* between frequencies */
    int64_t size_v, size_m;                           /* of one panel */
    int64_t first_panel, block, first_k, group;       /* shared: the panels and filters at hand */
    int64_t most, groups;                             /* panels at a time; groups that a thread does alone, or none */
};

/* Filters */

INLINE void thirds(vf a, vf b, vf c, vf *out, int stride)
{
    out[0] = SHUFFLE(SHUFFLE(a, b, THIRD_0), c, REST_0);
    out[stride] = SHUFFLE(SHUFFLE(a, b, THIRD_1), c, REST_1);
    out[2 * stride] = SHUFFLE(SHUFFLE(a, b, THIRD_2), c, REST_2);
}

/* g[t] ← tap t of `count` filters that lie one after the other, zero beyond. */
INLINE void load_taps(const float *w, int64_t count, vf g[9])
{
    vf third[9]; /* [remainder by 3][part] */
    float some[9 * VL];
    if (count < VL) {
        memset(some, 0, sizeof some);
        memcpy(some, w, MAX(0, count) * 9 * sizeof(float));
        w = some;
    }
    UNROLL for (int part = 0; part < 3; part++)
        thirds(load(w + 3 * part * VL), load(w + (3 * part + 1) * VL), load(w + (3 * part + 2) * VL), third + part, 3);
    UNROLL for (int j = 0; j < 3; j++)
        thirds(third[3 * j], third[3 * j + 1], third[3 * j + 2], g + j, 3);
}

/* The points, and the coefficients that follow from them; all but the divisions are exact. */
#define A 0.625f
#define B 1.5f
#define AA (A * A)
#define BB (B * B)

INLINE void filter_column(const vf g[3], vf t[6])
{
    const float a = 1 / (2 * AA * (AA - BB)), b = 1 / (2 * BB * (BB - AA));
    vf even = splat(a) * g[0] + splat(a * AA) * g[2], odd = splat(a * A) * g[1];
    vf outer = splat(b) * g[0] + splat(b * BB) * g[2], middle = splat(b * B) * g[1];
    t[0] = g[0] * splat(1 / (AA * BB));
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = outer + middle;
    t[4] = outer - middle;
    t[5] = g[2];
}

/* The transform of VL filters, frequency f at u + f · stride; flip: of the filters turned by 180°. Where `next` is given,
   only PANEL lanes lie there, and further lanes of a vector `next` further on. */
INLINE void filter_transform(const vf g[9], int64_t flip, float *u, int64_t stride, int64_t next)
{
    vf t[3][6];
    UNROLL for (int j = 0; j < 3; j++) {
        vf column[3] = {g[j], g[3 + j], g[6 + j]}, turned[3] = {g[8 - j], g[5 - j], g[2 - j]};
        if (flip)
            filter_column(turned, t[j]);
        else
            filter_column(column, t[j]);
    }
    UNROLL for (int i = 0; i < 6; i++) {
        vf row[3] = {t[0][i], t[1][i], t[2][i]}, p[6];
        filter_column(row, p);
        UNROLL for (int j = 0; j < 6; j++, u += stride)
            if (next && VL > PANEL) {
                memcpy(u, &p[j], PANEL * sizeof(float));
                memcpy(u + next, (const char *)&p[j] + PANEL * sizeof(float), PANEL * sizeof(float));
            } else
                store(u, p[j]);
    }
}

/* Whether filters lie one after the other along the channels (`across` of the product), or along the outputs. */
INLINE int filters_across(const struct winograd *a) { return a->input_step == 9; }

/* Transform the group's filters for channels c0..c1-1: of one panel where they lie along the channels. */
static void transform_across(const struct winograd_run *run, int64_t panel, int64_t c0, int64_t c1)
{
    enum { AHEAD = 4 };
    const struct winograd *a = run->a;
    int64_t first = run->first_k + panel * PANEL;
    for (int64_t k = 0; k < PANEL; k++)
        for (int64_t c = c0; c < c1; c += VL) {
            const float *w = a->weight + (first + k) * a->output_step + c * 9;
            vf g[9];
            for (int64_t i = 0; i <= 9 * VL; i += LINE)
                __builtin_prefetch(w + AHEAD * 9 * VL + i);
            load_taps(w, first + k < a->outputs ? MIN(VL, a->channels - c) : 0, g);
            filter_transform(g, a->flip, run->u + panel * panel_size(1, a->channels) + c * PANEL + k * VL,
                             run->stride_u, 0);
        }
}

/* Of all outputs where they lie along the outputs: one run of memory for each channel. */
static void transform_along(const struct winograd_run *run, int64_t c0, int64_t c1)
{
    enum { AHEAD = 2 };
    const struct winograd *a = run->a;
    int64_t panel = panel_size(0, a->channels);
    for (int64_t c = c0; c < c1; c++)
        for (int64_t k = 0; k < run->group; k += VL) {
            const float *w = a->weight + (run->first_k + k) * 9 + c * a->input_step;
            vf g[9];
            for (int64_t i = 0; i <= 9 * VL; i += LINE)
                __builtin_prefetch(w + AHEAD * a->input_step + i);
            load_taps(w, MIN(VL, a->outputs - run->first_k - k), g);
            filter_transform(g, a->flip, run->u + k / PANEL * panel + c * PANEL + k % PANEL, run->stride_u, panel);
        }
}

/* Inputs */

/* Bytes that the bits of one of a channel's four rows in every tile take. */
INLINE int64_t bits_row(int64_t height, int64_t width) { return up(up(height, TILE) * up(width, TILE), NR) * NR / 2; }

/* row[i] ← the map at (channel c, row y, column x0 + i) for i in 0..n-1, zero outside; writes up to 2 VL beyond and
   one before. */
INLINE void load_row(const struct winograd *a, int64_t c, int64_t y, int64_t x0, int64_t n, float *row)
{
    int64_t lo = MIN(MAX(0, -x0), n), hi = MAX(lo, MIN(n, a->width - x0));
    if (y < 0 || y >= a->height || (a->source == 2 && y / 2 >= a->pooled_height)) {
        memset(row, 0, n * sizeof(float));
        return;
    }
    if (a->source == 2) {
        hi = MAX(lo, MIN(hi, 2 * a->pooled_width - x0));
        int64_t from = (x0 + lo) / 2, at = (c * a->pooled_height + y / 2) * a->pooled_width + from;
        const float *g = a->x + at;
        const uint8_t *winner = (const uint8_t *)a->saved + at;
        float *out = row + 2 * from - x0;
        int64_t count = up(x0 + hi, 2) - from;
        int32_t left = (y & 1) * 2;
        for (int64_t i = 0; i < count; i += VL) {
            vb codes = {0};
            if (count - i >= VL)
                codes = *(const vb_any *)(winner + i);
            else
                memcpy(&codes, winner + i, count - i);
            vi code = __builtin_convertvector(codes, vi);
            vf v = load_n(g + i, count - i), even = where(code == left, v), odd = where(code == left + 1, v);
            store(out + 2 * i, SHUFFLE(even, odd, LOW));
            store(out + 2 * i + VL, SHUFFLE(even, odd, HIGH));
        }
    } else {
        const float *x = a->x + (c * a->height + y) * a->width + x0;
        if (a->source == 1) {
            int64_t height = a->height + a->saved_y, width = a->width + a->saved_x, row_y = y + a->saved_y;
            const uint8_t *bits = (const uint8_t *)a->saved + (4 * c + row_y % TILE) * bits_row(height, width);
            int64_t start = row_y / TILE * up(width, TILE) * TILE + x0 + a->saved_x;
            for (int64_t i = lo; i < hi; i += VL) {
                uint32_t word;
                memcpy(&word, bits + (start + i) / 8, sizeof word); /* little-endian */
                store(row + i, where(lanes_of(word >> (start + i) % 8), load_n(x + i, hi - i)));
            }
        } else
            for (int64_t i = lo; i < hi; i += VL)
                store(row + i, load_n(x + i, hi - i));
    }
    for (int64_t i = 0; i < lo; i++)
        row[i] = 0;
    for (int64_t i = hi; i < n; i++)
        row[i] = 0;
}

/* Prefetch the input of load_row: a channel's rows are too short for the processor to foresee. */
INLINE void prefetch_row(const struct winograd *a, int64_t c, int64_t y, int64_t x, int64_t n)
{
    int64_t scale = a->source == 2 ? 2 : 1, rows = a->source == 2 ? a->pooled_height : a->height;
    int64_t width = a->source == 2 ? a->pooled_width : a->width, last = MIN(up(x + n, scale), width);
    if (y < 0 || y / scale >= rows || y % scale)
        return;
    for (int64_t i = MAX(0, x / scale); i < last + LINE; i += LINE)
        __builtin_prefetch(a->x + (c * rows + y / scale) * width + i);
}

INLINE void input_transform(const vf d[6], vf t[6])
{
    vf a = splat(A), b = splat(B), aa = splat(AA), bb = splat(BB), sum = splat(AA + BB), product = splat(AA * BB);
    vf p = d[4] - bb * d[2], q = d[3] - bb * d[1], r = d[4] - aa * d[2], s = d[3] - aa * d[1];
    t[0] = product * d[0] - sum * d[2] + d[4];
    t[1] = p + a * q;
    t[2] = p - a * q;
    t[3] = r + b * s;
    t[4] = r - b * s;
    t[5] = product * d[1] - sum * d[3] + d[5];
}

/* The horizontal half of the transform for n tiles from tile i of the rows on. */
INLINE void transform_rows(const float buffer[6][VL + ROW], int64_t i, float *out, int64_t stride, int64_t n)
{
    for (int r = 0; r < 6; r++) {
        const float *row = buffer[r] + VL + TILE * i;
        vf a0 = load(row), a1 = load(row + VL), a2 = load(row + 2 * VL), a3 = load(row + 3 * VL);
        vf even0 = SHUFFLE(a0, a1, EVEN), even1 = SHUFFLE(a2, a3, EVEN);
        vf odd0 = SHUFFLE(a0, a1, ODD), odd1 = SHUFFLE(a2, a3, ODD);
        vf d[6] = {
            SHUFFLE(even0, even1, EVEN), SHUFFLE(odd0, odd1, EVEN),
            SHUFFLE(even0, even1, ODD), SHUFFLE(odd0, odd1, ODD),
        }, t[6];
        d[4] = SHUFFLE(d[0], splat(row[TILE * VL]), NEXT);
        d[5] = SHUFFLE(d[1], splat(row[TILE * VL + 1]), NEXT);
        input_transform(d, t);
        float *p = out + 6 * r * stride;
        UNROLL for (int j = 0; j < 6; j++)
            store_n(p + j * stride, t[j], n);
    }
}

/* Transform the tiles of one panel for channels c0..c1-1 into v[frequency][channel][NR]. */
static void transform_inputs(const struct winograd_run *run, int64_t panel, int64_t c0, int64_t c1, float *v)
{
    const struct winograd *a = run->a;
    enum { AHEAD = 3 };
    /* Finite, also where nothing is loaded. Aligned here, since Windows aligns thread-local memory to 16 bytes. */
    static _Thread_local float room[6 * (VL + ROW) + LINE];
    float(*buffer)[VL + ROW] = (void *)(((uintptr_t)room + 63) & ~(uintptr_t)63);
    int64_t first = panel * NR, last = MIN(first + NR, run->tiles);
    for (int64_t c = c0; c < c1; c++)
        for (int64_t tile = first, n; tile < last; tile += n) {
            int64_t ty = tile / run->tiles_x, tx = tile % run->tiles_x;
            n = MIN(last - tile, run->tiles_x - tx);
            for (int r = 0; r < 6; r++) {
                int64_t y = TILE * ty + r - a->pad_top - a->shift_y, x = TILE * tx - a->pad_left - a->shift_x;
                if (c + AHEAD < c1)
                    prefetch_row(a, c + AHEAD, y, x, TILE * n + 2);
                load_row(a, c, y, x, TILE * n + 2, buffer[r] + VL);
            }
            for (int64_t x = VL; x < VL + TILE * n + 2; x += VL) {
                vf d[6], t[6];
                UNROLL for (int r = 0; r < 6; r++)
                    d[r] = load(buffer[r] + x);
                input_transform(d, t);
                UNROLL for (int r = 0; r < 6; r++)
                    store(buffer[r] + x, t[r]);
            }
            float *out = v + c * NR + tile - first;
            int64_t i = 0;
            for (; i + VL <= n; i += VL)
                transform_rows(buffer, i, out + i, run->stride_v, VL);
            if (i < n)
                transform_rows(buffer, i, out + i, run->stride_v, n - i);
        }
}

/* Products */

INLINE void multiply_vectors(int vectors, int across, int64_t depth, const float *w, const float *v, float *m)
{
    if (vectors == 1)
        multiply_store(1, across, depth, w, v, m);
    else if (vectors == 2)
        multiply_store(2, across, depth, w, v, m);
    else
        multiply_store(NV, across, depth, w, v, m);
}

/* m[k][NR] ← Σ_c u[k][c] v[c][NR] for one frequency and panels of outputs k0..k1-1 of u. */
static void multiply_panels(const struct winograd_run *run, int64_t k0, int64_t k1, int64_t tiles, const float *u,
                            const float *v, float *m)
{
    int across = filters_across(run->a), vectors = up(tiles, VL);
    for (int64_t k = k0; k < k1; k++, m += PANEL * NR) {
        const float *w = u + k * panel_size(across, run->a->channels);
        if (across)
            multiply_vectors(vectors, 1, run->a->channels, w, v, m);
        else
            multiply_vectors(vectors, 0, run->a->channels, w, v, m);
    }
}

/* Outputs */

INLINE void output_transform(const vf m[6], vf o[4])
{
    vf sum = m[1] + m[2], difference = m[1] - m[2], outer = m[3] + m[4], outer_difference = m[3] - m[4];
    o[0] = m[0] + sum + outer;
    o[1] = splat(A) * difference + splat(B) * outer_difference;
    o[2] = splat(AA) * sum + splat(BB) * outer;
    o[3] = splat(AA * A) * difference + splat(BB * B) * outer_difference + m[5];
}

/* The places of up to VL tiles, in a row of tiles or in several. */
struct segment {
    int64_t lane, count, ty, tx;
};

INLINE int segments_of(const struct winograd_run *run, int64_t tile, int64_t count, struct segment *segments)
{
    int n = 0;
    for (int64_t lane = 0; lane < count; n++) {
        int64_t ty = (tile + lane) / run->tiles_x, tx = (tile + lane) % run->tiles_x;
        int64_t length = MIN(count - lane, run->tiles_x - tx);
        segments[n] = (struct segment){lane, length, ty, tx};
        lane += length;
    }
    return n;
}

/* Prefetch the rows that store_tiles will write. */
INLINE void prefetch_tiles(const struct winograd *a, int64_t k, const struct segment *segments, int count)
{
    for (int s = 0; s < count; s++) {
        int64_t y = TILE * segments[s].ty - a->shift_y, x = TILE * segments[s].tx - a->shift_x;
        int64_t end = MIN(x + TILE * segments[s].count, a->out_width);
        for (int64_t row = MAX(0, y); row < MIN(y + TILE, a->out_height); row++)
            for (int64_t i = x; i < end + LINE; i += LINE)
                __builtin_prefetch(a->y + (k * a->out_height + row) * a->out_width + i, 1);
    }
}

/* 4 rows of outputs, interleaved, to their places. */
INLINE void store_tiles(const struct winograd *a, int64_t k, int64_t tile, vf o[4][4], const struct segment *segments,
                        int count)
{
    float *plane = a->y + k * a->out_height * a->out_width;
    int64_t line = bits_row(a->out_height + a->shift_y, a->out_width + a->shift_x);
    float rows[4][4 * VL] __attribute__((aligned(64)));
    UNROLL for (int i = 0; i < 4; i++) {
        vf low02 = SHUFFLE(o[i][0], o[i][2], LOW), high02 = SHUFFLE(o[i][0], o[i][2], HIGH);
        vf low13 = SHUFFLE(o[i][1], o[i][3], LOW), high13 = SHUFFLE(o[i][1], o[i][3], HIGH);
        vf row[4] = {
            SHUFFLE(low02, low13, LOW), SHUFFLE(low02, low13, HIGH),
            SHUFFLE(high02, high13, LOW), SHUFFLE(high02, high13, HIGH),
        };
        UNROLL for (int j = 0; j < 4; j++)
            store(rows[i] + j * VL, row[j]);
        if (a->bits_out) {
            uint64_t bits = 0;
            UNROLL for (int j = 0; j < 4; j++)
                bits |= (uint64_t)positive(row[j]) << (j * VL);
            memcpy((uint8_t *)a->bits_out + (4 * k + i) * line + tile / 2, &bits, VL / 2); /* little-endian */
        }
    }
    for (int s = 0; s < count; s++) {
        int64_t y = TILE * segments[s].ty - a->shift_y, x = TILE * segments[s].tx - a->shift_x;
        int64_t width = MIN(TILE * segments[s].count, a->out_width - x), height = MIN(TILE, a->out_height - y);
        for (int64_t i = MAX(0, -y); i < height; i++) {
            float *out = plane + (y + i) * a->out_width + x;
            const float *row = rows[i] + TILE * segments[s].lane;
            int64_t j = MAX(0, -x);
            for (; j + VL <= width; j += VL)
                store(out + j, load(row + j));
            if (j < width)
                memcpy(out + j, row + j, (width - j) * sizeof(float));
        }
    }
}

/* The maximum of each 2×2 window, and its winner. */
INLINE void store_pooled(const struct winograd *a, int64_t k, vf o[4][4], const struct segment *segments, int count)
{
    int64_t plane = k * a->pool_height * a->pool_width;
    float rows[2][2 * VL] __attribute__((aligned(64)));
    uint8_t codes[2][2 * VL] __attribute__((aligned(64)));
    UNROLL for (int i = 0; i < 2; i++) {
        vf best[2];
        vi code[2];
        UNROLL for (int j = 0; j < 2; j++) {
            vf w[4] = {o[2 * i][2 * j], o[2 * i][2 * j + 1], o[2 * i + 1][2 * j], o[2 * i + 1][2 * j + 1]};
            best[j] = maximum(maximum(w[0], w[1]), maximum(w[2], w[3]));
            vi c = pick(w[2] == best[j], 2 - (vi){0}, 3 - (vi){0});
            c = pick(w[1] == best[j], 1 - (vi){0}, c);
            c = pick(w[0] == best[j], (vi){0}, c);
            code[j] = pick(best[j] > 0, c, 4 - (vi){0});
        }
        store(rows[i], SHUFFLE(best[0], best[1], LOW));
        store(rows[i] + VL, SHUFFLE(best[0], best[1], HIGH));
        if (a->bits_out) {
            store_bytes(codes[i], SHUFFLE(code[0], code[1], LOW), VL);
            store_bytes(codes[i] + VL, SHUFFLE(code[0], code[1], HIGH), VL);
        }
    }
    for (int s = 0; s < count; s++) {
        int64_t y = 2 * segments[s].ty - a->shift_y / 2, x = 2 * segments[s].tx - a->shift_x / 2;
        int64_t from = MAX(0, -x), lane = 2 * segments[s].lane + from;
        int64_t width = MIN(2 * segments[s].count, a->pool_width - x) - from, height = MIN(2, a->pool_height - y);
        for (int64_t i = MAX(0, -y); i < height && width > 0; i++) {
            int64_t at = plane + (y + i) * a->pool_width + x + from;
            memcpy(a->y + at, rows[i] + lane, width * sizeof(float));
            if (a->bits_out)
                memcpy((uint8_t *)a->bits_out + at, codes[i] + lane, width);
        }
    }
}

/* Outputs k0..k1-1 of one panel of tiles from m[frequency][k - k0][NR]. */
static void transform_outputs(const struct winograd_run *run, int64_t panel, int64_t k0, int64_t k1, const float *m)
{
    const struct winograd *a = run->a;
    int64_t first = panel * NR, last = MIN(first + NR, run->tiles);
    int ragged = a->pool_height && (a->out_width % 2 || a->out_height % 2);
    for (int64_t tile = first; tile < last; tile += VL) {
        int64_t lanes = MIN(VL, last - tile);
        struct segment segments[VL];
        int count = segments_of(run, tile, lanes, segments);
        vi inside_x[4] = {{0}}, inside_y[4] = {{0}};
        if (ragged)
            for (int lane = 0; lane < VL; lane++)
                for (int i = 0; i < 4; i++) {
                    inside_x[i][lane] = -((tile + lane) % run->tiles_x * TILE + i < a->out_width + a->shift_x);
                    inside_y[i][lane] = -((tile + lane) / run->tiles_x * TILE + i < a->out_height + a->shift_y);
                }
        for (int64_t k = k0; k < k1; k++) {
            const float *p = m + (k - k0) * NR + tile - first;
            if (!a->pool_height && k + 1 < k1)
                prefetch_tiles(a, k + 1, segments, count);
            vf half[4][6], o[4][4];
            UNROLL for (int j = 0; j < 6; j++) {
                vf column[6], t[4];
                UNROLL for (int i = 0; i < 6; i++)
                    column[i] = load(p + (6 * i + j) * run->stride_m);
                output_transform(column, t);
                UNROLL for (int i = 0; i < 4; i++)
                    half[i][j] = t[i];
            }
            vf bias = splat(a->bias ? a->bias[k] : 0);
            UNROLL for (int i = 0; i < 4; i++) {
                output_transform(half[i], o[i]);
                UNROLL for (int j = 0; j < 4; j++) {
                    o[i][j] += bias;
                    if (a->relu)
                        o[i][j] = rectified(o[i][j]);
                }
            }
            if (a->pool_height) {
                if (ragged)
                    UNROLL for (int i = 0; i < 4; i++)
                        UNROLL for (int j = 0; j < 4; j++)
                            o[i][j] = where(inside_x[j] & inside_y[i], o[i][j]);
                store_pooled(a, k, o, segments, count);
                continue;
            }
            store_tiles(a, k, tile, o, segments, count);
        }
    }
}

/* The two schedules */

static void filters_item(void *context, int64_t item, int64_t thread)
{
    const struct winograd_run *run = context;
    int64_t channels = run->a->channels, parts = up(channels, ACROSS), c = item % parts * ACROSS;
    if (filters_across(run->a))
        transform_across(run, item / parts, c, MIN(c + ACROSS, channels));
    else
        transform_along(run, item * CHUNK, MIN((item + 1) * CHUNK, channels));
    (void)thread;
}

static int64_t filters_items(const struct winograd_run *run)
{
    int64_t across = up(run->group, PANEL) * up(run->a->channels, ACROSS), along = up(run->a->channels, CHUNK);
    return filters_across(run->a) ? across : along;
}

static void transform_filters(const struct winograd_run *run)
{
    cvstyle_parallel(run->a->threads, filters_items(run), filters_item, (void *)run);
}

static void own_item(void *context, int64_t panel, int64_t thread)
{
    const struct winograd_run *run = context;
    float *v = run->v + thread * run->size_v, *m = run->m + thread * run->size_m;
    int64_t tiles = MIN(NR, run->tiles - panel * NR), per_group = GROUP_OWN / PANEL;
    transform_inputs(run, panel, 0, run->a->channels, v);
    for (int64_t k = 0; k < run->panels_k; k += per_group) {
        int64_t end = MIN(k + per_group, run->panels_k);
        for (int f = 0; f < FREQUENCIES; f++)
            multiply_panels(run, k, end, tiles, run->u + f * run->stride_u, v + f * run->stride_v,
                            m + f * run->stride_m);
        transform_outputs(run, panel, k * PANEL, MIN(end * PANEL, run->a->outputs), m);
    }
}

static void inputs_item(void *context, int64_t item, int64_t thread)
{
    const struct winograd_run *run = context;
    int64_t chunks = up(run->a->channels, CHUNK), panel = item / chunks, c = item % chunks * CHUNK;
    transform_inputs(run, run->first_panel + panel, c, MIN(c + CHUNK, run->a->channels), run->v + panel * run->size_v);
    (void)thread;
}

static void products_item(void *context, int64_t item, int64_t thread)
{
    const struct winograd_run *run = context;
    int64_t f = item / run->block, panel = item % run->block;
    int64_t tiles = MIN(NR, run->tiles - (run->first_panel + panel) * NR);
    multiply_panels(run, 0, up(run->group, PANEL), tiles, run->u + f * run->stride_u,
                    run->v + panel * run->size_v + f * run->stride_v,
                    run->m + panel * run->size_m + f * run->stride_m);
    (void)thread;
}

static void outputs_item(void *context, int64_t item, int64_t thread)
{
    const struct winograd_run *run = context;
    int64_t chunks = up(run->group, CHUNK), panel = item / chunks, k = item % chunks * CHUNK;
    transform_outputs(run, run->first_panel + panel, run->first_k + k, run->first_k + MIN(k + CHUNK, run->group),
                      run->m + panel * run->size_m + k * NR);
    (void)thread;
}

/* A group of outputs by one thread, so that its filters, most of the memory read, stay in the caches of one core. */
static void group_item(void *context, int64_t item, int64_t thread)
{
    struct winograd_run run = *(const struct winograd_run *)context;
    run.first_k = item * run.group;
    run.group = MIN(run.group, run.a->outputs - run.first_k);
    run.u += thread * FREQUENCIES * run.stride_u;
    run.m += thread * run.most * run.size_m;
    for (int64_t i = 0; i < filters_items(&run); i++)
        filters_item(&run, i, thread);
    for (int64_t i = 0; i < FREQUENCIES * run.block; i++)
        products_item(&run, i, thread);
    for (int64_t i = 0; i < run.block * up(run.group, CHUNK); i++)
        outputs_item(&run, i, thread);
}

/* Lay out the work; returns the floats of a->work that it takes. */
static int64_t winograd_plan(const struct winograd *a, struct winograd_run *run, int *own)
{
    memset(run, 0, sizeof *run);
    run->a = a;
    run->tiles_x = up(a->out_width + a->shift_x, TILE);
    run->tiles = run->tiles_x * up(a->out_height + a->shift_y, TILE);
    run->panels = up(run->tiles, NR);
    run->panels_k = up(a->outputs, PANEL);
    *own = run->panels >= 2 * a->threads && a->channels * a->outputs <= 256 * 256;
    int64_t group = MIN(*own ? GROUP_OWN : GROUP_SHARED, run->panels_k * PANEL);
    run->stride_v = a->channels * NR + LINE;
    run->stride_m = group * NR + LINE;
    run->size_v = FREQUENCIES * run->stride_v;
    run->size_m = FREQUENCIES * run->stride_m;
    int64_t most = MAX(1, (4 << 20) / run->size_v); /* 16 MB of transformed inputs */
    run->block = *own ? a->threads : MIN(run->panels, most);
    run->group = *own ? a->outputs : group;
    run->most = run->block;
    run->groups = !*own && up(a->outputs, group) >= 2 * a->threads ? up(a->outputs, group) : 0;
    int64_t copies = run->groups ? a->threads : 1;
    int64_t unit = MAX(VL, PANEL); /* outputs: a vector may reach into a panel that nobody uses */
    run->stride_u = up(run->group, unit) * unit / PANEL * panel_size(filters_across(a), a->channels) + LINE;
    run->u = a->work;
    run->v = run->u + copies * FREQUENCIES * run->stride_u;
    run->m = run->v + run->block * run->size_v;
    return copies * FREQUENCIES * run->stride_u + run->block * (run->size_v + copies * run->size_m);
}

int64_t NAME(winograd_work)(const struct winograd *a)
{
    struct winograd_run run;
    int own;
    return winograd_plan(a, &run, &own);
}

void NAME(winograd)(const struct winograd *a)
{
    struct winograd_run run;
    int own;
    winograd_plan(a, &run, &own);
    int64_t group = run.group, block = run.block;
    if (own) {
        transform_filters(&run);
        cvstyle_parallel(a->threads, run.panels, own_item, &run);
        return;
    }
    for (run.first_panel = 0; run.first_panel < run.panels; run.first_panel += block) {
        run.block = MIN(block, run.panels - run.first_panel);
        cvstyle_parallel(a->threads, run.block * up(a->channels, CHUNK), inputs_item, &run);
        if (run.groups) {
            cvstyle_parallel(a->threads, run.groups, group_item, &run);
            continue;
        }
        for (run.first_k = 0; run.first_k < a->outputs; run.first_k += group) {
            run.group = MIN(group, a->outputs - run.first_k);
            transform_filters(&run);
            cvstyle_parallel(a->threads, FREQUENCIES * run.block, products_item, &run);
            cvstyle_parallel(a->threads, run.block * up(run.group, CHUNK), outputs_item, &run);
        }
    }
}
