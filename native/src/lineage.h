/* lineage.h -- who led to whom: a survey breadth first, and the paths that come of it.
 *
 * Containers stand in a line in the order in which they were met, each with the number of the one that
 * led to it; the walk goes along the line. So the way back from any of them is one of the shortest,
 * and whoever led to a container stands before it. Where in its container a child stands is not kept:
 * to name a path, the containers on it are looked at once more.
 *
 * Memory: 16 bytes for each container, tuple and description met, touched as the line grows.
 */
#ifndef DH_LINEAGE_H
#define DH_LINEAGE_H

#include "survey.h"

/* Led to by none: a root. */
#define LINEAGE_NONE UINT64_MAX
/* Steps that a path tells; of more the first half and the last. */
#define PATH_STEPS_MAX 1000u

typedef struct {
    dh_word word;
    uint64_t parent; /* number in the line, or LINEAGE_NONE */
} dh_lineage_entry;

typedef struct {
    dh_heap *heap;
    dh_lineage_entry *entries;
    uint64_t entries_bytes;
    uint64_t count;
    uint64_t next; /* the one to look at next */
} dh_lineage;

int dhi_lineage_init(dh_lineage *lineage, dh_heap *heap) DH_MUST_USE;
void dhi_lineage_finish(dh_lineage *lineage);

/* A container was met: by entries[next - 1], which is being looked at, or as a root. A survey tells of
 * each cell once, so there is room. */
static inline void dhi_lineage_add(dh_lineage *lineage, dh_word w, bool is_root)
{
    lineage->entries[lineage->count++] =
        (dh_lineage_entry){w, is_root ? LINEAGE_NONE : lineage->next - 1};
}

/* The path from a root to entries[number]; ENOMEM. is_of_heap: that root is the heap's own. */
int dhi_lineage_path(const dh_lineage *lineage, uint64_t number, dh_path **path_out) DH_MUST_USE;
/* A path without steps, of what nothing but a handle holds. */
int dhi_path_of_handle(const dh_heap *heap, dh_word w, dh_path **path_out) DH_MUST_USE;

/* What a word leads to, as users call it, malloc'd: "list", or the name of a record's class. */
char *dhi_type_text(const dh_heap *heap, dh_word w);
/* The same without names of classes; a constant. */
const char *dhi_kind_text(dh_type type);

#endif
