/* Adam (Kingma and Ba 2015, algorithm 1): rate and epsilon come with the bias corrections in them,
   gain = 1 − beta with the digits that float loses in the subtraction. */
KERNEL(GROUP) adam_step(GLOBAL float *x, GLOBAL const float *g, GLOBAL float *m, GLOBAL float *v, float rate, float beta1,
                        float gain1, float beta2, float gain2, float epsilon, int n) {
    int i = ELEMENT;
    if (i >= n) return;
    float gradient = g[i];
    float first = beta1 * m[i] + gain1 * gradient;
    float second = beta2 * v[i] + gain2 * gradient * gradient;
    m[i] = first;
    v[i] = second;
    x[i] -= rate * first / (sqrtf(second) + epsilon);
}
