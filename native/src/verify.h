/* verify.h -- one run of dh_verify: what its files share.
 *
 *   verify_walk.c   the conductor, and the walk over all that can be reached
 *   verify_alloc.c  the allocator's state against itself and against the committed table
 *   verify_pages.c  clean pages against their committed image
 *   paths.c         how a place is called: root['users'][17]['name']
 *   check.c         the rules of one cell
 *
 * The walk goes down before it goes on, with a stack of its own, so that at a problem the stack is
 * the path. Memory, all outside the arena: 161 bytes per page, touched only where there are cells,
 * and 16 bytes per cell of the longest chain. Nothing is ever stored to the arena.
 */
#ifndef DH_VERIFY_H
#define DH_VERIFY_H

#include "heap.h"
#include "paths.h"

/* Problems that are kept with their names; all are counted. */
#define VERIFY_PROBLEMS_MAX 100u
/* Cells that are named for one bad page. */
#define VERIFY_NAMED_PER_PAGE 4u

typedef struct {
    char *path, *what, *where;
} verify_problem;

typedef enum {
    VERIFY_PAGE_GOOD = 0,
    VERIFY_PAGE_CHECKSUM = 1, /* of its stored bytes                             */
    VERIFY_PAGE_MISSING = 2,  /* its base file is                                */
    VERIFY_PAGE_UNSEEN = 3    /* it changed and the watch did not report it      */
} verify_page_state;
#define VERIFY_PAGE_STATE_BITS 2u
#define VERIFY_PAGE_STATE_MASK ((1u << VERIFY_PAGE_STATE_BITS) - 1u)
#define VERIFY_PAGE_NAMED (1u << VERIFY_PAGE_STATE_BITS)

/* Types that may be linked more than once have a code that fits four bits; 0: the others. */
typedef struct {
    uint8_t codes[DH_GRANULES_PER_PAGE / 2];
} verify_codes;

typedef enum { VERIFY_BEGIN, VERIFY_ROOT, VERIFY_REST, VERIFY_DONE } verify_phase;

struct dh_verify {
    dh_heap *heap;
    verify_phase phase;
    uint64_t hwm_pages; /* when the run began */
    dh_page_bits *seen;
    verify_codes *codes;
    uint8_t *page_states; /* verify_page_state | cells named so far << VERIFY_PAGE_STATE_BITS */
    dh_frame *frames;
    size_t frames_count, frames_room;
    const char *origin; /* what frames[0] is called */
    verify_problem problems[VERIFY_PROBLEMS_MAX];
    size_t problems_kept;
    dh_verify_stats stats;
    int rc; /* no memory */
};

/* --- verify_walk.c ---------------------------------------------------------------------------- */
/* Note a problem of the file or allocator; where is a sentence for printf. */
void dhi_verify_problem(dh_verify *verify, const char *path, const char *what, const char *format,
                        ...) DH_PRINTF(4, 5);

/* --- verify_alloc.c --------------------------------------------------------------------------- */
/* Also counts pages and cells. False: the state is so wrong that cells cannot be looked at. */
bool dhi_verify_alloc(dh_verify *verify);

/* --- verify_pages.c --------------------------------------------------------------------------- */
int dhi_verify_pages(dh_verify *verify);

/* --- check.c ---------------------------------------------------------------------------------- */
bool dhi_type_is_raw(dh_type type);
/* What the ref leads to, an allocated cell of the right content, passes the check of its type. */
int dhi_check_cell(const dh_heap *heap, dh_word w) DH_MUST_USE;
/* A form that a word of a REFS cell may have which is no ref. */
bool dhi_check_word(dh_word w, uint64_t index);

#endif
