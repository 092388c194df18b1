/* Hopper's tensor cores (PTX ISA, wgmma of sm_90a) behind a few primitives, and on OpenCL their emulation, as in tensor.h.

   A warpgroup (four warps) multiplies 64 × 8 words, which its lanes hold as the fragments of mma.sync, by 8 words × N
   positions that the tensor cores read from shared memory, where a descriptor says: `start` is a core matrix, 8 positions
   × 4 words, 16 bytes a position, without a gap or a swizzle; `stride` further on are the next 8 positions, `leading`
   further on the next 4 words. (PTX ISA, "Strides": along the summed axis, where that is contiguous and not swizzled, the
   leading offset goes from the first 16 bytes to the second; so says cute/atom/mma_traits_sm90_gmma.hpp of CUTLASS:
   ((8, m), (T, 2)) : ((1T, stride), (1, leading)). "Register Fragments and Shared Memory Matrix Layouts": starting
   addresses must be multiples of 16.) The sums lie as those of mma.sync, for each 8 positions.

   Products are asynchronous: their words and weights must stay until they are waited for. Stores reach the tensor cores
   when they are published. The emulation takes each liberty in turn: in one group stores arrive when they are published
   and products are done when they are asked for, in the next one stores arrive at once and products are done when they
   are waited for. What a descriptor reads outside of the array is NaN. */

#if WGMMA
/* In units of 16 bytes. */
#define DESCRIPTOR(start, leading, stride) ((ulong)(stride) << 32 | (uint)(leading) << 16 | (uint)(start))

#ifdef __CUDACC__
typedef unsigned long long ulong;

#define QUAD(x, y, z, w) make_uint4(x, y, z, w)
#define REGISTERS(name, count) uint4 name[count];
#define OWN(name, index) name[index]
#define SHARED(name, count) LOCAL uint4 name[count];
#define SHARED_ADDRESS(array, offset) (((uint)__cvta_generic_to_shared(array) >> 4) + (offset))
#define SHARED_STORE(array, offset, quad) (array)[offset] = quad;
#define SHARED_PUBLISH(array)                                          \
    {                                                                  \
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");   \
        BARRIER;                                                       \
    }

#if PRECISION == 0
#define WGMMA_TYPES "k8.f32.tf32.tf32"
#define WGMMA_END ", 1, 1, 1;"
#elif PRECISION == 1
#define WGMMA_TYPES "k16.f32.bf16.bf16"
#define WGMMA_END ", 1, 1, 1, 0;"
#else
#define WGMMA_TYPES "k16.f32.f16.f16"
#define WGMMA_END ", 1, 1, 1, 0;"
#endif

#define SUMS_OF(c, j) "+f"((c)[j][0]), "+f"((c)[j][1]), "+f"((c)[j][2]), "+f"((c)[j][3])
#define SUMS_OF_8(c, j)                                                                                     \
    SUMS_OF(c, j), SUMS_OF(c, (j) + 2), SUMS_OF(c, (j) + 4), SUMS_OF(c, (j) + 6), SUMS_OF(c, (j) + 8),      \
        SUMS_OF(c, (j) + 10), SUMS_OF(c, (j) + 12), SUMS_OF(c, (j) + 14)

/* sums[2i + first] += a · the i-th 8 of 8 · PH positions. */
#define PRODUCT_STATE(products)
#define PRODUCT_BEGIN asm volatile("wgmma.fence.sync.aligned;" ::: "memory")
#if PH == 16
#define PRODUCT(sums, first, a, index, b)                                                                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128" WGMMA_TYPES " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,"   \
                 "%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38," \
                 "%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,"     \
                 "%63}, {%64,%65,%66,%67}, %68" WGMMA_END                                                               \
                 : SUMS_OF_8(sums, first), SUMS_OF_8(sums, (first) + 16)                                                \
                 : "r"(a[index].x), "r"(a[index].y), "r"(a[index].z), "r"(a[index].w), "l"(b));
#else
#define PRODUCT(sums, first, a, index, b)                                                                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64" WGMMA_TYPES " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,"    \
                 "%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36"     \
                 WGMMA_END                                                                                              \
                 : SUMS_OF_8(sums, first)                                                                               \
                 : "r"(a[index].x), "r"(a[index].y), "r"(a[index].z), "r"(a[index].w), "l"(b));
#endif
#define PRODUCT_COMMIT asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory")
/* Until no more than so many of the last commits are under way; after 0 of them the sums may be used. together: in all
   warpgroups. */
#define PRODUCT_WAIT(sums, pending, a, array, together)                                                       \
    {                                                                                                         \
        asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");                          \
        if (!(pending)) {                                                                                     \
            UNROLL for (int j_ = 0; j_ < 2 * PH; j_++) asm volatile("" : SUMS_OF(sums, j_)::"memory");        \
        }                                                                                                     \
        if (together) BARRIER;                                                                                \
    }

#else
#define QUAD(x, y, z, w) ((uint4)(x, y, z, w))
#define SHARED_BASE 0x41 /* where an array might begin */
#define SHARED(name, count)              \
    __local uint4 name[2 * (count)];     \
    const int eager = GROUP_ID(0) & 1, unpublished = eager * (count);
#define SHARED_ADDRESS(array, offset) (SHARED_BASE + (offset))
#define SHARED_SIZE(array) ((int)(sizeof(array) / 32))
#define SHARED_STORE(array, offset, quad) (array)[unpublished + (offset)] = quad;
#define SHARED_PUBLISH(array)                                         \
    {                                                                 \
        BARRIER;                                                      \
        for (int i_ = LOCAL_ID; i_ < SHARED_SIZE(array); i_ += THREADS) \
            (array)[i_] = (array)[unpublished + i_];                  \
        BARRIER;                                                      \
    }

#define REGISTERS(name, count) __local uint4 name[(count) * THREADS];
#define OWN(name, index) name[(index) * THREADS + LOCAL_ID]

#define PRODUCT_STATE(products)      \
    const int asked_most = products; \
    int asked_a[products];           \
    ulong asked_b[products];         \
    int asked_first[products];       \
    int asked = 0, done = 0, committed[2] = {0, 0};
#define PRODUCT_BEGIN BARRIER
#define PRODUCT(sums, first, a, index, b)          \
    {                                              \
        asked_a[asked % asked_most] = index;       \
        asked_b[asked % asked_most] = b;           \
        asked_first[asked++ % asked_most] = first; \
    }
#define PRODUCT_COMMIT               \
    {                                \
        committed[1] = committed[0]; \
        committed[0] = asked;        \
    }
#define PRODUCT_WAIT(sums, pending, a, array, together)                                                            \
    {                                                                                                              \
        for (; done < (eager ? asked : committed[pending]); done++)                                                \
            multiply_shared(sums, asked_first[done % asked_most],                                                   \
                            &a[asked_a[done % asked_most] * THREADS + WARP * 32], asked_b[done % asked_most],       \
                            array, SHARED_SIZE(array));                                                            \
        BARRIER;                                                                                                   \
    }
/* PoCL 3.0 reads other memory than the array's if this is not inlined. */
__attribute__((always_inline)) INLINE void multiply_shared(float (*c)[4], int first, __local const uint4 *a, ulong b,
                                                           __local const uint4 *shared, int size) {
    const uint low = (uint)b, high = (uint)(b >> 32);
    const int start = (int)(low & 0x3fff) - SHARED_BASE, leading = low >> 16 & 0x3fff, stride = high & 0x3fff;
    const uint4 nothing = 0x7fffffffu;
    for (int i = 0; i < 2 * PH; i++) { /* two neighbours, of the positions of one row of core matrices */
        const int column = i / 2 * 8 + LANE % 4 * 2 + i % 2;
        for (int half_ = 0; half_ < 2; half_++) { /* of the words */
            const int at = start + column / 8 * stride + column % 8 + half_ * leading;
            const uint4 right = (uint)at < (uint)size && high >> 17 == 0 ? shared[at] : nothing;
            for (int r = 0; r < 2; r++) { /* rows */
                float *sum = &c[i / 2 * 2 + first][r * 2 + i % 2], value = *sum;
                __local const uint *left = (__local const uint *)&a[LANE / 4 * 4] + half_ * 2 + r;
                value = product_of_words(left[0], right.x, value);
                value = product_of_words(left[4], right.y, value);
                value = product_of_words(left[8], right.z, value);
                *sum = product_of_words(left[12], right.w, value);
            }
        }
    }
}
#endif
#endif
