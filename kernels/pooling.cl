/* Pooling over windows that are clipped at the border (Caffe), one output or one input per work-item. -DINDEX is the
   type of a winner's index in its window. x: (channels, h, w); y: (channels, oh, ow). */

#define GEOMETRY int h, int w, int oh, int ow, int kh, int kw, int sh, int sw, int ph, int pw

#ifdef INDEX
KERNEL(GROUP) max_pool(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT y, GLOBAL INDEX *RESTRICT winner, int n,
                       GEOMETRY) {
    int i = ELEMENT;
    if (i >= n) return;
    int top = i / ow % oh * sh - ph, left = i % ow * sw - pw, best = -1;
    float value = 0;
    GLOBAL const float *plane = x + i / ow / oh * h * w;
    for (int ky = top < 0 ? -top : 0; ky < kh && top + ky < h; ky++)
        for (int kx = left < 0 ? -left : 0; kx < kw && left + kx < w; kx++) {
            float candidate = plane[(top + ky) * w + left + kx];
            if (best < 0 || candidate > value || candidate != candidate) {
                value = candidate;
                best = ky * kw + kx;
            }
        }
    y[i] = value;
    winner[i] = (INDEX)best;
}

/* Gathers: each input sums over the windows that hold it, so no atomics are needed. */
KERNEL(GROUP) max_pool_backward(GLOBAL const float *RESTRICT g, GLOBAL const INDEX *RESTRICT winner,
                                GLOBAL float *RESTRICT gx, int n, GEOMETRY) {
    int i = ELEMENT;
    if (i >= n) return;
    int row = i / w % h + ph, column = i % w + pw, plane = i / w / h * oh * ow;
    int last_y = row / sh < oh ? row / sh : oh - 1, last_x = column / sw < ow ? column / sw : ow - 1;
    int first_y = row < kh ? 0 : (row - kh) / sh + 1, first_x = column < kw ? 0 : (column - kw) / sw + 1;
    float total = 0;
    for (int oy = first_y; oy <= last_y; oy++)
        for (int ox = first_x; ox <= last_x; ox++) {
            int at = plane + oy * ow + ox;
            if ((int)winner[at] == (row - oy * sh) * kw + column - ox * sw) total += g[at];
        }
    gx[i] = total;
}

/* The places of the winners in their channels, row · w + column. */
KERNEL(GROUP) pool_positions(GLOBAL const INDEX *RESTRICT winner, GLOBAL float *RESTRICT positions, int n, GEOMETRY) {
    int i = ELEMENT;
    if (i >= n) return;
    int index = (int)winner[i], row = i / ow % oh * sh - ph + index / kw, column = i % ow * sw - pw + index % kw;
    positions[i] = (float)(row * w + column);
}
#else

/* The number of a window's elements along one axis that are in the map or its padding (Caffe). */
INLINE int counted(int start, int kernel_size, int size, int pad) {
    int end = start + kernel_size;
    return (end < size + pad ? end : size + pad) - start;
}

KERNEL(GROUP) avg_pool(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT y, int n, GEOMETRY) {
    int i = ELEMENT;
    if (i >= n) return;
    int top = i / ow % oh * sh - ph, left = i % ow * sw - pw;
    float total = 0;
    GLOBAL const float *plane = x + i / ow / oh * h * w;
    for (int iy = top < 0 ? 0 : top; iy < top + kh && iy < h; iy++)
        for (int ix = left < 0 ? 0 : left; ix < left + kw && ix < w; ix++) total += plane[iy * w + ix];
    y[i] = total / (float)(counted(top, kh, h, ph) * counted(left, kw, w, pw));
}

KERNEL(GROUP) avg_pool_backward(GLOBAL const float *RESTRICT g, GLOBAL float *RESTRICT gx, int n, GEOMETRY) {
    int i = ELEMENT;
    if (i >= n) return;
    int row = i / w % h + ph, column = i % w + pw, plane = i / w / h * oh * ow;
    int last_y = row / sh < oh ? row / sh : oh - 1, last_x = column / sw < ow ? column / sw : ow - 1;
    int first_y = row < kh ? 0 : (row - kh) / sh + 1, first_x = column < kw ? 0 : (column - kw) / sw + 1;
    float total = 0;
    for (int oy = first_y; oy <= last_y; oy++)
        for (int ox = first_x; ox <= last_x; ox++)
            total += g[plane + oy * ow + ox] /
                     (float)(counted(oy * sh - ph, kh, h, ph) * counted(ox * sw - pw, kw, w, pw));
    gx[i] = total;
}
#endif
