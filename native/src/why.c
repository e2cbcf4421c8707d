/* why.c -- what keeps a container alive: breadth first from the root, and only if that does not come to
 * it, from the other containers that Python holds. Contract: dirtyheap.h. Changes nothing. */
#include "lineage.h"

#include <stdlib.h>

enum { FOUND = 1 };

typedef struct {
    dh_survey survey; /* first */
    dh_lineage lineage;
    dh_word wanted;
} search;

static int meet(dh_survey *survey, dh_word w)
{
    search *s = (search *)survey;
    dhi_lineage_add(&s->lineage, w, survey->frames_count == 0);
    return w == s->wanted ? FOUND : 0;
}

/* FOUND: it is the last in the line. */
static int go_on(search *s)
{
    int rc = 0;
    while (rc == 0 && s->lineage.next < s->lineage.count)
        rc = dhi_survey_walk(&s->survey, s->lineage.entries[s->lineage.next++].word);
    return rc;
}

static int from_root(search *s)
{
    int rc = dhi_survey_root(&s->survey, s->survey.heap->root);
    return rc != 0 ? rc : go_on(s);
}

/* All of them at once, so that the way is short; its own handle is no answer. */
static int from_handles(search *s)
{
    size_t index = 0;
    dh_handle *handle;

    while ((handle = dh_handles_next(&s->survey.heap->handles, &index)) != NULL)
        if (handle->word != s->wanted)
            (void)dhi_survey_root(&s->survey, handle->word);
    return go_on(s);
}

static bool is_there(const dh_heap *heap, dh_word w)
{
    return dh_is_container(w) && dh_cell_is_allocated(heap, dh_ref_off(w)) &&
           dh_cell_bytes(heap, dh_ref_off(w)) >= DH_HEAD_BYTES;
}

static int run(search *s, dh_heap *heap, dh_word w, dh_path **path_out)
{
    int rc = dhi_survey_bring_in(heap);
    if (rc == 0)
        rc = dhi_survey_init(&s->survey, heap, meet);
    if (rc == 0)
        rc = dhi_lineage_init(&s->lineage, heap);
    if (rc != 0)
        return rc;
    if (!is_there(heap, w))
        return DH_E_ABSENT;
    s->wanted = w;
    if (from_root(s) == FOUND || from_handles(s) == FOUND)
        return dhi_lineage_path(&s->lineage, s->lineage.count - 1, path_out);
    return dhi_path_of_handle(heap, w, path_out);
}

int dh_why(dh_heap *heap, uint64_t word, dh_path **path_out)
{
    if (heap->is_forked)
        return dhi_fail(heap, DH_E_FORKED, "this heap belongs to the parent process");
    search *s = calloc(1, sizeof *s);
    if (s == NULL)
        return ENOMEM;
    dhi_world_stop(heap);
    int rc = run(s, heap, word, path_out);
    if (rc == 0)
        heap->error_text[0] = '\0'; /* what could not be read has left sentences */
    dhi_world_resume(heap);
    dhi_survey_finish(&s->survey);
    dhi_lineage_finish(&s->lineage);
    free(s);
    return rc;
}
