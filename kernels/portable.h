/* One name for the spellings of CUDA and OpenCL. Kernels are one-dimensional groups of `threads` work-items, of which a
   multiprocessor should hold `groups` at a time where that is given; indices are 32-bit (an array has fewer than 2^31
   elements). */

#ifdef __CUDACC__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define KERNEL_RESIDENT(threads, groups) extern "C" __global__ void __launch_bounds__(threads, groups)
#define GLOBAL
#define LOCAL __shared__
#define LOCAL_POINTER
#define ALIGNED __align__(16) /* for reading four floats at a time */
#define RESTRICT __restrict__
#define INLINE __device__ __forceinline__
#define BARRIER __syncthreads()
#define LOCAL_ID ((int)threadIdx.x)
#define GROUP_ID(axis) ((int)(axis == 0 ? blockIdx.x : axis == 1 ? blockIdx.y : blockIdx.z))
#define GROUPS(axis) ((int)(axis == 0 ? gridDim.x : axis == 1 ? gridDim.y : gridDim.z))
typedef unsigned int uint;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef double wide;
#define as_uint __float_as_uint
#define atomic_max atomicMax
#else
#define KERNEL(threads) __kernel __attribute__((reqd_work_group_size(threads, 1, 1))) void
#define KERNEL_RESIDENT(threads, groups) KERNEL(threads)
#define GLOBAL __global
#define LOCAL __local
#define LOCAL_POINTER __local
#define ALIGNED __attribute__((aligned(16)))
#define RESTRICT restrict
#define INLINE static inline
#define BARRIER barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#define LOCAL_ID ((int)get_local_id(0))
#define GROUP_ID(axis) ((int)get_group_id(axis))
#define GROUPS(axis) ((int)get_num_groups(axis))
#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
typedef double wide;
#else
typedef float wide;
#endif
#define fmaxf fmax
#define fabsf fabs
#define expf exp
#define expm1f expm1
#define log1pf log1p
#define logf log
#define powf pow
#define sqrtf sqrt
#define tanhf tanh
#endif

/* The size of a group in the kernels that treat one element per work-item. */
#define GROUP 256
#define ELEMENT (GROUP_ID(0) * GROUP + LOCAL_ID)

/* Fused operations of a convolution, the names and numbers of backends/device/conv_problem.py.

   The argument `epilogue` of a kernel, the operations on a sum with its bias:
   RELU: max(y, 0). RELU_BITS: and one bit per element is stored, 1 where y > 0. RELU_POOL: and a 2×2 max pool of stride 2,
   windows clipped at the border; stored with the largest is its place, 0 to 3 row by row, or 4 where it is not above 0. */
#define BIAS 0
#define RELU 1
#define RELU_BITS 2
#define RELU_POOL 3

/* The macro PROLOGUE, how a gradient x is masked as it is read:
   MASK_BITS: x counts only where its bit is set, the gradient of a ReLU. POOL_WINNERS: x is the gradient of a 2×2 max pool
   after a ReLU, and counts at the winners. MASK_TILES: as MASK_BITS, with 16 bits for each tile of winograd.cl. */
#define NONE 0
#define MASK_BITS 1
#define POOL_WINNERS 2
#define MASK_TILES 3

/* A reduction in one launch: each group writes its part and draws a ticket, and the last group to come, whichever it is,
   does the second stage. No group waits. Counters are zero before a launch and after it; all work being on one stream,
   kernels share them. OpenCL 1.2 does not promise that a group sees the writes of another in the same launch, so there
   none comes last, and a second launch does the second stage. */

#ifdef __CUDACC__
/* 1 if this group is the last of `groups` to come to `counter`; then the earlier writes of all may be read, by FRESH.
   All work-items must come here; `place` is shared memory that is not in use. */
INLINE int comes_last(GLOBAL uint *counter, int groups, LOCAL_POINTER uint *place) {
    BARRIER;
    if (LOCAL_ID == 0) {
        __threadfence();
        place[0] = atomicInc(counter, (uint)groups - 1);
        __threadfence();
    }
    BARRIER;
    return place[0] == (uint)groups - 1;
}
#define FRESH(from) __ldcg(from) /* past the multiprocessor's own cache */

/* result[0] ← the largest magnitude over `groups` groups, called by one work-item of each. `scratch` has two places. */
INLINE void leave_largest(GLOBAL float *result, GLOBAL uint *scratch, uint bits, int groups) {
    atomicMax(scratch, bits);
    __threadfence();
    if (atomicInc(scratch + 1, (uint)groups - 1) == (uint)groups - 1) {
        __threadfence();
        result[0] = __uint_as_float(atomicExch(scratch, 0));
    }
}
#else
#define comes_last(counter, groups, place) 0
#define leave_largest(result, scratch, bits, groups)
#define FRESH(from) (*(from))
#endif

/* A factor that may still be on the device: (a v + b) / (c v + d) for the value at v, which may be infinite. */
#define FACTOR GLOBAL const float *RESTRICT v, float fa, float fb, float fc, float fd
#define FACTOR_VALUE quotient(v[0], fa, fb, fc, fd)

INLINE float quotient(float v, float a, float b, float c, float d) {
    return (a == 0 ? b : a * v + b) / (c == 0 ? d : c * v + d);
}

/* Bits are packed 32 to a word, the lowest first. */
#define BIT(words, index) ((words)[(index) >> 5] >> ((index) & 31) & 1u)

/* Pack one flag per work-item of a group; all work-items must come here. */
INLINE void store_bits(GLOBAL uint *words, LOCAL_POINTER uchar *flags, int flag, int count) {
    int first = GROUP_ID(0) * GROUP;
    flags[LOCAL_ID] = (uchar)flag;
    BARRIER;
    if (LOCAL_ID < GROUP / 32 && first + LOCAL_ID * 32 < count) {
        uint word = 0;
        for (int i = 0; i < 32; i++) word |= (uint)flags[LOCAL_ID * 32 + i] << i;
        words[first / 32 + LOCAL_ID] = word;
    }
}

/* The sum over a group of 256, in every work-item; `shared` has 256 places. */
INLINE float group_sum(LOCAL_POINTER float *shared, float value) {
    BARRIER;
    shared[LOCAL_ID] = value;
    for (int reach = GROUP / 2; reach > 0; reach /= 2) {
        BARRIER;
        if (LOCAL_ID < reach) shared[LOCAL_ID] += shared[LOCAL_ID + reach];
    }
    BARRIER;
    return shared[0];
}

/* The place of element i of an array of n elements, extents (.., n1, n2, n3), with the strides s0 to s3; divisions take
   longer than the memory, and the first two cases are the most frequent. */
INLINE int place_of(int i, int n, int n1, int n2, int n3, int s0, int s1, int s2, int s3) {
    if (n3 == n) return i * s3;
    if (n2 * n3 == n) return i / n3 * s2 + i % n3 * s3;
    return i / n3 / n2 / n1 * s0 + i / n3 / n2 % n1 * s1 + i / n3 % n2 * s2 + i % n3 * s3;
}

/* NaN stays where numbers are clipped or compared: max(value, 0); 1 if a candidate replaces the largest so far; the
   larger of two. */
INLINE float rectified(float value) { return value < 0 ? 0 : value; }
#define BEATS(candidate, best) ((candidate) > (best) || (candidate) != (candidate))
#define LARGER(a, b) (BEATS(b, a) ? (b) : (a))

/* The largest number of a 2×2 window inside the map; `best` holds the first number, which is winner 0. */
#define TAKE_LARGEST(best, winner, right, below, second, third, fourth)            \
    {                                                                              \
        if ((right) && BEATS(second, best)) best = second, winner = 1;             \
        if ((below) && BEATS(third, best)) best = third, winner = 2;               \
        if ((right) && (below) && BEATS(fourth, best)) best = fourth, winner = 3;  \
    }

/* Four floats as one that is read or written at once, and back. */
INLINE float4 together(float x, float y, float z, float w) {
    float4 quad;
    quad.x = x;
    quad.y = y;
    quad.z = z;
    quad.w = w;
    return quad;
}

#define SPREAD(to, at, quad)     \
    {                            \
        const float4 q_ = quad;  \
        to[at] = q_.x;           \
        to[(at) + 1] = q_.y;     \
        to[(at) + 2] = q_.z;     \
        to[(at) + 3] = q_.w;     \
    }
