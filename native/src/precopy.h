/* precopy.h -- what a big commit has written to base files ahead of its stop. */
#ifndef DH_PRECOPY_H
#define DH_PRECOPY_H

#include "capture.h"

/* One extent that was looked at before the stop. */
struct dh_staged_extent {
    uint32_t extent_no;
    uint32_t pages_count; /* pages the staged file has                              */
    const uint8_t *view;  /* the staged file as it is now; NULL: a delta is cheaper */
};

/* The staged bytes of a page: what the coming commit's base file holds so far. NULL: not staged. */
const uint8_t *dhi_staged_page(const dh_capture *capture, dh_pgno pgno);
/* Whether the extent has a staged file. */
bool dhi_is_staged(const dh_capture *capture, uint32_t extent_no);
/* Count a page of a staged extent with these bytes, and no more with those staged before. */
void dhi_stats_restage(const dh_heap *heap, const dh_capture *capture, dh_pgno pgno,
                       const uint8_t *bytes, dh_commit_stats *stats);
/* Count its staged bytes no more. */
void dhi_stats_unstage(const dh_heap *heap, const dh_capture *capture, dh_pgno pgno,
                       dh_commit_stats *stats);
void dhi_staged_forget(dh_capture *capture);

#endif
