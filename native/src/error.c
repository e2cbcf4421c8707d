/* error.c -- codes, names, sentences; the stop on a broken invariant; fault points; the clock.
 *
 * Fault points are places that a test makes fail or leaves out, by name, through dh_fault_set:
 *
 *   arena.reserve   dh_reserve fails with the code
 *   watch.scan      a chunk's scan fails with the code after its pages were re-armed and before
 *                   anybody saw which: the chunk must be reported whole. A peek is no scan
 *   watch.vec_len   the kernel's vector has so many places only (code: 1 and more)
 *   watch.runs      no memory for a run of pages that a write watch is told
 *   watch.merge     the pages of a scan reach no cursor (negative control: a checker must notice)
 *   watch.arm       arming fails: all pages asked for are dirty in every cursor
 *
 *   alloc.cell      an allocation fails with the code
 *   commit.encode   encoding a capture fails with the code
 *   extent.write    writing a base file fails with the code
 *
 * A fault stays armed until it is reset. With nothing armed a fault point costs one load.
 */
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "heap.h"

#define FAULTS_MAX 16u
#define FAULT_NAME_BYTES 48u

typedef struct {
    char name[FAULT_NAME_BYTES]; /* "": unused                                   */
    uint64_t after_count;        /* hits that pass before the first that fails   */
    uint64_t hits_count;         /* hits since the fault was set                 */
    int rc;                      /* 0: count only                                */
} fault;

int dhi_faults_armed; /* faults in use */
static fault faults[FAULTS_MAX];
static pthread_mutex_t faults_lock = PTHREAD_MUTEX_INITIALIZER;

/* --- errors ----------------------------------------------------------------------------------- */

_Noreturn void dhi_assert_failed(const char *file, int line, const char *text)
{
    fprintf(stderr, "dirtyheap: %s:%d: broken invariant: %s\n", file, line, text);
    abort();
}

int dhi_fail(const dh_heap *heap, int rc, const char *format, ...)
{
    char text[sizeof(heap->error_text)]; /* an argument may be the old text itself */
    va_list arguments;

    if (heap == NULL)
        return rc;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    /* The sentence is a note about the heap, not part of it: readers fail too. */
    memcpy(((dh_heap *)(uintptr_t)heap)->error_text, text, sizeof(text));
    return rc;
}

const char *dh_heap_error_text(const dh_heap *heap) { return heap != NULL ? heap->error_text : ""; }

static const char *errno_name(int number)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || (__GLIBC__ == 2 && __GLIBC_MINOR__ >= 32))
    const char *name = strerrorname_np(number);
    return name != NULL ? name : "unknown errno";
#else
    (void)number;
    return "errno";
#endif
}

const char *dh_error_name(int rc)
{
    switch (rc) {
    case 0:
        return "OK";
    case DH_E_FULL:
        return "DH_E_FULL";
    case DH_E_CORRUPT:
        return "DH_E_CORRUPT";
    case DH_E_WATCH:
        return "DH_E_WATCH";
    case DH_E_FORKED:
        return "DH_E_FORKED";
    case DH_E_LIMIT:
        return "DH_E_LIMIT";
    case DH_E_ABSENT:
        return "DH_E_ABSENT";
    case DH_E_FORMAT:
        return "DH_E_FORMAT";
    case DH_E_CLOSED:
        return "DH_E_CLOSED";
    case DH_E_UNHASHABLE:
        return "DH_E_UNHASHABLE";
    case DH_E_TRACKER:
        return "DH_E_TRACKER";
    case DH_E_UNORDERED:
        return "DH_E_UNORDERED";
    case DH_E_READ_ONLY:
        return "DH_E_READ_ONLY";
    case DH_E_UNREPORTED:
        return "DH_E_UNREPORTED";
    default:
        return rc > 0 ? errno_name(rc) : "unknown code";
    }
}

bool dhi_is_shortage(int rc) { return rc == ENOMEM || rc == EMFILE || rc == ENFILE; }

void dhi_explain_shortage(int rc, char *text_out, size_t text_size)
{
    if (rc == EMFILE)
        snprintf(text_out, text_size,
                 "no file descriptor is left (%s): close files or raise 'ulimit -n'; the kernel's "
                 "tracking takes two for each heap or watch, and four while it is opened",
                 strerror(rc));
    else if (rc == ENFILE)
        snprintf(text_out, text_size,
                 "the whole system has no open file left (%s): raise the sysctl fs.file-max",
                 strerror(rc));
}

/* --- fault points ----------------------------------------------------------------------------- */

/* The fault of that name, or the first unused slot for name "", or NULL. */
static fault *fault_find(const char *name)
{
    for (size_t i = 0; i < FAULTS_MAX; i++)
        if (strcmp(faults[i].name, name) == 0)
            return &faults[i];
    return NULL;
}

static void faults_reset(void)
{
    memset(faults, 0, sizeof(faults));
    __atomic_store_n(&dhi_faults_armed, 0, __ATOMIC_RELAXED);
}

static int fault_arm(const char *name, uint64_t after_count, int rc)
{
    size_t size = strlen(name);
    fault *slot = fault_find(name);

    if (size >= FAULT_NAME_BYTES)
        return ENAMETOOLONG;
    if (slot == NULL) {
        slot = fault_find("");
        if (slot == NULL)
            return ENOSPC;
        memcpy(slot->name, name, size + 1);
        __atomic_add_fetch(&dhi_faults_armed, 1, __ATOMIC_RELAXED);
    }
    slot->after_count = after_count;
    slot->hits_count = 0;
    slot->rc = rc;
    return 0;
}

/* Hits number after_count + 1 and later fail with rc; rc 0 only counts. A NULL or empty name
 * resets all. */
int dh_fault_set(const char *name, uint64_t after_count, int rc)
{
    int result = 0;

    pthread_mutex_lock(&faults_lock);
    if (name == NULL || name[0] == '\0')
        faults_reset();
    else
        result = fault_arm(name, after_count, rc);
    pthread_mutex_unlock(&faults_lock);
    return result;
}

uint64_t dh_fault_hits(const char *name)
{
    uint64_t hits_count = 0;
    const fault *slot;

    if (name == NULL || name[0] == '\0')
        return 0;
    pthread_mutex_lock(&faults_lock);
    slot = fault_find(name);
    if (slot != NULL)
        hits_count = slot->hits_count;
    pthread_mutex_unlock(&faults_lock);
    return hits_count;
}

int dhi_fault_check(const char *name)
{
    int rc = 0;
    fault *slot;

    pthread_mutex_lock(&faults_lock);
    slot = fault_find(name);
    if (slot != NULL && slot->hits_count++ >= slot->after_count)
        rc = slot->rc;
    pthread_mutex_unlock(&faults_lock);
    if (rc == DH_FAULT_KILL)
        kill(getpid(), SIGKILL);
    return rc;
}

/* --- time ------------------------------------------------------------------------------------- */

uint64_t dhi_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
