/* arena.c -- address space from the kernel, for the arena and for the tables beside it.
 *
 * Memory is private, anonymous and lazily committed: pages that nobody touches cost nothing.
 * Never grow, move, lock or MADV_FREE what comes from here: a moved range loses its write tracking,
 * and a page dropped by MADV_FREE turns into zeros without being reported as written
 * (Documentation/admin-guide/mm/userfaultfd.rst, pagemap.rst; docs/design.md).
 */
#include "arena.h"

#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0x4000
#endif

static uint64_t reserve_round(uint64_t bytes)
{
    return (bytes + DH_PAGE_BYTES - 1) & ~(uint64_t)(DH_PAGE_BYTES - 1);
}

int dh_reserve(uint64_t bytes, void **base_out)
{
    void *base;
    int rc = dhi_fault("arena.reserve");

    if (rc != 0)
        return rc;
    if (bytes == 0)
        return EINVAL;
    if (bytes > (uint64_t)PTRDIFF_MAX - DH_PAGE_BYTES)
        return ENOMEM;
    base = mmap(NULL, (size_t)reserve_round(bytes), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return errno;
    /* Huge pages would be split at the first tracked write and are not wanted in sparse tables.
     * A kernel without them refuses the advice, which is as good. */
    (void)madvise(base, (size_t)reserve_round(bytes), MADV_NOHUGEPAGE);
    *base_out = base;
    return 0;
}

void dh_unreserve(void *base, uint64_t bytes)
{
    if (base == NULL) /* never reserved: an open that failed half-way is taken down whole */
        return;
    if (munmap(base, (size_t)reserve_round(bytes)) == 0)
        return;
    /* The kernel made one mapping of neighbours, and there is none left to split it with: the
     * addresses are lost, the memory is not. */
    DH_ASSERT(errno == ENOMEM);
    (void)madvise(base, (size_t)reserve_round(bytes), MADV_DONTNEED);
}

int dh_arena_init(dh_arena *arena, uint64_t capacity_bytes)
{
    void *base;
    int rc;

    if (sysconf(_SC_PAGESIZE) != (long)DH_PAGE_BYTES)
        return ENOTSUP;
    /* Rounding comes after the test: it could wrap around. */
    if (capacity_bytes > (uint64_t)DH_PGNO_TABLE * DH_PAGE_BYTES)
        return DH_E_LIMIT;
    capacity_bytes = reserve_round(capacity_bytes);
    rc = dh_reserve(capacity_bytes, &base);
    if (rc != 0)
        return rc;
    arena->base = base;
    arena->capacity_pages = capacity_bytes >> DH_PAGE_SHIFT;
    arena->hwm_pages = 1;
    return 0;
}

void dh_arena_finish(dh_arena *arena)
{
    if (arena->base != NULL)
        dh_unreserve(arena->base, arena->capacity_pages << DH_PAGE_SHIFT);
    arena->base = NULL;
    arena->capacity_pages = 0;
    arena->hwm_pages = 0;
}
