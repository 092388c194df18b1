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
        y[output * plane + p] = relu && value < 0 ? 0 : value;
    }
    store_bits(bits + output * ((plane + 31) / 32), flags, p < plane && value > 0, relu == 2 ? plane : 0);
}
