/* Reductions over all groups of a launch, in a fixed order. Each group leaves one number in `parts`; the last group to come
   (comes_last) or, in OpenCL, a second launch (`total` and `largest` in reduce.cl) joins these, in the same order. A single
   group has the result at once. */

#define PLUS(a, b) ((a) + (b))

/* shared[0] ← the join of a value of each of the group's `threads` work-items, a power of two; for work-item 0. */
#define OVER_GROUP(shared, value, threads, join)                                                       \
    {                                                                                                  \
        BARRIER;                                                                                       \
        shared[LOCAL_ID] = value;                                                                      \
        for (int reach_ = (threads) / 2; reach_ > 0; reach_ /= 2) {                                    \
            BARRIER;                                                                                   \
            if (LOCAL_ID < reach_) shared[LOCAL_ID] = join(shared[LOCAL_ID], shared[LOCAL_ID + reach_]); \
        }                                                                                              \
    }

/* Store the result of group `number` of `count`, in shared[0]. */
#define LEAVE(parts, out, shared, number, count) \
    if (LOCAL_ID == 0) *((count) == 1 ? (out) : (parts) + (number)) = shared[0];

/* out[0] ← the join of the parts of `count` groups. */
#define OVER_GROUPS(parts, out, shared, count, threads, initial, join)     \
    {                                                                      \
        float all_ = initial;                                              \
        for (int i_ = LOCAL_ID; i_ < (count); i_ += (threads)) {           \
            const float part_ = FRESH((parts) + i_);                       \
            all_ = join(all_, part_);                                      \
        }                                                                  \
        OVER_GROUP(shared, all_, threads, join)                            \
        if (LOCAL_ID == 0) *(out) = shared[0];                             \
    }

#define COMES_LAST(counter, shared) comes_last(counter, GROUPS(0), (LOCAL_POINTER uint *)(shared))

/* Both, where the groups are numbered along the first axis and have GROUP work-items. */
#define FINISH(parts, out, counter, shared, join)                          \
    {                                                                      \
        LEAVE(parts, out, shared, GROUP_ID(0), GROUPS(0))                  \
        if (COMES_LAST(counter, shared) && GROUPS(0) > 1)                  \
            OVER_GROUPS(parts, out, shared, GROUPS(0), GROUP, 0, join)     \
    }
