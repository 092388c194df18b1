/* Hopper's tensor cores (PTX ISA, wgmma of sm_90a) behind a few primitives.

   A warpgroup (four warps) multiplies 64 × 8 words, which its lanes hold as the fragments of mma.sync, by 8 words × N
   positions that the tensor cores read from shared memory, at the place of a descriptor: `start` is a core matrix, 8
   positions × 4 words, 16 bytes a position, without a gap or a swizzle; `stride` further on are the next 8 positions, `leading`
   further on the next 4 words. (PTX ISA, "Strides": along the summed axis, where that is contiguous and not swizzled, the
   leading offset goes from the first 16 bytes to the second; so says cute/atom/mma_traits_sm90_gmma.hpp of CUTLASS:
   ((8, m), (T, 2)) : ((1T, stride), (1, leading)). "Register Fragments and Shared Memory Matrix Layouts": starting
   addresses must be multiples of 16.) The sums lie as the sums of mma.sync, for each 8 positions.

   Products are asynchronous: their words and weights must stay until PRODUCT_WAIT. Stores reach the tensor cores by
   PUBLISH. */

#if WGMMA
/* In units of 16 bytes. */
#define DESCRIPTOR(start, leading, stride) ((ulong)(stride) << 32 | (uint)(leading) << 16 | (uint)(start))

typedef unsigned long long ulong;

#define SHARED_ADDRESS(array, offset) (((uint)__cvta_generic_to_shared(array) >> 4) + (offset))
#define PUBLISH                                                        \
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
#define SUMS_OF_4(c, j) SUMS_OF(c, j), SUMS_OF(c, (j) + 2), SUMS_OF(c, (j) + 4), SUMS_OF(c, (j) + 6)
#define SUMS_OF_8(c, j) SUMS_OF_4(c, j), SUMS_OF_4(c, (j) + 8)

#define OF_32 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"  \
              "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define OF_48 OF_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define OF_64 OF_48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#if PH == 16
#define PRODUCT_NAME "m64n128" WGMMA_TYPES " {" OF_64 "}, {%64,%65,%66,%67}, %68" WGMMA_END
#define SUMS_OF_HALF(c, j) SUMS_OF_8(c, j), SUMS_OF_8(c, (j) + 16)
#elif PH == 12
#define PRODUCT_NAME "m64n96" WGMMA_TYPES " {" OF_48 "}, {%48,%49,%50,%51}, %52" WGMMA_END
#define SUMS_OF_HALF(c, j) SUMS_OF_8(c, j), SUMS_OF_4(c, (j) + 16)
#else
#define PRODUCT_NAME "m64n64" WGMMA_TYPES " {" OF_32 "}, {%32,%33,%34,%35}, %36" WGMMA_END
#define SUMS_OF_HALF(c, j) SUMS_OF_8(c, j)
#endif
/* sums[2i + first] += a · the i-th 8 of 8 · PH positions. */
#define PRODUCT_BEGIN asm volatile("wgmma.fence.sync.aligned;" ::: "memory")
#define PRODUCT(sums, first, a, b)                                   \
    asm volatile("wgmma.mma_async.sync.aligned." PRODUCT_NAME        \
                 : SUMS_OF_HALF(sums, first)                         \
                 : "r"((a).x), "r"((a).y), "r"((a).z), "r"((a).w), "l"(b));
#define PRODUCT_COMMIT asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory")
/* Wait until no more than `pending` of the last commits are under way; after 0 the sums may be used. together: in all
   warpgroups. */
#define PRODUCT_WAIT(sums, pending, together)                                                       \
    {                                                                                                         \
        asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");                          \
        if (!(pending)) {                                                                                     \
            UNROLL for (int j_ = 0; j_ < 2 * PH; j_++) asm volatile("" : SUMS_OF(sums, j_)::"memory");        \
        }                                                                                                     \
        if (together) BARRIER;                                                                                \
    }

#endif
