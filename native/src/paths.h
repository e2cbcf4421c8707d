/* paths.h -- how a place in the graph is called: root['users'][17]['name'].
 *
 * Whoever walks the graph (verify_walk.c, survey.c) keeps the cells that it is inside of as a stack of
 * frames; this file says in words where such a stack leads. It follows nothing but what the frames
 * lead to, which the walk has looked at: allocated cells of the right content, heads with room for a
 * head. What stands in them may be damaged, and is then called so. Must change nothing.
 */
#ifndef DH_PATHS_H
#define DH_PATHS_H

#include "heap.h"

/* A cell that a walk is inside of: the words before `next` have been looked at. */
typedef struct {
    dh_word word; /* the ref that led here */
    uint64_t next;
} dh_frame;

/* Cells that are part of a container and have no meaning of their own. */
static inline bool dhi_is_inner(dh_word w)
{
    return dh_is_ref(w) && dh_ref_type(w) > DH_T_VALUES_LAST && dh_ref_type(w) != DH_T_SHAPE &&
           dh_ref_type(w) != DH_T_SHAPES && dh_ref_type(w) != DH_T_CLASS &&
           dh_ref_type(w) != DH_T_CLASSES;
}

/* The whole path that a stack stands for, malloc'd (NULL: no memory): what frames[0] is called, and a
 * step out of each container, to the word that the last frame looked at. Of a long one the beginning
 * and the end are told. */
char *dhi_path_text(const dh_heap *heap, const char *origin, const dh_frame *frames, size_t count);

/* One step, malloc'd: out of the container in frames[0], through inner cells of its own. */
char *dhi_path_step(const dh_heap *heap, const dh_frame *frames, size_t count);

#endif
