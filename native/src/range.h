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

#endif
