/* gil_heartbeat.c -- a C thread that asks for the GIL again and again and notes its longest wait.
 *
 * Stands for any thread of an application that is not written in Python. Built and loaded by
 * heartbeat.py when a benchmark starts; the longest wait is read through ctypes.
 */
#include <Python.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

static pthread_t thread;
static atomic_bool is_running;
static _Atomic uint64_t longest_ns;
static _Atomic uint64_t beats_count;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *beat(void *interval)
{
    struct timespec pause = {0, *(const long *)interval};
    while (is_running) {
        uint64_t asked_ns = now_ns();
        PyGILState_STATE state = PyGILState_Ensure();
        uint64_t waited_ns = now_ns() - asked_ns;
        PyGILState_Release(state);
        if (waited_ns > longest_ns)
            longest_ns = waited_ns;
        beats_count++;
        nanosleep(&pause, NULL);
    }
    return NULL;
}

int heartbeat_start(long interval_ns)
{
    static long interval;
    interval = interval_ns;
    is_running = true;
    return pthread_create(&thread, NULL, beat, &interval);
}

void heartbeat_reset(void) { longest_ns = 0; }
uint64_t heartbeat_longest_ns(void) { return longest_ns; }
uint64_t heartbeat_beats_count(void) { return beats_count; }

/* Called without the GIL (ctypes.CDLL drops it), else the thread could not finish its beat. */
void heartbeat_stop(void)
{
    is_running = false;
    pthread_join(thread, NULL);
}
