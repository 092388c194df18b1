/* Functions of one number, chosen by -DFUNCTION; p, q, r are their parameters (see _FUNCTIONS in backends/reference/activations.py).
   The derivative is computed from the array that the table says is saved. */

#define SIGMOID 0
#define TANH 1
#define ELU 2
#define ABS 3
#define POWER 4
#define LINEAR 5
#define EXP 6
#define LOG 7
#define BNLL 8
#define SWISH 9
#define STEP 10

/* x to a power as in C, but with whole powers of a negative number exact on every device. */
INLINE float power_of(float x, float power) {
    if (power == 0) return 1;
    if (power == 1) return x;
    if (power == 2) return x * x;
    return powf(x, power);
}

INLINE float sigmoid(float x) { return 1 / (1 + expf(-x)); }

KERNEL(GROUP) map_forward(GLOBAL const float *in, GLOBAL float *out, float p, float q, float r, int n) {
    int i = ELEMENT;
    if (i >= n) return;
    float x = in[i];
#if FUNCTION == SIGMOID
    out[i] = sigmoid(x);
#elif FUNCTION == TANH
    out[i] = tanhf(x);
#elif FUNCTION == ELU
    out[i] = x > 0 ? x : p * expm1f(x);
#elif FUNCTION == ABS
    out[i] = fabsf(x);
#elif FUNCTION == POWER
    out[i] = power_of(q * x + r, p);
#elif FUNCTION == LINEAR
    out[i] = p * x + q;
#elif FUNCTION == EXP
    out[i] = expf(p * x + q);
#elif FUNCTION == LOG
    out[i] = p * logf(q * x + r);
#elif FUNCTION == BNLL
    out[i] = rectified(x) + log1pf(expf(-fabsf(x)));
#elif FUNCTION == SWISH
    out[i] = x * sigmoid(p * x);
#elif FUNCTION == STEP
    out[i] = x > p;
#endif
}

KERNEL(GROUP) map_backward(GLOBAL float *g, GLOBAL const float *saved, float p, float q, float r, int n) {
    int i = ELEMENT;
    if (i >= n) return;
#if FUNCTION == LINEAR
    g[i] *= p;
#elif FUNCTION == STEP
    g[i] *= 0;
#else
    float s = saved[i];
#if FUNCTION == SIGMOID
    g[i] *= s * (1 - s);
#elif FUNCTION == TANH
    g[i] *= 1 - s * s;
#elif FUNCTION == ELU
    g[i] *= s > 0 ? 1 : s + p;
#elif FUNCTION == ABS
    g[i] *= s > 0 ? 1 : s < 0 ? -1 : 0;
#elif FUNCTION == POWER
    g[i] *= p * q * power_of(q * s + r, p - 1);
#elif FUNCTION == EXP
    g[i] *= p * s;
#elif FUNCTION == LOG
    g[i] *= p * q / (q * s + r);
#elif FUNCTION == BNLL
    g[i] *= sigmoid(s);
#elif FUNCTION == SWISH
    float share = sigmoid(p * s);
    g[i] *= share * (1 + p * s * (1 - share));
#endif
#endif
}
