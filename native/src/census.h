/* census.h -- a census, for those who look inside: census.c, census_rows.c, growth.c. */
#ifndef DH_CENSUS_H
#define DH_CENSUS_H

#include "lineage.h"

/* --- census_rows.c: objects by type, records by class ------------------------------------------- */

typedef struct {
    uint64_t objects_count;
    dh_tally cells;
} census_sum;

typedef struct {
    dh_word class_word; /* EMPTY: of records whose class cannot be read */
    census_sum sum;
    char *name; /* malloc'd at the end */
} census_class;

typedef struct {
    census_sum types[DH_TYPES_COUNT];
    census_class *classes;
    size_t classes_count, classes_room;
    uint32_t *slots; /* hash table by class word: index + 1; 0: free */
    size_t slots_count;
    size_t last; /* class counted last: the next record is likely to be one of its own */
    dh_census_row *rows;
    size_t rows_count;
} census_types;

/* An object with cells of its own, which the survey has just looked at. */
int dhi_census_count(census_types *types, const dh_survey *survey, dh_word w) DH_MUST_USE;
/* All is counted: make the rows. */
int dhi_census_rows_make(census_types *types, const dh_survey *survey) DH_MUST_USE;
void dhi_census_types_finish(census_types *types);

/* --- census.c ------------------------------------------------------------------------------------ */

struct dh_census {
    dh_survey survey; /* first: meet() finds the census by it */
    dh_heap *heap;
    census_types types;
    dh_census_stats stats;
    dh_census_size sizes[DH_CLASSES_COUNT];
    size_t sizes_count;
    /* Containers that were met and not looked at yet: a stack, and what did not fit it as notes at
     * their pages, outside the arena. */
    dh_word *stack;
    size_t stack_count, stack_room;
    struct census_notes *notes;
    uint64_t notes_bytes;
    dh_bits overflow; /* pages with notes */
    bool has_overflow;
    /* Or all containers, in the order in which they were met, and the bytes of each. */
    bool keeps_containers, is_private;
    dh_lineage lineage;
    uint64_t *bytes; /* by number in the line: own and held */
    uint64_t bytes_bytes;
};

/* Tests: a census with a stack of that many entries. */
int dhi_census_take(dh_heap *heap, int flags, size_t stack_room, dh_census **census_out)
    DH_MUST_USE;

#endif
