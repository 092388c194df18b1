/* The end of a convolution with split channels: the partial sums in fixed order, bias, and the epilogue (portable.h). One
   row of groups per output channel. */
KERNEL(GROUP) finish(GLOBAL const float *RESTRICT shares, GLOBAL const float *RESTRICT bias, GLOBAL float *RESTRICT y,
                     GLOBAL uint *RESTRICT bits, int splits, int outputs, int plane, int epilogue) {
    LOCAL uchar flags[GROUP];
    const int p = ELEMENT, output = GROUP_ID(1);
    float value = 0;
    if (p < plane) {
        for (int i = 0; i < splits; i++) value += shares[(i * outputs + output) * plane + p];
        value += bias[output];
        y[output * plane + p] = epilogue != BIAS ? rectified(value) : value;
    }
    store_bits(bits + output * ((plane + 31) / 32), flags, p < plane && value > 0, epilogue == RELU_BITS ? plane : 0);
}

/* The same for RELU_POOL: one window per work-item; four partial sums in a row are a window. */
KERNEL(GROUP) finish_pool(GLOBAL const float *RESTRICT shares, GLOBAL const float *RESTRICT bias,
                          GLOBAL float *RESTRICT y, GLOBAL uchar *RESTRICT winners, int splits, int outputs,
                          int out_height, int out_width, int pooled_height, int pooled_width) {
    const int window = ELEMENT, output = GROUP_ID(1), windows = pooled_height * pooled_width;
    if (window >= windows) return;
    const int row0 = window / pooled_width * 2, column0 = window % pooled_width * 2;
    float best = 0;
    int winner = 0;
    for (int place = 0; place < 4; place++) {
        if (row0 + place / 2 < out_height && column0 + place % 2 < out_width) {
            float value = 0;
            for (int i = 0; i < splits; i++) value += shares[((i * outputs + output) * windows + window) * 4 + place];
            value += bias[output];
            if (place == 0 || BEATS(value, best)) {
                best = value;
                winner = place;
            }
        }
    }
    y[output * windows + window] = rectified(best);
    winners[output * windows + window] = (uchar)(best > 0 ? winner : 4);
}
