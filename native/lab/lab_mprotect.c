/* lab_mprotect.c -- memory made read-only; a handler for SIGSEGV notes the page and opens it.
 *
 * Contract: watch.h. For: any Unix, any kernel, private, shared and file memory; a clean scan reads
 * one bit a page and asks the kernel nothing. The classic of collectors and emulators (Appel, Ellis
 * and Li, "Real-time Concurrent Collection on Stock Multiprocessors", 1988).
 *
 * Cannot see: what bypasses this mapping's protection: shared memory or a file changed by another
 * way, a debugger's stores (/proc/pid/mem), devices into pinned pages; pages given back
 * (MADV_DONTNEED).
 *
 * Breaks: system calls that store into a protected page fail with EFAULT (read, recv, stat, ...).
 * Every isolated page is a mapping of its own: at vm.max_map_count the handler gives up, opens the
 * whole range and counts all of it as written; mmap in any other part of the process fails before
 * that. The handler belongs to the process: who installs one later and does not pass on takes every
 * first store for a crash. A store costs a signal. Memory is writable and nothing else afterwards.
 *
 * The handler may do only what is async-signal-safe. It takes a spin lock; who else holds it has
 * blocked all signals and never touches watched memory meanwhile, so it cannot wait for itself.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lab.h"

#define SLOTS_COUNT 256u

/* A watched range. Static, because a handler may still look at one whose watch is being closed:
 * base and limit are read without the lock and looked at again under it. */
typedef struct {
    _Atomic uintptr_t base;  /* 0: no range                                    */
    _Atomic uintptr_t limit; /* exclusive                                      */
    atomic_int lock;         /* guards written, and protection with it         */
    pid_t owner;
    dh_bits written; /* a page not in here is protected, once armed                    */
    bool is_used;    /* guarded by slots_lock                                          */
} mprotect_slot;

typedef struct {
    mprotect_slot *slot;
    uint64_t pages_count;
    dh_bits chunk; /* pages of a chunk, to be reported without the lock */
} mprotect_watch;

static mprotect_slot slots[SLOTS_COUNT];
static atomic_uint slots_limit; /* slots ever used                               */
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned slots_used;          /* guarded by slots_lock                                  */
static bool is_installed;            /* guarded by slots_lock                                  */
static struct sigaction old_handler; /* set before ours is installed                           */

/* --- the lock --------------------------------------------------------------------------------- */

static void slot_lock(mprotect_slot *slot)
{
    while (atomic_exchange_explicit(&slot->lock, 1, memory_order_acquire) != 0)
        sched_yield();
}

static void slot_unlock(mprotect_slot *slot)
{
    atomic_store_explicit(&slot->lock, 0, memory_order_release);
}

/* From ordinary code: no handler may run in this thread while it holds the lock. */
static void slot_enter(mprotect_slot *slot, sigset_t *mask_out)
{
    dhl_signals_block(mask_out);
    slot_lock(slot);
}

static void slot_leave(mprotect_slot *slot, const sigset_t *mask)
{
    slot_unlock(slot);
    dhl_signals_unblock(mask);
}

/* --- the handler ------------------------------------------------------------------------------ */

static bool slot_covers(const mprotect_slot *slot, uintptr_t address)
{
    return address >= atomic_load(&slot->base) && address < atomic_load(&slot->limit);
}

/* Lock held. The kernel refuses a further mapping: open the whole range, which merges them. */
static int slot_flood(mprotect_slot *slot)
{
    uintptr_t base = atomic_load(&slot->base);
    size_t bytes = atomic_load(&slot->limit) - base;

    if (mprotect((void *)base, bytes, PROT_READ | PROT_WRITE) != 0)
        return errno;
    dh_bits_set_run(&slot->written, 0, bytes >> DH_PAGE_SHIFT);
    return 0;
}

/* Lock held. Protection is lifted whether or not the page is known as written: it may have been
 * protected with its neighbours. */
static int slot_fault(mprotect_slot *slot, uintptr_t address)
{
    uint64_t pgno = (address - atomic_load(&slot->base)) >> DH_PAGE_SHIFT;
    uintptr_t page = address & ~(uintptr_t)(DH_PAGE_BYTES - 1u);

    if (mprotect((void *)page, DH_PAGE_BYTES, PROT_READ | PROT_WRITE) != 0)
        return slot_flood(slot);
    dh_bits_set(&slot->written, pgno);
    return 0;
}

/* True when the store can be tried again. */
static bool fault_is_ours(uintptr_t address)
{
    unsigned limit = atomic_load(&slots_limit);

    for (unsigned i = 0; i < limit; i++) {
        mprotect_slot *slot = &slots[i];
        int rc = 0;

        if (!slot_covers(slot, address))
            continue;
        if (slot->owner != getpid()) /* a child whose fork ran no handlers; the lock may be held */
            return mprotect((void *)(address & ~(uintptr_t)(DH_PAGE_BYTES - 1u)), DH_PAGE_BYTES,
                            PROT_READ | PROT_WRITE) == 0;
        slot_lock(slot);
        if (slot_covers(slot, address)) /* else it was closed meanwhile, and its memory opened */
            rc = slot_fault(slot, address);
        slot_unlock(slot);
        return rc == 0;
    }
    return false;
}

/* No fault of ours: whoever was there before decides. */
static void pass_on(int signal_no, siginfo_t *info, void *context)
{
    struct sigaction by_default = {.sa_handler = SIG_DFL};
    bool is_sent = info->si_code <= 0; /* by kill and its like, not by an instruction */

    if ((old_handler.sa_flags & SA_SIGINFO) != 0) {
        old_handler.sa_sigaction(signal_no, info, context);
    } else if (old_handler.sa_handler == SIG_IGN && is_sent) {
        return;
    } else if (old_handler.sa_handler != SIG_DFL && old_handler.sa_handler != SIG_IGN) {
        old_handler.sa_handler(signal_no);
    } else {
        /* The instruction runs again and ends the process, with its own address in the core. */
        sigaction(signal_no, &by_default, NULL);
        if (is_sent)
            raise(signal_no);
    }
}

static void on_fault(int signal_no, siginfo_t *info, void *context)
{
    int saved_errno = errno;

    if (info->si_code != SEGV_ACCERR || !fault_is_ours((uintptr_t)info->si_addr))
        pass_on(signal_no, info, context);
    errno = saved_errno;
}

/* --- opening ---------------------------------------------------------------------------------- */

static bool handler_is_ours(void)
{
    struct sigaction now;

    return sigaction(SIGSEGV, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) != 0 &&
           now.sa_sigaction == on_fault;
}

/* slots_lock held. On the alternate stack where a thread has one. */
static int handler_install(char *why_out, size_t why_size)
{
    struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    if (is_installed && handler_is_ours())
        return 0;
    if (is_installed) { /* installed again, the two would pass a fault to and fro */
        snprintf(
            why_out, why_size,
            "another handler for SIGSEGV was installed over the one of this technique; whether "
            "it passes faults on cannot be known");
        return DH_E_TRACKER;
    }
    sigfillset(&ours.sa_mask);
    if (sigaction(SIGSEGV, NULL, &old_handler) != 0 || sigaction(SIGSEGV, &ours, NULL) != 0)
        return errno;
    is_installed = true;
    return 0;
}

/* slots_lock held. Where somebody stands above us ours stays, and passes on what is not its own. */
static void handler_remove(void)
{
    if (handler_is_ours() && sigaction(SIGSEGV, &old_handler, NULL) == 0)
        is_installed = false;
}

/* slots_lock held. */
static mprotect_slot *slot_free(void)
{
    for (unsigned i = 0; i < SLOTS_COUNT; i++)
        if (!slots[i].is_used) {
            if (i >= atomic_load(&slots_limit))
                atomic_store(&slots_limit, i + 1);
            return &slots[i];
        }
    return NULL;
}

/* slots_lock held. */
static int slot_claim(const dh_range *range, mprotect_slot **slot_out, char *why_out,
                      size_t why_size)
{
    mprotect_slot *slot = slot_free();
    int rc;

    if (slot == NULL) {
        snprintf(why_out, why_size, "there are %u ranges already", SLOTS_COUNT);
        return DH_E_LIMIT;
    }
    rc = dh_bits_init(&slot->written, range->pages_count);
    if (rc != 0)
        return rc;
    rc = handler_install(why_out, why_size);
    if (rc != 0) {
        dh_bits_finish(&slot->written);
        return rc;
    }
    dh_bits_set_run(&slot->written, 0, range->pages_count); /* not protected yet */
    slot->is_used = true;
    slot->owner = getpid();
    slots_used++;
    atomic_store(&slot->limit,
                 (uintptr_t)range->base + (uintptr_t)(range->pages_count << DH_PAGE_SHIFT));
    atomic_store(&slot->base, (uintptr_t)range->base);
    *slot_out = slot;
    return 0;
}

static int memory_refuse(const dh_range *range, char *why_out, size_t why_size)
{
    dhl_memory memory;
    int rc = dhl_memory_read(range, &memory);

    if (rc != 0)
        return rc;
    if (!memory.is_unwritable && !memory.is_executable && !memory.has_hole)
        return 0;
    snprintf(why_out, why_size,
             "all of the memory must be mapped, writable and not executable: this technique makes "
             "it read-only and writable in turns, and forgets what else it was");
    return DH_E_TRACKER;
}

/* One store before the memory is cut up. The kernel merges pieces of anonymous memory only when
 * they have the same anon_vma, which the first store to a mapping makes: pieces first stored to one by
 * one have one each, and would stay pieces for good. */
static void memory_make_mergeable(const dh_range *range)
{
    volatile uint8_t *byte = range->base;

    __atomic_fetch_or(byte, 0, __ATOMIC_RELAXED);
}

static int mprotect_open(const dh_range *range, const void *argument, void **state_out,
                         char *why_out, size_t why_size)
{
    mprotect_watch *watch;
    int rc = memory_refuse(range, why_out, why_size);

    (void)argument;
    if (rc != 0)
        return rc;
    watch = calloc(1, sizeof(*watch));
    if (watch == NULL)
        return ENOMEM;
    watch->pages_count = range->pages_count;
    rc = dh_bits_init(&watch->chunk, DHL_CHUNK_PAGES);
    if (rc != 0)
        goto fail_watch;
    pthread_mutex_lock(&slots_lock);
    rc = slot_claim(range, &watch->slot, why_out, why_size);
    pthread_mutex_unlock(&slots_lock);
    if (rc != 0)
        goto fail_chunk;
    memory_make_mergeable(range);
    *state_out = watch;
    return 0;

fail_chunk:
    dh_bits_finish(&watch->chunk);
fail_watch:
    free(watch);
    return rc;
}

/* --- closing ---------------------------------------------------------------------------------- */

/* Memory opened, range forgotten. Lock held, or nobody else there. */
static void slot_open_memory(mprotect_slot *slot)
{
    uintptr_t base = atomic_load(&slot->base);
    uintptr_t limit = atomic_load(&slot->limit);

    if (base != 0)
        (void)mprotect((void *)base, limit - base, PROT_READ | PROT_WRITE);
    atomic_store(&slot->base, 0);
    atomic_store(&slot->limit, 0);
}

static void mprotect_close(void *state)
{
    mprotect_watch *watch = state;
    mprotect_slot *slot = watch->slot;
    sigset_t mask;

    if (slot->owner == getpid()) {
        slot_enter(slot, &mask);
        slot_open_memory(slot);
        slot_leave(slot, &mask);
    } else {
        slot_open_memory(slot);
    }
    pthread_mutex_lock(&slots_lock);
    dh_bits_finish(&slot->written);
    slot->is_used = false;
    if (--slots_used == 0)
        handler_remove();
    pthread_mutex_unlock(&slots_lock);
    dh_bits_finish(&watch->chunk);
    free(watch);
}

/* Whoever held a lock does not exist here. */
static void mprotect_fork_child(void *state)
{
    mprotect_watch *watch = state;

    slots_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    atomic_store(&watch->slot->lock, 0);
    slot_open_memory(watch->slot);
}

/* --- scanning --------------------------------------------------------------------------------- */

static void *page_address(const mprotect_slot *slot, uint64_t pgno)
{
    return (void *)(atomic_load(&slot->base) + (uintptr_t)(pgno << DH_PAGE_SHIFT));
}

/* Lock held. One call from the first to the last page: the kernel passes over what is protected.
 * When it may not split a mapping, it can still protect the whole range, which merges them. */
static int slot_protect(mprotect_slot *slot, uint64_t first, uint64_t limit)
{
    if (mprotect(page_address(slot, first), (limit - first) << DH_PAGE_SHIFT, PROT_READ) == 0)
        return 0;
    if (mprotect(page_address(slot, 0), atomic_load(&slot->limit) - atomic_load(&slot->base),
                 PROT_READ) == 0)
        return 0;
    return errno;
}

/* Lock held. To take what was copied, clear first and protect after: a store in between belongs to
 * this scan. Pages that could not be protected stay written. */
static int slot_take(mprotect_slot *slot, uint64_t first, uint64_t limit)
{
    int rc;

    dh_bits_clear_run(&slot->written, first, limit - first);
    rc = slot_protect(slot, first, limit);
    if (rc != 0)
        dh_bits_set_run(&slot->written, first, limit - first);
    return rc;
}

static int chunk_scan(void *state, dh_bits *chunk, uint64_t first, uint64_t count,
                      dh_scan_mode mode)
{
    mprotect_slot *slot = ((mprotect_watch *)state)->slot;
    uint64_t behind;
    sigset_t mask;
    int rc = 0;

    slot_enter(slot, &mask);
    behind = dhl_chunk_copy(chunk, &slot->written, first, count);
    if (mode == DH_SCAN_TAKE && behind != 0)
        rc = slot_take(slot, first + dh_bits_next(chunk, 0, behind), first + behind);
    slot_leave(slot, &mask);
    return rc;
}

static int mprotect_scan(void *state, dh_pgno first, uint64_t count, dh_scan_mode mode,
                         dh_watch_report report, void *context)
{
    mprotect_watch *watch = state;

    DH_ASSERT(first + count <= watch->pages_count);
    if (watch->slot->owner != getpid())
        return DH_E_FORKED;
    return dhl_scan_in_chunks(watch, chunk_scan, &watch->chunk, first, count, mode, report,
                              context);
}

static int mprotect_arm(void *state, uint64_t pages_count)
{
    return mprotect_scan(state, 0, pages_count, DH_SCAN_TAKE, NULL, NULL);
}

/* Fresh memory is writable. */
static int mprotect_note_all(void *state, dh_pgno first, uint64_t count)
{
    mprotect_watch *watch = state;
    sigset_t mask;

    if (watch->slot->owner != getpid())
        return DH_E_FORKED;
    slot_enter(watch->slot, &mask);
    dh_bits_set_run(&watch->slot->written, first, count);
    slot_leave(watch->slot, &mask);
    return 0;
}

static int mprotect_remapped(void *state, dh_pgno first, uint64_t count)
{
    int rc = mprotect_note_all(state, first, count);

    return rc != 0 ? rc : mprotect_scan(state, first, count, DH_SCAN_TAKE, NULL, NULL);
}

const dh_tracker dhl_tracker_mprotect = {
    .id = DHL_TRACKER_MPROTECT,
    .name = "mprotect",
    .open = mprotect_open,
    .close = mprotect_close,
    .scan = mprotect_scan,
    .arm = mprotect_arm,
    .remapped = mprotect_remapped,
    .fork_child = mprotect_fork_child,
};

const dh_lab_technique dhl_about_mprotect = {
    .name = "mprotect",
    .idea = "memory made read-only, and a handler for SIGSEGV that lets a store go on",
    .cannot_see = "shared memory or a file changed by another way than this mapping; a debugger "
                  "(/proc/pid/mem); devices; pages given back (MADV_DONTNEED)",
    .breaks = "system calls that store into a protected page (EFAULT); every isolated page is a "
              "mapping, and at vm.max_map_count the whole range counts as written; handlers for "
              "SIGSEGV that are installed later",
};
