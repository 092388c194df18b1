/* The engine's threads, and the instruction sets of the processor. */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() ((void)0)
#endif

enum { MAX_THREADS = 256, SPINS = 500, PATIENCE = 1000000 }; /* PATIENCE: ns that an idle thread stays awake */

/* A job is open while its caller works on it. Threads that come in time join it, and only those are waited for: a thread
   that sleeps, or that another program keeps off its processor, delays nobody. */
static struct {
    pthread_mutex_t call;  /* held by the caller that uses the pool */
    pthread_mutex_t sleep; /* guards the condition */
    pthread_cond_t wake;
    pid_t owner;
    int64_t started;
    _Atomic int64_t ticket;   /* grows with every job */
    _Atomic int64_t sleeping; /* threads */
    _Atomic int64_t gate;     /* OPEN, and how many have joined */
    int64_t count, threads;
    void (*body)(void *, int64_t, int64_t);
    void *context;
    struct {
        _Alignas(64) _Atomic int64_t item;
    } next[MAX_THREADS]; /* of each thread's part of the items */
} pool = {.call = PTHREAD_MUTEX_INITIALIZER, .sleep = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static const int64_t OPEN = (int64_t)1 << 32;

/* A thread's own part first, which is the same part of the maps in every layer, then the rest of the others' parts. */
static void work(int64_t thread)
{
    for (int64_t i = 0; i < pool.threads; i++) {
        int64_t part = (thread + i) % pool.threads, end = pool.count * (part + 1) / pool.threads;
        for (int64_t item; (item = atomic_fetch_add(&pool.next[part].item, 1)) < end;)
            pool.body(pool.context, item, thread);
    }
}

static void join(int64_t thread)
{
    int64_t gate = atomic_load(&pool.gate);
    do
        if (!(gate & OPEN))
            return;
    while (!atomic_compare_exchange_weak(&pool.gate, &gate, gate + 1));
    if (thread < pool.threads)
        work(thread);
    atomic_fetch_sub(&pool.gate, 1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

/* Until there is a job after `seen`. The gap between two jobs is mostly shorter than it takes to wake a thread up. */
static void await_job(int64_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&pool.ticket) != seen)
            return;
        PAUSE();
    }
    for (int64_t start = now(); now() - start < PATIENCE; sched_yield())
        for (int i = 0; i < SPINS / 10; i++) {
            if (atomic_load(&pool.ticket) != seen)
                return;
            PAUSE();
        }
    pthread_mutex_lock(&pool.sleep);
    atomic_fetch_add(&pool.sleeping, 1);
    while (atomic_load(&pool.ticket) == seen)
        pthread_cond_wait(&pool.wake, &pool.sleep);
    atomic_fetch_sub(&pool.sleeping, 1);
    pthread_mutex_unlock(&pool.sleep);
}

static int64_t first_ticket[MAX_THREADS];

static void *worker(void *argument)
{
    int64_t thread = (intptr_t)argument, seen = first_ticket[thread];
    for (;;) {
        await_job(seen);
        seen = atomic_load(&pool.ticket);
        join(thread);
    }
    return NULL;
}

static void start(int64_t threads)
{
    if (pool.owner != getpid()) { /* after a fork only the caller's thread is left */
        pool.owner = getpid();
        pool.started = 1;
        atomic_store(&pool.sleeping, 0);
        pthread_mutex_init(&pool.sleep, NULL);
        pthread_cond_init(&pool.wake, NULL);
    }
    while (pool.started < threads) {
        pthread_t id;
        first_ticket[pool.started] = atomic_load(&pool.ticket);
        if (pthread_create(&id, NULL, worker, (void *)(intptr_t)pool.started))
            break; /* fewer threads do the same work */
        pthread_detach(id);
        pool.started++;
    }
}

void cvstyle_parallel(int64_t threads, int64_t count, void (*body)(void *, int64_t, int64_t), void *context)
{
    if (threads > count)
        threads = count;
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    /* Of several callers one has the pool; the others, devices beside it, do not wait but work alone. */
    if (threads < 2 || pthread_mutex_trylock(&pool.call)) {
        for (int64_t item = 0; item < count; item++)
            body(context, item, 0);
        return;
    }
    start(threads);
    pool.count = count, pool.threads = threads, pool.body = body, pool.context = context;
    for (int64_t part = 0; part < threads; part++)
        atomic_store(&pool.next[part].item, count * part / threads);
    atomic_store(&pool.gate, OPEN);
    atomic_fetch_add(&pool.ticket, 1);
    if (atomic_load(&pool.sleeping)) {
        pthread_mutex_lock(&pool.sleep);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.sleep);
    }
    work(0);
    atomic_fetch_and(&pool.gate, ~OPEN);
    for (int i = 0; atomic_load(&pool.gate); i++)
        if (i < SPINS)
            PAUSE();
        else
            sched_yield();
    pthread_mutex_unlock(&pool.call);
}

/* The best variant that this processor can run: 0 portable, 1 AVX2 with FMA, 2 AVX-512 (F, BW, DQ, VL). */
#if defined(__x86_64__)
/* Bits of extended control register 0: which registers the operating system keeps for a thread. */
static uint32_t kept_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}
#endif

/* 2: AVX-512 F, BW, DQ and VL; 1: AVX2 and FMA; 0: neither (Intel, Software Developer's Manual, volume 1, 14 and 15). */
int64_t cvstyle_variant(void)
{
#if defined(__x86_64__)
    const uint32_t avx2 = 1u << 5, avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_FMA))
        return 0;
    const uint32_t kept = kept_registers();
    if ((kept & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & avx2))
        return 0;
    return (kept & 0xe6) == 0xe6 && (b & avx512) == avx512 ? 2 : 1;
#else
    return 0;
#endif
}
