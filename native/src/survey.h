/* survey.h -- one pass over what lives, container by container: what census.c and why.c share.
 *
 * A survey looks at one container at a time: at its head and at the inner cells that are its own
 * (entries, leaves, nodes, ...), and at the values that belong to its slots. Each other container, tuple
 * or description (shape, class) that it meets for the first time it hands to `meet`, and whoever runs
 * the survey decides in which order it goes on: with a bounded stack (census.c), or breadth first
 * (lineage.h). So the owner of every inner cell is known without a note at the cell.
 *
 * It is told of each cell once. A ref is followed only if it leads to the start of an allocated cell
 * of the right content, with room for a head if a container is meant; any other is counted as broken
 * and left alone. The bits lie outside the arena; nothing is stored to it. World stopped throughout.
 */
#ifndef DH_SURVEY_H
#define DH_SURVEY_H

#include "heap.h"
#include "paths.h"

/* Inner cells of a sound container are nested ten deep at most. */
#define SURVEY_FRAMES_MAX 64u
/* Codes of packed values (ext.h); 0: what has none, for it is damaged. */
#define SURVEY_CODES_COUNT 256u

typedef struct {
    uint64_t cells_count;
    uint64_t bytes; /* their room: size classes, whole pages */
} dh_tally;

static inline void dhi_tally_add(dh_tally *tally, uint64_t cells_count, uint64_t bytes)
{
    tally->cells_count += cells_count;
    tally->bytes += bytes;
}

typedef struct dh_survey dh_survey;
/* A container, tuple, shape or class was met for the first time; what it returns ends the walk if it is
 * not 0. */
typedef int dh_survey_meet(dh_survey *survey, dh_word w);

struct dh_survey {
    dh_heap *heap;
    dh_survey_meet *meet;
    dh_page_bits *seen; /* by pgno; object starts */
    uint64_t seen_bytes;
    dh_tally own;  /* of the container looked at last: its head and inner cells             */
    dh_tally held; /* ... and the strings, numbers and packed values in its slots           */
    dh_tally values[DH_T_VALUES_LAST + 1u]; /* such values, by type: of all containers so far */
    dh_tally packed[SURVEY_CODES_COUNT];    /* packed values by their code                    */
    uint64_t broken_count;                  /* refs that lead nowhere                         */
    size_t frames_count;
    dh_frame frames[SURVEY_FRAMES_MAX]; /* during meet(): the way inside the container to w      */
};

/* Before the first survey of a verb: what opening has left in the files. DH_E_CORRUPT: it is damaged. */
int dhi_survey_bring_in(dh_heap *heap) DH_MUST_USE;
int dhi_survey_init(dh_survey *survey, dh_heap *heap, dh_survey_meet *meet) DH_MUST_USE;
void dhi_survey_finish(dh_survey *survey);
/* Hand over a root: as if a container led to it. 0, or what meet returned. */
int dhi_survey_root(dh_survey *survey, dh_word w);
/* Look at one that was handed over. 0, or what meet returned: then the walk ends where it is. */
int dhi_survey_walk(dh_survey *survey, dh_word w);

#endif
