/* Adam (Kingma and Ba 2015, algorithm 1). */

/* Count a step; rates: the learning rate and epsilon with the bias corrections 1 − beta^step in them. */
KERNEL(1) adam_rates(GLOBAL float *count, GLOBAL float *rates, float rate, float log_beta1, float log_beta2,
                     float epsilon) {
    const float step = count[0] + 1;
    const float correction = sqrtf(-expm1f(step * log_beta2));
    count[0] = step;
    rates[0] = rate * correction / -expm1f(step * log_beta1);
    rates[1] = epsilon * correction;
}

/* gain = 1 − beta with the digits that float loses in the subtraction. */
KERNEL(GROUP) adam_step(GLOBAL float *x, GLOBAL const float *g, GLOBAL float *m, GLOBAL float *v,
                        GLOBAL const float *rates, float beta1, float gain1, float beta2, float gain2, int n) {
    int i = ELEMENT;
    if (i >= n) return;
    float gradient = g[i];
    float first = beta1 * m[i] + gain1 * gradient;
    float second = beta2 * v[i] + gain2 * gradient * gradient;
    m[i] = first;
    v[i] = second;
    x[i] -= rates[0] * first / (sqrtf(second) + rates[1]);
}
