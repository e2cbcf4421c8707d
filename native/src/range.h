/* range.h -- a run of whole pages of this process, wherever it comes from: an arena, or foreign memory.
 *
 * What a watch tracks. The range is never moved or unmapped while somebody holds it here.
 */
#ifndef DH_RANGE_H
#define DH_RANGE_H

#include "base.h"

typedef struct {
    uint8_t *base; /* at a page boundary                                        */
    uint64_t pages_count;
} dh_range;

static inline uint8_t *dh_range_page(const dh_range *range, uint64_t pgno)
{
    return range->base + (pgno << DH_PAGE_SHIFT);
}

/* What the kernel says of the mappings in a range. */
typedef struct {
    bool is_known;       /* false: this kernel cannot be asked (before 6.11)             */
    bool is_whole;       /* every page is mapped                                         */
    bool is_writable;    /* all of it                                                    */
    uint64_t page_bytes; /* the largest page of its mappings: more than 4096 for hugetlb */
} dh_range_facts;

void dh_range_inspect(const dh_range *range, dh_range_facts *facts_out);

#endif
