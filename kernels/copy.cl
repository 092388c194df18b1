/* Copy a block of extents (.., n1, n2, n3) between two arrays with strides s and t (the innermost is 1). */
KERNEL(GROUP) copy_block(GLOBAL float *target, GLOBAL const float *source, int n, int n1, int n2, int n3, int target_start,
                         int t0, int t1, int t2, int source_start, int s0, int s1, int s2) {
    int i = ELEMENT;
    if (i >= n) return;
    int i3 = i % n3, i2 = i / n3 % n2, i1 = i / n3 / n2 % n1, i0 = i / n3 / n2 / n1;
    target[target_start + i0 * t0 + i1 * t1 + i2 * t2 + i3] = source[source_start + i0 * s0 + i1 * s1 + i2 * s2 + i3];
}

/* Gather the first numbers of up to 8 arrays in an array, from a place on. */
KERNEL(8) gather(GLOBAL float *to, int place, int count, GLOBAL const float *a, GLOBAL const float *b,
                 GLOBAL const float *c, GLOBAL const float *d, GLOBAL const float *e, GLOBAL const float *f,
                 GLOBAL const float *g, GLOBAL const float *h) {
    const int i = LOCAL_ID;
    GLOBAL const float *low = i == 0 ? a : i == 1 ? b : i == 2 ? c : d, *high = i == 4 ? e : i == 5 ? f : i == 6 ? g : h;
    if (i < count) to[place + i] = i < 4 ? low[0] : high[0];
}
