/* recursion.c -- how deep our recursive walks may go: as deep as the C stack allows, and no deeper.
 *
 * Py_EnterRecursiveCall counts levels. From CPython 3.12 on it allows ten thousand of them in C,
 * whatever a level takes and however small the thread's stack is. So the stack itself is looked at
 * too. Must be cheap: it is asked once per level.
 */
#include "state.h"

#include <pthread.h>

/* Left over for what a level calls beside the next level. */
#define STACK_RESERVE_BYTES ((uintptr_t)256 << 10)

/* Lowest address that a walk of this thread may come to; 0: not asked yet. */
static _Thread_local uintptr_t stack_limit;

static uintptr_t find_stack_limit(void)
{
    pthread_attr_t attributes;
    void *lowest = NULL;
    size_t bytes = 0;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return 1; /* unknown: levels are counted only */
    if (pthread_attr_getstack(&attributes, &lowest, &bytes) != 0)
        lowest = NULL;
    (void)pthread_attr_destroy(&attributes);
    uintptr_t reserve = bytes / 4 < STACK_RESERVE_BYTES ? bytes / 4 : STACK_RESERVE_BYTES;
    return lowest == NULL ? 1 : (uintptr_t)lowest + reserve;
}

int dhp_recursion_enter(const char *where)
{
    char here;
    if (DH_UNLIKELY(stack_limit == 0))
        stack_limit = find_stack_limit();
    if (DH_LIKELY((uintptr_t)&here > stack_limit))
        return Py_EnterRecursiveCall(where);
    PyErr_Format(PyExc_RecursionError, "the stack of this thread is used up%s", where);
    return -1;
}

void dhp_recursion_leave(void) { Py_LeaveRecursiveCall(); }
