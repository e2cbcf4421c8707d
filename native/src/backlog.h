/* backlog.h -- deltas that were read from the store and not yet put into their pages.
 *
 * Opening a heap does not touch the pages that its deltas change: it enters them here, by page, in
 * commit order, and a page is brought up to date when somebody comes to it (lazy.h). What is older
 * than an entry that says all of a page is forgotten. The chunks are copied.
 */
#ifndef DH_BACKLOG_H
#define DH_BACKLOG_H

#include "base.h"

#define DH_BACKLOG_NONE 0xffffffffu

/* One page of one commit; chained from the oldest that is needed to the newest. */
typedef struct {
    const uint8_t *payload;
    uint32_t checksum; /* of the resulting page            */
    uint32_t next;     /* index, or DH_BACKLOG_NONE        */
    uint16_t size;
    uint8_t form;
} dh_backlog_entry;

/* One page. */
typedef struct {
    dh_pgno pgno;
    uint32_t first; /* index of the oldest entry; NONE: an empty slot      */
    uint32_t last;
    bool is_applied;
} dh_backlog_slot;

/* Zero memory is the empty backlog. */
typedef struct {
    uint8_t **chunks;
    size_t chunks_count, chunks_room;
    dh_backlog_entry *entries;
    size_t entries_count, entries_room;
    dh_backlog_slot *slots; /* open addressing, a power of two */
    size_t slots_count;
    size_t pages_count;
} dh_backlog;

void dh_backlog_finish(dh_backlog *backlog);
/* Enter a chunk. Entries whose extent has a base of the same or a newer commit are passed over
 * (S3). DH_E_CORRUPT when it is no sound chunk. */
int dh_backlog_add(dh_heap *heap, const uint8_t *bytes, size_t size);
/* The page's slot, or NULL when no delta says anything about it. */
dh_backlog_slot *dh_backlog_find(const dh_backlog *backlog, dh_pgno pgno);
/* Bring a page that holds its base up to date and check the result. Idempotent. */
int dh_backlog_apply(dh_heap *heap, dh_backlog_slot *slot, uint8_t *page);
/* The page is not part of the newest commit. */
bool dh_backlog_is_freed(const dh_backlog *backlog, const dh_backlog_slot *slot);

#endif
