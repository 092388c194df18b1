/* Elements taken from other places: axes in another order, largest elements, unpooling, interpolation. */

/* An array of extents (.., n1, n2, n3) from one with these strides along the same axes. */
KERNEL(GROUP) transpose(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT out, int n, int n1, int n2, int n3, int s0,
                        int s1, int s2, int s3) {
    int i = ELEMENT;
    if (i < n) out[i] = x[place_of(i, n, n1, n2, n3, s0, s1, s2, s3)];
}

#define SIDE 32 /* of a tile */
#define STEPS (SIDE * SIDE / GROUP)

/* Matrices (rows, columns) as (columns, rows), a tile per group, by which both are read and written along their rows:
   from x with the stride s of a row, to `out` with t. Matrix b of (.., b1) begins at b / b1 · s0 + b % b1 · s1, in `out`
   at b / b1 · t0 + b % b1 · t1. */
KERNEL(GROUP) transpose_tiles(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT out, int rows, int columns, int s,
                              int t, int b1, int s0, int s1, int t0, int t1) {
    LOCAL float tile[SIDE * (SIDE + 1)];
    const int across = (columns + SIDE - 1) / SIDE, down = (rows + SIDE - 1) / SIDE;
    const int left = GROUP_ID(0) % across * SIDE, top = GROUP_ID(0) / across % down * SIDE;
    const int b = GROUP_ID(0) / across / down, lane = LOCAL_ID % SIDE, first = LOCAL_ID / SIDE;
    GLOBAL const float *from = x + b / b1 * s0 + b % b1 * s1;
    GLOBAL float *to = out + b / b1 * t0 + b % b1 * t1;
    for (int k = 0; k < STEPS; k++) {
        int row = first + k * (SIDE / STEPS);
        if (top + row < rows && left + lane < columns)
            tile[row * (SIDE + 1) + lane] = from[(top + row) * s + left + lane];
    }
    BARRIER;
    for (int k = 0; k < STEPS; k++) {
        int column = first + k * (SIDE / STEPS);
        if (left + column < columns && top + lane < rows)
            to[(left + column) * t + top + lane] = tile[lane * (SIDE + 1) + column];
    }
}

/* A number whose order is that of floats, NaN before all and zeros alike. */
INLINE uint rank_of(float x) {
    uint bits = as_uint(x);
    if (x != x) return 0;
    if (x == 0) return 1u << 31;
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

/* The index of the largest number that comes after number `place` of rank `last`, among every step-th of a line of n from
   `first` on, or −1; where equal, the larger index comes first. best: its rank. */
INLINE int next_largest(GLOBAL const float *line, int inner, int n, int first, int step, uint last, int place,
                        uint *best) {
    int found = -1;
    *best = 0;
    for (int j = first; j < n; j += step) {
        uint rank = rank_of(line[j * inner]);
        if (rank >= *best && (rank < last || (rank == last && j < place))) {
            *best = rank;
            found = j;
        }
    }
    return found;
}

/* The `count` largest of each line of n elements with stride `inner`, in falling order, and their indices. One line per
   work-item, which goes along it once for each. */
KERNEL(GROUP) top_k(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT values, GLOBAL float *RESTRICT indices, int n,
                    int inner, int count, int lines) {
    int i = ELEMENT, place = n;
    if (i >= lines) return;
    GLOBAL const float *line = x + i / inner * n * inner + i % inner;
    uint last = ~0u;
    for (int k = 0; k < count; k++) {
        uint best;
        int at = (i / inner * count + k) * inner + i % inner;
        place = next_largest(line, inner, n, 0, 1, last, place, &best);
        last = best;
        values[at] = line[place * inner];
        indices[at] = place;
    }
}

/* The same for few lines, one per group. */
KERNEL(GROUP) top_k_of_line(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT values, GLOBAL float *RESTRICT indices,
                            int n, int inner, int count) {
    LOCAL uint ranks[GROUP];
    LOCAL int places[GROUP];
    int i = GROUP_ID(0), place = n;
    GLOBAL const float *line = x + i / inner * n * inner + i % inner;
    uint last = ~0u;
    for (int k = 0; k < count; k++) {
        uint best;
        int found = next_largest(line, inner, n, LOCAL_ID, GROUP, last, place, &best);
        BARRIER;
        ranks[LOCAL_ID] = best;
        places[LOCAL_ID] = found;
        for (int reach = GROUP / 2; reach > 0; reach /= 2) {
            BARRIER;
            if (LOCAL_ID < reach) {
                uint other = ranks[LOCAL_ID + reach];
                int there = places[LOCAL_ID + reach];
                if (other > ranks[LOCAL_ID] || (other == ranks[LOCAL_ID] && there > places[LOCAL_ID])) {
                    ranks[LOCAL_ID] = other;
                    places[LOCAL_ID] = there;
                }
            }
        }
        BARRIER;
        last = ranks[0];
        place = places[0];
        if (LOCAL_ID == 0) {
            int at = (i / inner * count + k) * inner + i % inner;
            values[at] = line[place * inner];
            indices[at] = place;
        }
    }
}

/* The place that a number means in a plane, or −1 for one outside. */
INLINE int place_in(float position, int plane) {
    int place = position > -1 && position < 2147483648.0f ? (int)position : -1;
    return place < plane ? place : -1;
}

/* winners[p] ← 1 + the largest number of an element with place p in its channel; zero where there is none, as before.
   An element's number is that in its channel, of `count`. */
KERNEL(GROUP) unpool_winners(GLOBAL const float *RESTRICT positions, GLOBAL uint *winners, int plane, int count, int n) {
    int i = ELEMENT;
    if (i >= n) return;
    int place = place_in(positions[i], plane);
    if (place >= 0) atomic_max(winners + i / count * plane + place, (uint)(i % count) + 1);
}

/* x at its places; `out` holds the winners' bits before. */
KERNEL(GROUP) unpool(GLOBAL const float *x, GLOBAL float *out, int plane, int count, int n) {
    int i = ELEMENT;
    if (i >= n) return;
    uint winner = as_uint(out[i]);
    out[i] = winner ? x[i / plane * count + (int)winner - 1] : 0;
}

KERNEL(GROUP) unpool_backward(GLOBAL const float *RESTRICT g, GLOBAL const float *RESTRICT positions,
                              GLOBAL float *RESTRICT gx, int plane, int count, int n) {
    int i = ELEMENT;
    if (i >= n) return;
    int place = place_in(positions[i], plane);
    gx[i] = place < 0 ? 0 : g[i / count * plane + place];
}

/* Linear interpolation along one axis of x: (.., extent, inner) to (.., size, inner). Place i is i · (extent − 1) / (size − 1),
   in whole numbers, so that all devices agree; `intervals` is size − 1, or 1. Extents of 2^16 fit. */

KERNEL(GROUP) resize(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT out, int extent, int size, int inner, int n) {
    int i = ELEMENT;
    if (i >= n) return;
    uint intervals = size > 1 ? size - 1 : 1, place = (uint)(i / inner % size) * (uint)(extent - 1);
    int low = (int)(place / intervals), high = low + 1 < extent ? low + 1 : low;
    float share = (float)(place % intervals) / (float)intervals;
    GLOBAL const float *line = x + i / inner / size * extent * inner + i % inner;
    float value = line[low * inner];
    out[i] = value + (line[high * inner] - value) * share;
}

/* Each input sums over the outputs that lie less than one place from it. */
KERNEL(GROUP) resize_backward(GLOBAL const float *RESTRICT g, GLOBAL float *RESTRICT gx, int extent, int size, int inner,
                              int n) {
    int i = ELEMENT;
    if (i >= n) return;
    uint intervals = size > 1 ? size - 1 : 1, steps = extent > 1 ? extent - 1 : 1, own = (uint)(i / inner % extent);
    uint before = own ? (own - 1) * intervals : 0, last = (own + 1) * intervals / steps;
    if (last > (uint)(size - 1)) last = size - 1;
    GLOBAL const float *line = g + i / inner / extent * size * inner + i % inner;
    float total = 0;
    for (uint at = (before + steps - 1) / steps; at <= last; at++) {
        int past = (int)(at * (uint)(extent - 1) - own * intervals); /* how far it lies behind, in 1/intervals */
        float share = (float)(past < 0 ? past + (int)intervals : past) / (float)intervals;
        total += line[at * inner] * (past < 0 ? share : 1 - share);
    }
    gx[i] = total;
}
