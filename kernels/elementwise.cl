/* Element-wise operations, one element per work-item. Results may be written over an input. */

KERNEL(GROUP) fill(GLOBAL float *x, float value, int n) {
    int i = ELEMENT;
    if (i < n) x[i] = value;
}

KERNEL(GROUP) scale(GLOBAL float *x, FACTOR, int n) {
    int i = ELEMENT;
    if (i < n) x[i] *= FACTOR_VALUE;
}

KERNEL(GROUP) add_scaled(GLOBAL float *y, FACTOR, GLOBAL const float *x, int n) {
    int i = ELEMENT;
    if (i < n) y[i] += FACTOR_VALUE * x[i];
}

KERNEL(GROUP) difference(GLOBAL const float *x, GLOBAL const float *y, GLOBAL float *out, int n) {
    int i = ELEMENT;
    if (i < n) out[i] = x[i] - y[i];
}

/* An operand's strides, 0 to repeat it along an axis, and the place there of element i. */
#define STRIDES int n1, int n2, int n3, int s0, int s1, int s2, int s3
#define OPERAND place_of(i, n, n1, n2, n3, s0, s1, s2, s3)

KERNEL(GROUP) multiply(GLOBAL const float *x, GLOBAL const float *y, GLOBAL float *out, int n, STRIDES) {
    int i = ELEMENT;
    if (i < n) out[i] = x[i] * y[OPERAND];
}

KERNEL(GROUP) add(GLOBAL const float *x, GLOBAL const float *y, GLOBAL float *out, int n, STRIDES) {
    int i = ELEMENT;
    if (i < n) out[i] = x[i] + y[OPERAND];
}

KERNEL(GROUP) multiply_add(GLOBAL const float *x, GLOBAL const float *y, GLOBAL const float *z, GLOBAL float *out,
                           int n, STRIDES) {
    int i = ELEMENT, at = OPERAND;
    if (i < n) out[i] = x[i] * y[at] + z[at];
}

KERNEL(GROUP) maximum(GLOBAL const float *x, GLOBAL const float *y, GLOBAL float *out, GLOBAL uint *mask, int n) {
    LOCAL uchar flags[GROUP];
    int i = ELEMENT, first = 0;
    if (i < n) {
        float a = x[i], b = y[i];
        first = a > b;
        out[i] = first ? a : b;
    }
    store_bits(mask, flags, first, n);
}

KERNEL(GROUP) select_parts(GLOBAL const float *g, GLOBAL const uint *mask, GLOBAL float *gx, GLOBAL float *gy, int n) {
    int i = ELEMENT;
    if (i < n) {
        int first = BIT(mask, i);
        float value = g[i];
        gx[i] = first ? value : 0;
        gy[i] = first ? 0 : value;
    }
}

/* ReLU: one slope for all, or one for each channel of `plane` elements. */

#define OWN (channels == 1 ? 0 : i / plane % channels)

KERNEL(GROUP) relu(GLOBAL const float *x, GLOBAL float *out, GLOBAL uint *mask, GLOBAL const float *slopes, int plane,
                   int channels, int n) {
    LOCAL uchar flags[GROUP];
    int i = ELEMENT, positive = 0;
    if (i < n) {
        float value = x[i], slope = slopes[OWN];
        positive = value > 0;
        if (value <= 0) value = slope == 0 ? 0 : value * slope; /* NaN stays */
        out[i] = value;
    }
    store_bits(mask, flags, positive, n);
}

/* Limited to low..high; a bit is set between the limits, and on them if `closed`. */
KERNEL(GROUP) clip(GLOBAL const float *x, GLOBAL float *out, GLOBAL uint *mask, float low, float high, int closed,
                   int n) {
    LOCAL uchar flags[GROUP];
    int i = ELEMENT, inside = 0;
    if (i < n) {
        float value = x[i], raised = value < low ? low : value; /* NaN stays */
        inside = closed ? value >= low && value <= high : value > low && value < high;
        out[i] = raised > high ? high : raised;
    }
    store_bits(mask, flags, inside, n);
}

KERNEL(GROUP) relu_backward(GLOBAL float *g, GLOBAL const uint *mask, GLOBAL const float *slopes, int plane,
                            int channels, int n) {
    int i = ELEMENT;
    if (i < n && !BIT(mask, i)) g[i] *= slopes[OWN];
}
