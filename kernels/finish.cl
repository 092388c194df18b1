/* The end of a convolution whose channels were shared out: sum of the shares in fixed order, bias, ReLU (relu as in
   convolution.cl). One row of groups per output channel. */
KERNEL(GROUP) finish(GLOBAL const float *RESTRICT shares, GLOBAL const float *RESTRICT bias, GLOBAL float *RESTRICT y,
                     GLOBAL uint *RESTRICT bits, int splits, int outputs, int plane, int relu) {
    LOCAL uchar flags[GROUP];
    const int p = ELEMENT, output = GROUP_ID(1);
    float value = 0;
    if (p < plane) {
        for (int i = 0; i < splits; i++) value += shares[(i * outputs + output) * plane + p];
        value += bias[output];
        y[output * plane + p] = relu ? rectified(value) : value;
    }
    store_bits(bits + output * ((plane + 31) / 32), flags, p < plane && value > 0, relu == 2 ? plane : 0);
}

/* The same with the max pool (relu = 3): one window per work-item; four shares in a row are a window. */
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
