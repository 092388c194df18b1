/* Pooling over windows of any size that are clipped at the border; see max_pool and avg_pool in base/layers.py. A plane
   is an item.

   Each row is split into as many lines as the step is wide, or the kernel where that is narrower: line p has every
   step-th input from p - pad on. So the inputs at one place of the windows of neighbouring outputs are neighbours in a
   line. The lines of as many rows as a window has are kept. Sums have the order of the reference: place by place of the
   window, which in the backward pass is from the last window that holds an input to the first. */

INLINE int64_t pool_lines(const struct pooling *a) { return MIN(a->step_x, a->kernel_x); }
INLINE int64_t pool_columns(const struct pooling *a) { return up(a->out_width, VL) * VL; }
INLINE int64_t line_length(const struct pooling *a) { return pool_columns(a) + (a->kernel_x - 1) / a->step_x; }
INLINE int64_t kept_lines(const struct pooling *a) { return a->kernel_y * pool_lines(a) * line_length(a); }

/* How many of a window's places count in a mean along an axis: those in the picture and its padding (Caffe). */
INLINE int64_t counted(int64_t start, int64_t kernel, int64_t size, int64_t pad)
{
    return MIN(start + kernel, size + pad) - start;
}

static void split_row(const struct pooling *a, const float *row, float outside, float *line)
{
    int64_t step = a->step_x, count = a->out_width + (a->kernel_x - 1) / step;
    for (int64_t p = 0; p < pool_lines(a); p++, line += line_length(a)) {
        int64_t start = p - a->pad_x, lo = MIN(count, up(MAX(0, -start), step));
        int64_t hi = MAX(lo, MIN(count, up(MAX(0, a->width - start), step))), i = lo;
        if (step == 1)
            for (; i + VL <= hi; i += VL)
                store(line + i, load(row + start + i));
        if (step == 2) /* the two vectors end before the input of output i + VL */
            for (; i + VL < hi; i += VL) {
                const float *from = row + start + 2 * i;
                store(line + i, SHUFFLE(load(from), load(from + VL), EVEN));
            }
        for (; i < hi; i++)
            line[i] = row[start + i * step];
        for (i = 0; i < lo; i++)
            line[i] = outside;
        for (i = hi; i < count; i++)
            line[i] = outside;
    }
}

INLINE void store_winners(const struct pooling *a, int64_t at, vi winner, int64_t n)
{
    uint8_t *to = (uint8_t *)a->winner + at * a->winner_size;
    if (a->winner_size == 1) {
        store_bytes(to, winner, n);
    } else if (a->winner_size == 2) {
        vs words = __builtin_convertvector(winner, vs);
        memcpy(to, &words, MIN(n, VL) * sizeof(uint16_t));
    } else {
        memcpy(to, &winner, MIN(n, VL) * sizeof(int32_t));
    }
}

/* A row of outputs; kernel and step are those along the row. */
INLINE void pool_row(const struct pooling *a, int mean, int64_t kernel, int64_t step, const float *lines,
                     const float *counts, int64_t plane, int64_t row)
{
    int64_t top = row * a->step_y - a->pad_y, first = MAX(0, -top), last = MIN(a->kernel_y, a->height - top);
    int64_t length = line_length(a), high = counted(top, a->kernel_y, a->height, a->pad_y);
    for (int64_t j = 0; j < a->out_width; j += VL) {
        vf best = splat(mean ? 0 : -__builtin_inff());
        vi winner = {0};
        int64_t slot = (top + first) % a->kernel_y;
        for (int64_t ky = first; ky < last; ky++, slot = slot + 1 == a->kernel_y ? 0 : slot + 1) {
            const float *from = lines + slot * pool_lines(a) * length + j;
            for (int64_t kx = 0, p = 0, shift = 0; kx < kernel; kx++) {
                vf v = load(from + p * length + shift);
                if (mean) {
                    best += v;
                } else {
                    vi better = v > best; /* never, once best is not a number */
                    winner = pick(better, (int32_t)(ky * kernel + kx) - (vi){0}, winner);
                    best = (vf)pick(better | (v != v), (vi)v, (vi)best);
                }
                if (++p == step)
                    p = 0, shift++;
            }
        }
        int64_t at = (plane * a->out_height + row) * a->out_width + j;
        store_n(a->y + at, mean ? best / (splat(high) * load(counts + j)) : best, a->out_width - j);
        if (!mean)
            store_winners(a, at, winner, a->out_width - j);
    }
}

INLINE void pool_plane(const struct pooling *a, int mean, int64_t plane, int64_t thread)
{
    const float *x = a->x + plane * a->height * a->width, *counts = a->work;
    float *lines = a->work + pool_columns(a) + thread * kept_lines(a);
    int64_t ready = 0;
    for (int64_t row = 0; row < a->out_height; row++) {
        int64_t top = row * a->step_y - a->pad_y;
        for (ready = MAX(ready, top); ready < MIN(top + a->kernel_y, a->height); ready++)
            split_row(a, x + ready * a->width, mean ? 0 : -__builtin_inff(),
                      lines + ready % a->kernel_y * pool_lines(a) * line_length(a));
        if (a->kernel_x == 3 && a->step_x == 2)
            pool_row(a, mean, 3, 2, lines, counts, plane, row);
        else if (a->kernel_x == 3 && a->step_x == 1)
            pool_row(a, mean, 3, 1, lines, counts, plane, row);
        else if (a->kernel_x == 2 && a->step_x == 2)
            pool_row(a, mean, 2, 2, lines, counts, plane, row);
        else
            pool_row(a, mean, a->kernel_x, a->step_x, lines, counts, plane, row);
    }
}

static void max_pool_item(void *context, int64_t item, int64_t thread) { pool_plane(context, 0, item, thread); }
static void avg_pool_item(void *context, int64_t item, int64_t thread) { pool_plane(context, 1, item, thread); }

/* offset: where each place of a window lies, from its first. */
INLINE void scatter_plane(const struct pooling *a, int64_t plane, int64_t winner_size)
{
    const int32_t *offset = (const int32_t *)a->work;
    float *y = a->y + plane * a->height * a->width;
    memset(y, 0, a->height * a->width * sizeof(float));
    for (int64_t row = a->out_height - 1; row >= 0; row--) {
        int64_t top = row * a->step_y - a->pad_y, at = (plane * a->out_height + row) * a->out_width;
        for (int64_t column = a->out_width - 1; column >= 0; column--) {
            int64_t left = column * a->step_x - a->pad_x;
            uint32_t winner = winner_size == 1   ? ((const uint8_t *)a->winner)[at + column]
                              : winner_size == 2 ? ((const uint16_t *)a->winner)[at + column]
                                                 : ((const uint32_t *)a->winner)[at + column];
            /* Where nothing in the picture was greater, the winner is the first place, be it outside. */
            int inside = (top >= 0) & (left >= 0) & (top < a->height) & (left < a->width);
            if ((winner != 0) | inside)
                y[top * a->width + left + offset[winner]] += a->x[at + column];
        }
    }
}

static void max_pool_backward_item(void *context, int64_t item, int64_t thread)
{
    const struct pooling *a = context;
    if (a->winner_size == 1)
        scatter_plane(a, item, 1);
    else if (a->winner_size == 2)
        scatter_plane(a, item, 2);
    else
        scatter_plane(a, item, 4);
    (void)thread;
}

static void avg_pool_backward_item(void *context, int64_t item, int64_t thread)
{
    const struct pooling *a = context;
    int64_t width = a->width, step = a->step_x;
    const float *counts = a->work;
    float *y = a->y + item * a->height * width, *share = a->work + (1 + thread) * pool_columns(a);
    memset(y, 0, a->height * width * sizeof(float));
    for (int64_t row = a->out_height - 1; row >= 0; row--) {
        const float *g = a->x + (item * a->out_height + row) * a->out_width;
        int64_t top = row * a->step_y - a->pad_y, high = counted(top, a->kernel_y, a->height, a->pad_y);
        for (int64_t j = 0; j < a->out_width; j += VL)
            store(share + j, load_n(g + j, a->out_width - j) / (splat(high) * load(counts + j)));
        for (int64_t i = MAX(0, top); i < MIN(top + a->kernel_y, a->height); i++)
            for (int64_t kx = 0; kx < a->kernel_x; kx++) {
                int64_t start = kx - a->pad_x, j = up(MAX(0, -start), step);
                int64_t end = MIN(a->out_width, up(MAX(0, width - start), step));
                float *to = y + i * width + start;
                if (step == 1)
                    for (; j + VL <= end; j += VL)
                        store(to + j, load(to + j) + load(share + j));
                for (; j < end; j++)
                    to[j * step] += share[j];
            }
    }
}

/* counts[column] ← counted along the row */
static void count_columns(const struct pooling *a)
{
    for (int64_t j = 0; j < pool_columns(a); j++)
        a->work[j] = MAX(1, counted(j * a->step_x - a->pad_x, a->kernel_x, a->width, a->pad_x));
}

int64_t NAME(max_pool_work)(const struct pooling *a) { return pool_columns(a) + a->threads * kept_lines(a); }
int64_t NAME(avg_pool_work)(const struct pooling *a) { return NAME(max_pool_work)(a); }
int64_t NAME(max_pool_backward_work)(const struct pooling *a) { return a->kernel_y * a->kernel_x; }
int64_t NAME(avg_pool_backward_work)(const struct pooling *a) { return (1 + a->threads) * pool_columns(a); }

void NAME(max_pool)(struct pooling *a) { cvstyle_parallel(a->threads, a->planes, max_pool_item, a); }

void NAME(max_pool_backward)(struct pooling *a)
{
    for (int64_t i = 0; i < a->kernel_y * a->kernel_x; i++)
        ((int32_t *)a->work)[i] = i / a->kernel_x * a->width + i % a->kernel_x;
    cvstyle_parallel(a->threads, a->planes, max_pool_backward_item, a);
}

void NAME(avg_pool)(struct pooling *a)
{
    count_columns(a);
    cvstyle_parallel(a->threads, a->planes, avg_pool_item, a);
}

void NAME(avg_pool_backward)(struct pooling *a)
{
    count_columns(a);
    cvstyle_parallel(a->threads, a->planes, avg_pool_backward_item, a);
}
