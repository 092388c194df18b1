/* The engine on any processor: SSE2, NEON or whatever the compiler makes of four-lane vectors. */

#define NAME(x) x##_portable
#define VL 4
#define ROWS 4
#define NV 2
#include "kernels.h"
