/* proof.c -- every page hashed at every commit, and held against what the watch said.
 *
 * Contract: proof.h. The order is what matters:
 *
 *   scan, take the cursor, copy          the commit's own
 *   hash a page                          it differs: it was written, before the scan or after
 *   scan this page once more, look into the cursor
 *
 * A store that the hash saw was made before the second scan, so a watch that works has reported it,
 * to the flight or to the cursor: threads without the GIL are never accused. Of captured pages the
 * copy is hashed and not the arena, so that a device that writes between the two is caught next time.
 */
#include "proof.h"

#include <stdio.h>
#include <stdlib.h>

#include "gate.h"

/* The compare tracker sees a page as it is, not that it was written: who flips one between two
 * contents can be seen by the hash and missed by the scan, but not so many times in turn. */
#define ATTEMPTS_MAX 16
#define RANGES_MAX 4u
#define RANGES_TEXT_BYTES 96u

struct dh_proof {
    uint64_t *hashes; /* by page number; 0: nothing is known of the page */
    uint64_t reserved_bytes;
};

/* --- the hash --------------------------------------------------------------------------------- */

__extension__ typedef unsigned __int128 wide;

/* Multiply and fold: both halves of the product depend on all bits of both factors. */
static uint64_t fold(uint64_t a, uint64_t b)
{
    wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Four lanes, so that the multiplications overlap. Never 0. The key is the heap's: no content of a
 * page can be made to collide. */
static uint64_t page_hash(const dh_heap *heap, const uint8_t *page)
{
    const uint64_t *key = heap->hash_key;
    uint64_t lane[4] = {key[0] ^ 0x9E3779B97F4A7C15u, key[1] ^ 0xBF58476D1CE4E5B9u,
                        key[0] ^ 0x94D049BB133111EBu, key[1] ^ 0xD6E8FEB86659FD93u};
    uint64_t secret[4] = {key[1] | 1u, key[0] ^ 0xA0761D6478BD642Fu, key[1] ^ 0xE7037ED1A0B428DBu,
                          key[0] ^ 0x8EBC6AF09C88C6E3u};

    for (size_t at = 0; at < DH_PAGE_BYTES; at += 64) {
        uint64_t words[8];
        memcpy(words, page + at, sizeof words);
        for (size_t i = 0; i < 4; i++)
            lane[i] = fold(words[2 * i] ^ secret[i], words[2 * i + 1] ^ lane[i]);
    }
    uint64_t hash = fold(lane[0] ^ secret[1], lane[1] ^ fold(lane[2] ^ secret[3], lane[3]));
    return hash != 0 ? hash : 1;
}

/* --- life ------------------------------------------------------------------------------------- */

int dh_heap_prove(dh_heap *heap)
{
    void *hashes;
    uint64_t bytes = heap->arena.capacity_pages * sizeof(uint64_t);
    int rc;

    DH_ASSERT(heap->phase == DH_LOADING);
    if (heap->proof != NULL)
        return 0;
    rc = dh_reserve(bytes, &hashes);
    if (rc != 0)
        return dhi_fail(heap, rc, "proof mode needs %llu bytes of address space",
                        (unsigned long long)bytes);
    heap->proof = malloc(sizeof *heap->proof);
    if (heap->proof == NULL) {
        dh_unreserve(hashes, bytes);
        return ENOMEM;
    }
    *heap->proof = (dh_proof){hashes, bytes};
    return 0;
}

void dhi_proof_free(dh_heap *heap)
{
    if (heap->proof == NULL)
        return;
    dh_unreserve(heap->proof->hashes, heap->proof->reserved_bytes);
    free(heap->proof);
    heap->proof = NULL;
}

/* Bytes of other pages are undefined, and nobody's. */
static bool is_in_use(const dh_heap *heap, uint64_t pgno)
{
    unsigned kind = heap->alloc.kind[pgno];
    return kind != DH_KIND_FREE && kind != DH_KIND_PINNED && kind != DH_KIND_RESERVED;
}

void dhi_proof_begin(const dh_heap *heap)
{
    if (heap->proof == NULL)
        return;
    for (uint64_t p = 1; p < heap->arena.hwm_pages; p++)
        if (is_in_use(heap, p))
            dhi_proof_take(heap, (dh_pgno)p, dh_arena_page(&heap->arena, (dh_pgno)p));
}

void dhi_proof_take(const dh_heap *heap, dh_pgno pgno, const uint8_t *bytes)
{
    if (heap->proof != NULL)
        heap->proof->hashes[pgno] = page_hash(heap, bytes);
}

/* --- the check -------------------------------------------------------------------------------- */

/* What was found, as ascending runs; the first few are named. */
typedef struct {
    char text[RANGES_TEXT_BYTES];
    size_t used;
    uint64_t pages_count, ranges_count;
    uint64_t first, end; /* the run at hand */
} unreported;

static void name_run(unreported *found)
{
    if (found->end == found->first || found->ranges_count++ >= RANGES_MAX)
        return;
    size_t room = sizeof found->text - found->used;
    const char *comma = found->used > 0 ? ", " : "";
    int n = found->end - found->first == 1
                ? snprintf(found->text + found->used, room, "%s%llu", comma,
                           (unsigned long long)found->first)
                : snprintf(found->text + found->used, room, "%s%llu-%llu", comma,
                           (unsigned long long)found->first, (unsigned long long)found->end - 1);
    found->used += (size_t)n < room ? (size_t)n : room - 1;
}

static void add_page(unreported *found, uint64_t pgno)
{
    if (pgno != found->end || found->pages_count == 0) {
        name_run(found);
        found->first = pgno;
    }
    found->end = pgno + 1;
    found->pages_count++;
}

/* Whether the page is as it was taken, or the next commit will take it. */
static bool is_accounted_for(const dh_heap *heap, dh_pgno pgno)
{
    const uint8_t *page = dh_arena_page(&heap->arena, pgno);

    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        if (page_hash(heap, page) == heap->proof->hashes[pgno])
            return true;
        /* A scan that fails enters the page. */
        (void)dh_watch_scan_range(heap->watch, pgno, 1);
        if (dh_watch_has(heap->watch, heap->commit_cursor, pgno))
            return true;
    }
    return false;
}

/* A page that no commit took, in use again: freed, the freeing captured by a commit that failed, and
 * then rolled back. It is its committed image, or it was written. */
static bool is_as_committed(const dh_heap *heap, dh_pgno pgno)
{
    if (!dh_image_same(heap, pgno))
        return false;
    dhi_proof_take(heap, pgno, dh_arena_page(&heap->arena, pgno));
    return true;
}

/* A page that the capture does not hold. */
static void check_page(dh_heap *heap, const dh_capture *capture, uint64_t pgno, unreported *found)
{
    uint64_t *hash = &heap->proof->hashes[pgno];

    if (!is_in_use(heap, pgno)) {
        *hash = 0;
        return;
    }
    DH_ASSERT(!dh_bits_test(&capture->flight, pgno)); /* in use and written: captured */
    if (*hash != 0 ? is_accounted_for(heap, (dh_pgno)pgno)
                   : is_as_committed(heap, (dh_pgno)pgno) ||
                         dh_watch_has(heap->watch, heap->commit_cursor, (dh_pgno)pgno))
        return;
    (void)dh_watch_mark(heap->watch, (dh_pgno)pgno, 1);
    add_page(found, pgno);
}

static int tell(dh_heap *heap, unreported *found)
{
    name_run(found);
    return dhi_fail(heap, DH_E_UNREPORTED,
                    "%llu page%s of the heap changed and the watch did not report %s: number %s%s",
                    (unsigned long long)found->pages_count, found->pages_count == 1 ? "" : "s",
                    found->pages_count == 1 ? "it" : "them", found->text,
                    found->ranges_count > RANGES_MAX ? ", ..." : "");
}

int dhi_proof_check(dh_heap *heap, const dh_capture *capture)
{
    unreported found = {.used = 0};
    size_t next = 0;

    if (heap->proof == NULL)
        return 0;
    for (uint64_t p = 1; p < capture->limit; p++) {
        if (next < capture->pages_count && capture->pages[next] == p) {
            dhi_proof_take(heap, (dh_pgno)p, capture->bytes + next * (size_t)DH_PAGE_BYTES);
            next++;
        } else {
            check_page(heap, capture, p, &found);
        }
    }
    return found.pages_count == 0 ? 0 : tell(heap, &found);
}
