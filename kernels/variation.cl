/* Total variation of x: (channels, h, w): the gradient is added to `out`; in `squares` (reduction.h)
   Σ (x[i,j]−x[i,j+1])² + (x[i,j]−x[i+1,j])² over the (h−1)×(w−1) block. */
KERNEL(GROUP) total_variation(GLOBAL const float *RESTRICT x, GLOBAL float *RESTRICT out, GLOBAL float *parts,
                              GLOBAL float *squares, GLOBAL uint *counter, float weight, int h, int w, int n) {
    LOCAL float shared[GROUP];
    float value = 0;
    for (int i = ELEMENT; i < n; i += GROUPS(0) * GROUP) {
        int row = i / w % h, column = i % w;
        int right = column < w - 1, below = row < h - 1;
        float centre = x[i], gradient = 0;
        if (right && below) {
            float along = centre - x[i + 1], down = centre - x[i + w];
            gradient = along + down;
            value += along * along + down * down;
        }
        if (column > 0 && below) gradient -= x[i - 1] - centre;
        if (row > 0 && right) gradient -= x[i - w] - centre;
        out[i] += weight * gradient;
    }
    OVER_GROUP(shared, value, GROUP, PLUS)
    FINISH(parts, squares, counter, shared, PLUS)
}
