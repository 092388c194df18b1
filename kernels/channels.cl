/* Operations across the channels of x: (channels, plane). */

/* s = k + alpha/size · Σ x² over `size` channels, y = x · s^-beta; one element per work-item. */
KERNEL(GROUP) lrn(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT y, GLOBAL float *RESTRICT s, int plane,
                  int channels, int size, float share, float beta, float k, int n) {
    int i = ELEMENT;
    if (i >= n) return;
    int c = i / plane, reach = (size - 1) / 2;
    int first = c < reach ? 0 : c - reach, last = c + reach < channels ? c + reach : channels - 1;
    float total = 0;
    for (int j = first; j <= last; j++) {
        float value = x[i + (j - c) * plane];
        total += value * value;
    }
    total = k + share * total;
    s[i] = total;
    y[i] = x[i] * powf(total, -beta);
}

/* g s^-beta − 2 · share · beta · x · Σ (g x s^(−beta−1)) */
KERNEL(GROUP) lrn_backward(GLOBAL const float *RESTRICT g, GLOBAL const float *RESTRICT x,
                           GLOBAL const float *RESTRICT s, GLOBAL float *RESTRICT out, int plane, int channels, int size,
                           float share, float beta, int n) {
    int i = ELEMENT;
    if (i >= n) return;
    int c = i / plane, reach = (size - 1) / 2;
    int first = c < reach ? 0 : c - reach, last = c + reach < channels ? c + reach : channels - 1;
    float total = 0;
    for (int j = first; j <= last; j++) {
        int at = i + (j - c) * plane;
        total += g[at] * x[at] * powf(s[at], -beta - 1);
    }
    out[i] = g[i] * powf(s[i], -beta) - 2 * share * beta * x[i] * total;
}

/* Softmax over the channels, one position per work-item. */
KERNEL(GROUP) softmax(GLOBAL const float *x, GLOBAL float *y, int plane, int channels) {
    int p = ELEMENT;
    if (p >= plane) return;
    float largest = x[p], total = 0;
    for (int c = 1; c < channels; c++) largest = fmaxf(largest, x[c * plane + p]);
    for (int c = 0; c < channels; c++) total += expf(x[c * plane + p] - largest);
    for (int c = 0; c < channels; c++) y[c * plane + p] = expf(x[c * plane + p] - largest) / total;
}

KERNEL(GROUP) softmax_backward(GLOBAL float *g, GLOBAL const float *y, int plane, int channels) {
    int p = ELEMENT;
    if (p >= plane) return;
    float along = 0;
    for (int c = 0; c < channels; c++) along += g[c * plane + p] * y[c * plane + p];
    for (int c = 0; c < channels; c++) g[c * plane + p] = (g[c * plane + p] - along) * y[c * plane + p];
}
