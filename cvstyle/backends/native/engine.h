/* The interface among the engine's parts: arguments of operations, and the thread pool.

   Arrays are float32, feature maps (channels, height, width), contiguous unless strides are given. Every result is
   computed in one order, independent of the number of threads. */

#ifndef CVSTYLE_ENGINE_H
#define CVSTYLE_ENGINE_H

#include <stdint.h>

/* A 3×3 convolution of stride 1, with the operations around it, by Winograd's F(4×4, 3×3). */
struct winograd {
    const float *x;              /* the source; see `source` */
    int64_t channels, height, width;
    int64_t source;              /* 0: x is the map; 1: masked by `saved`, bits as in `bits_out`; 2: x is the
                                    gradient of a 2×2 max pool of the map, `saved` its winners */
    const void *saved;
    int64_t saved_y, saved_x;    /* shift_y and shift_x of the call that wrote `saved`; source 1 */
    int64_t pooled_height, pooled_width; /* of x where source is 2 */
    const float *weight;         /* filter (k, c) is 9 floats at k * output_step + c * input_step; any alignment */
    int64_t outputs, output_step, input_step, flip;
    const float *bias;           /* (outputs) or NULL */
    int64_t pad_top, pad_left, out_height, out_width;
    int64_t shift_y, shift_x;    /* how far before the outputs their tiles start; even with a pool */
    float *y;                    /* (outputs, out_height, out_width), or pooled */
    int64_t relu;
    int64_t pool_height, pool_width; /* 0: no pool; else the output size of a 2×2 max pool of stride 2 after the ReLU */
    void *bits_out;              /* NULL; or bits of y > 0, (outputs, 4, ⌈tiles/48⌉ · 24 bytes): for each row of
                                    the 4×4 tiles, in the tiles' order, so that a row of the map is a run of bits;
                                    or, with a pool, uint8 per output: the winner 0..3, 4 where it is not above 0 */
    float *work;
    int64_t threads;
};

/* Any other convolution, or a matrix product: a sum over taps of shifted inputs.
   y[k, i, j] = bias[k] + Σ_c Σ_t w[k, c, t] x[c, i * step_y + dy[t], j * step_x + dx[t]], x zero outside. */
struct general {
    const float *x;
    int64_t channels, groups, height, width; /* channels: of one group */
    int64_t step_y, step_x, taps;
    const int64_t *dy, *dx;
    const float *weight;         /* `product`: (groups, ⌈outputs/8⌉, channels, taps, 8); `few`: (groups, channels,
                                    taps, outputs) */
    int64_t outputs;             /* of one group */
    const float *bias;           /* (groups · outputs) or NULL */
    float *y;
    int64_t plane, row, column;  /* strides of y in floats */
    int64_t out_height, out_width;
    int64_t relu, accumulate;
    uint8_t *bits_out;           /* NULL or, per output plane, bits of y > 0 packed into bytes */
    const uint8_t *mask;         /* NULL, or bits of this layout for x; `few` only */
    float *work;
    int64_t threads;
};

/* A maximum or a mean over windows; `backward`, x is the outputs' gradient and y the inputs'. */
struct pooling {
    const float *x;
    int64_t planes, height, width; /* of the inputs */
    int64_t kernel_y, kernel_x, step_y, step_x, pad_y, pad_x;
    float *y;
    int64_t out_height, out_width;
    void *winner;                /* of each output: its place in the window; maximum only */
    int64_t winner_size;         /* bytes: 1, 2 or 4 */
    float *work;
    int64_t threads;
};

/* body(context, item, thread) for every item in 0..count-1, on up to `threads` threads. */
void cvstyle_parallel(int64_t threads, int64_t count, void (*body)(void *, int64_t, int64_t), void *context);

#endif
