/* Maps (planes, h, w) halved up to three times, and the sum of the halvings; see Backend.halvings and add_halvings in
   backends/reference/optimizers.py. A group computes CORE × CORE positions of the first halving and the
   corresponding ones of the others, with the margins that these depend on: so one launch does all. Groups: (parts of a plane, planes). */

#define CORE 32
#define WITHIN(position, n) ((position) < 0 ? 0 : (position) < (n) ? (position) : (n) - 1)
#define LEVELS_OF(h, w)                                                                                        \
    const int h1 = (h + 1) / 2, w1 = (w + 1) / 2, h2 = (h1 + 1) / 2, w2 = (w1 + 1) / 2, h3 = (h2 + 1) / 2,     \
              w3 = (w2 + 1) / 2, across = (w1 + CORE - 1) / CORE, plane = GROUP_ID(1),                         \
              first_row = GROUP_ID(0) / across * CORE, first_column = GROUP_ID(0) % across * CORE;

/* For each position (row, column) of a map (h, w) that is in the square of `side` whose corner lies `margin` before that
   of the group's; `at` is its place in the square. scale: of the first halving to this one. */
#define EACH_POSITION(side, margin, scale, h, w, body)                                      \
    for (int at = LOCAL_ID; at < (side) * (side); at += GROUP) {                            \
        const int row = first_row / (scale) - (margin) + at / (side);                       \
        const int column = first_column / (scale) - (margin) + at % (side);                 \
        if (row >= 0 && column >= 0 && row < (h) && column < (w)) body                      \
    }

/* 1 if the position is the group's own. */
#define IN_CORE(side, margin)                                                        \
    ((uint)(at / (side) - (margin)) < (uint)((side) - 2 * (margin)) &&               \
     (uint)(at % (side) - (margin)) < (uint)((side) - 2 * (margin)))

/* The weight of position 2i − 1 + k of a length of n in position i of half the length. */
INLINE float share(int k, int position, int n) {
    if (position >= n && n % 2) return 0;
    return k == 0 || k == 3 ? 0.125f : 0.375f;
}

/* value: (row, column) of the half of a map (h, w) with elements NUMBER(y, x). */
#define HALVE(value, h, w, NUMBER)                                                                                  \
    float value = 0;                                                                                                \
    _Pragma("unroll") for (int ky = 0; ky < 4; ky++) {                                                              \
        const int y = 2 * row - 1 + ky, line = WITHIN(y, h);                                                        \
        float sum = 0;                                                                                              \
        _Pragma("unroll") for (int kx = 0; kx < 4; kx++) {                                                          \
            const int position = 2 * column - 1 + kx;                                                               \
            sum += share(kx, position, w) * NUMBER(line, WITHIN(position, w));                                      \
        }                                                                                                           \
        value += share(ky, y, h) * sum;                                                                             \
    }

#define MARGIN1 3
#define MARGIN2 1
#define SIDE1 (CORE + 2 * MARGIN1)
#define SIDE2 (CORE / 2 + 2 * MARGIN2)
#define OF_X(y, x_) x[(y)*w + (x_)]
#define OF_ONE(y, x_) one[((y)-first_row + MARGIN1) * SIDE1 + (x_)-first_column + MARGIN1]
#define OF_TWO(y, x_) two[((y)-first_row / 2 + MARGIN2) * SIDE2 + (x_)-first_column / 2 + MARGIN2]

KERNEL(GROUP) halvings(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT first, GLOBAL float *RESTRICT second,
                       GLOBAL float *RESTRICT third, int levels, int h, int w) {
    LOCAL float one[SIDE1 * SIDE1];
    LOCAL float two[SIDE2 * SIDE2];
    LEVELS_OF(h, w)
    x += plane * h * w;
    EACH_POSITION(SIDE1, MARGIN1, 1, h1, w1, {
        HALVE(value, h, w, OF_X)
        one[at] = value;
        if (IN_CORE(SIDE1, MARGIN1)) first[(plane * h1 + row) * w1 + column] = value;
    })
    BARRIER;
    if (levels > 1) {
        EACH_POSITION(SIDE2, MARGIN2, 2, h2, w2, {
            HALVE(value, h1, w1, OF_ONE)
            two[at] = value;
            if (IN_CORE(SIDE2, MARGIN2)) second[(plane * h2 + row) * w2 + column] = value;
        })
    }
    BARRIER;
    if (levels > 2) {
        EACH_POSITION(CORE / 4, 0, 4, h3, w3, {
            HALVE(value, h2, w2, OF_TWO)
            third[(plane * h3 + row) * w3 + column] = value;
        })
    }
}

#undef MARGIN1
#undef SIDE1
#define MARGIN1 1
#define MARGIN3 1
#define SIDE1 (CORE + 2 * MARGIN1)
#define SIDE3 (CORE / 4 + 2 * MARGIN3)
#define OF_THREE(y, x_) three[((y)-first_row / 4 + MARGIN3) * SIDE3 + (x_)-first_column / 4 + MARGIN3]

/* value ← factor · own, plus (row, column) of a map (h, w) at twice the size where there is one. */
#define ADD_DOUBLED(value, factor, own, there_is, h, w, NUMBER)                                                     \
    float value = (factor) * (own);                                                                                 \
    if (there_is) {                                                                                                 \
        const int i = row / 2, j = column / 2;                                                                      \
        const int beside = WITHIN(column % 2 ? j + 1 : j - 1, w), over = WITHIN(row % 2 ? i + 1 : i - 1, h);        \
        const float near = 0.75f * NUMBER(i, j) + 0.25f * NUMBER(i, beside);                                        \
        const float far = 0.75f * NUMBER(over, j) + 0.25f * NUMBER(over, beside);                                   \
        value = (factor) * (own) + (0.75f * near + 0.25f * far);                                                    \
    }

/* x ← f0 x + doubled(f1 first + doubled(f2 second + doubled(f3 third))), or onto ← onto + this sum where `adds` is set. */
KERNEL(GROUP) add_halvings(GLOBAL float *RESTRICT x, GLOBAL const float *RESTRICT first,
                           GLOBAL const float *RESTRICT second, GLOBAL const float *RESTRICT third,
                           GLOBAL float *RESTRICT onto, int adds, int levels, float f0, float f1, float f2, float f3,
                           int h, int w) {
    LOCAL float one[SIDE1 * SIDE1];
    LOCAL float two[SIDE2 * SIDE2];
    LOCAL float three[SIDE3 * SIDE3];
    LEVELS_OF(h, w)
    if (levels > 2) {
        EACH_POSITION(SIDE3, MARGIN3, 4, h3, w3, three[at] = f3 * third[(plane * h3 + row) * w3 + column];)
    }
    BARRIER;
    if (levels > 1) {
        EACH_POSITION(SIDE2, MARGIN2, 2, h2, w2, {
            ADD_DOUBLED(value, f2, second[(plane * h2 + row) * w2 + column], levels > 2, h3, w3, OF_THREE)
            two[at] = value;
        })
    }
    BARRIER;
    if (levels > 0) {
        EACH_POSITION(SIDE1, MARGIN1, 1, h1, w1, {
            ADD_DOUBLED(value, f1, first[(plane * h1 + row) * w1 + column], levels > 1, h2, w2, OF_TWO)
            one[at] = value;
        })
    }
    BARRIER;
    for (int at = LOCAL_ID; at < 4 * CORE * CORE; at += GROUP) {
        const int row = 2 * first_row + at / (2 * CORE), column = 2 * first_column + at % (2 * CORE);
        if (row < h && column < w) {
            const int place = (plane * h + row) * w + column;
            ADD_DOUBLED(value, f0, x[place], levels > 0, h1, w1, OF_ONE)
            if (adds) onto[place] += value;
            else x[place] = value;
        }
    }
}
