/* lab_memory.c -- what kind of memory a range is, so that a technique can refuse what it spoils.
 *
 * Reads /proc/self/maps, which is sorted and shows every mapping on a line of its own
 * (Documentation/filesystems/proc.rst). True at that moment only.
 */
#include <stdio.h>

#include "lab.h"

/* One line's mapping, as far as it lies in [start, limit). covered_inout: mapped up to here. */
static void mapping_note(const char *line, uint64_t start, uint64_t limit, uint64_t *covered_inout,
                         dhl_memory *memory)
{
    unsigned long long from, to;
    char rights[5];

    if (sscanf(line, "%llx-%llx %4s", &from, &to, rights) != 3 || to <= start || from >= limit)
        return;
    if (from > *covered_inout)
        memory->has_hole = true;
    *covered_inout = to;
    memory->is_unwritable |= rights[1] != 'w';
    memory->is_executable |= rights[2] == 'x';
    memory->is_shared |= rights[3] == 's';
}

int dhl_memory_read(const dh_range *range, dhl_memory *memory_out)
{
    uint64_t start = (uint64_t)(uintptr_t)range->base;
    uint64_t limit = start + (range->pages_count << DH_PAGE_SHIFT);
    uint64_t covered = start;
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    bool is_whole = true; /* a long name comes in several pieces */

    if (maps == NULL)
        return errno;
    *memory_out = (dhl_memory){.has_hole = false};
    while (fgets(line, sizeof(line), maps) != NULL) {
        if (is_whole)
            mapping_note(line, start, limit, &covered, memory_out);
        is_whole = strchr(line, '\n') != NULL;
    }
    fclose(maps);
    memory_out->has_hole |= covered < limit;
    return 0;
}
