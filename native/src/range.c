/* range.c -- what memory is this? Asked of the kernel, mapping by mapping (PROCMAP_QUERY, Linux 6.11).
 *
 * Reading /proc/self/smaps would say the same everywhere, and walk the page tables of the whole
 * process for it: so where the kernel cannot be asked, nothing is known. Documentation/filesystems/
 * proc.rst; layout as in uapi/linux/fs.h.
 */
#include "range.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

typedef struct {
    uint64_t size; /* of this struct */
    uint64_t query_flags;
    uint64_t query_addr;
    uint64_t vma_start;
    uint64_t vma_end;
    uint64_t vma_flags;
    uint64_t vma_page_size;
    uint64_t vma_offset;
    uint64_t inode;
    uint32_t dev_major;
    uint32_t dev_minor;
    uint32_t vma_name_size;
    uint32_t build_id_size;
    uint64_t vma_name_addr;
    uint64_t build_id_addr;
} dhk_procmap_query;

_Static_assert(sizeof(dhk_procmap_query) == 104, "layout of struct procmap_query");

#define DHK_PROCMAP_QUERY _IOWR('f', 17, dhk_procmap_query)
#define DHK_PROCMAP_VMA_WRITABLE ((uint64_t)1 << 1)

/* The mapping that covers the address: 0, ENOENT for none, else the kernel cannot be asked. */
static int mapping_at(int maps, uint64_t address, dhk_procmap_query *query_out)
{
    *query_out = (dhk_procmap_query){.size = sizeof(*query_out), .query_addr = address};
    return ioctl(maps, DHK_PROCMAP_QUERY, query_out) == 0 ? 0 : errno;
}

static void inspect(int maps, const dh_range *range, dh_range_facts *facts)
{
    uint64_t at = (uint64_t)(uintptr_t)range->base;
    uint64_t end = at + (range->pages_count << DH_PAGE_SHIFT);

    while (at < end) {
        dhk_procmap_query query;
        int rc = mapping_at(maps, at, &query);

        if (rc == ENOENT)
            facts->is_whole = false;
        facts->is_known = rc == 0 || rc == ENOENT;
        if (rc != 0 || query.vma_end <= at)
            return;
        if ((query.vma_flags & DHK_PROCMAP_VMA_WRITABLE) == 0)
            facts->is_writable = false;
        if (query.vma_page_size > facts->page_bytes)
            facts->page_bytes = query.vma_page_size;
        at = query.vma_end;
    }
}

void dh_range_inspect(const dh_range *range, dh_range_facts *facts_out)
{
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

    *facts_out =
        (dh_range_facts){.is_whole = true, .is_writable = true, .page_bytes = DH_PAGE_BYTES};
    if (maps < 0)
        return;
    inspect(maps, range, facts_out);
    close(maps);
}
