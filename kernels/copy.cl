/* Copy a block of extents (.., n1, n2, n3) between two arrays with strides s and t (the innermost is 1). */
KERNEL(GROUP) copy_block(GLOBAL float *target, GLOBAL const float *source, int n, int n1, int n2, int n3, int target_start,
                         int t0, int t1, int t2, int source_start, int s0, int s1, int s2) {
    int i = ELEMENT;
    if (i >= n) return;
    int i3 = i % n3, i2 = i / n3 % n2, i1 = i / n3 / n2 % n1, i0 = i / n3 / n2 / n1;
    target[target_start + i0 * t0 + i1 * t1 + i2 * t2 + i3] = source[source_start + i0 * s0 + i1 * s1 + i2 * s2 + i3];
}

/* One number into a place of an array. */
KERNEL(1) put(GLOBAL const float *from, GLOBAL float *to, int place) { to[place] = from[0]; }
