/* A (size, size) matrix as weights of a 1 × 1 convolution (see convolution.cu): one word per work-item, in the order chunk,
   block of 16 outputs, half of the chunk, lane, register. m[k, o] is read at (o, k): m is symmetric. */

KERNEL(GROUP) pack(GLOBAL const float *RESTRICT m, GLOBAL uint *RESTRICT words, GLOBAL const float *RESTRICT peak,
                   int size) {
    const int i = ELEMENT;
    if (i >= size * size / WIDTH) return;
    const int place = i % 4, lane = i / 4 % 32, half_ = i / 128 % 2;
    const int block = i / 256 % (size / 16), chunk = i / 256 / (size / 16);
    const int output = block * 16 + place % 2 * 8 + lane / 4;
    const int channel = (chunk * 16 + half_ * 8 + place / 2 * 4 + lane % 4) * WIDTH;
    GLOBAL const float *from = m + output * size + channel;
    words[i] = word(from[0] * fitting(peak[0]), from[WIDTH - 1] * fitting(peak[0]));
}
