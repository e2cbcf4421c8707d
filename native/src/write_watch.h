/* write_watch.h -- which pages of this memory were written since? For any memory of the process.
 *
 * The contract of GetWriteWatch and ResetWriteWatch over a dh_watch: a page is told when it was
 * written since the watch was opened or since the last reset of that page. The public part is in
 * dirtyheap.h. Calls on one watch from several threads are legal, closing it meanwhile is not.
 */
#ifndef DH_WRITE_WATCH_H
#define DH_WRITE_WATCH_H

#include "range.h"
#include "watch.h"

#define DHI_WRITE_WATCH_SIG 0x4843544157545257u /* "WRTWATCH" in a hex dump */

struct dh_write_watch {
    uint64_t sig;
    dh_watch *watch;
    bool is_shared;       /* a heap's: held, not owned                                   */
    uint64_t first;       /* of the watch's pages, where this memory begins              */
    uint64_t pages_count; /* of this memory                                              */
    uint64_t unit_pages;  /* a scan never cuts this: a huge page is armed as a whole     */
    int cursor;           /* the first; opened and closed with the watch                 */
    size_t runs_expected; /* as many as the last get: room that is asked for at once     */
    char reason[512];     /* why a better technique was passed over                      */
};

/* dh_write_watch_open with a technique that no id names (native/lab); argument: what its open wants. */
int dhi_write_watch_open_with(const dh_range *range, const dh_tracker *tracker,
                              const void *argument, dh_write_watch **watch_out, char *why_out,
                              size_t why_size);

#endif
