/* lineage.c -- the line of what was met, and paths out of it. Contract: lineage.h. Changes nothing. */
#include "lineage.h"

#include <stdlib.h>

struct dh_path {
    dh_path_info info;
    char *origin;
    char **texts, **types; /* of each step that is told */
};

int dhi_lineage_init(dh_lineage *lineage, dh_heap *heap)
{
    memset(lineage, 0, sizeof *lineage);
    lineage->heap = heap;
    lineage->entries_bytes =
        heap->arena.hwm_pages * DH_GRANULES_PER_PAGE * sizeof *lineage->entries;
    return dh_reserve(lineage->entries_bytes, (void **)&lineage->entries);
}

void dhi_lineage_finish(dh_lineage *lineage)
{
    if (lineage->entries != NULL)
        dh_unreserve(lineage->entries, lineage->entries_bytes);
    lineage->entries = NULL;
}

/* --- one step --------------------------------------------------------------------------------- */

/* Looks for the place of one container in another. */
typedef struct {
    dh_survey survey; /* first */
    dh_word wanted;
    bool is_met;
    char *text; /* NULL though it was met: no memory */
} seeker;

static int meet_wanted(dh_survey *survey, dh_word w)
{
    seeker *seek = (seeker *)survey;
    if (w != seek->wanted)
        return 0;
    seek->is_met = true;
    seek->text = dhi_path_step(survey->heap, survey->frames, survey->frames_count);
    return 1;
}

/* One survey for all steps of a path, from the root on: nothing before a container's parent leads to
 * it, or it would have been met from there. In a damaged heap inner cells may belong to two. */
static char *step_text(seeker *seek, dh_word parent, dh_word child)
{
    seek->wanted = child;
    seek->is_met = false;
    (void)dhi_survey_walk(&seek->survey, parent);
    return seek->is_met ? seek->text : strdup(" (somewhere)");
}

/* --- the path --------------------------------------------------------------------------------- */

static uint64_t steps_to(const dh_lineage *lineage, uint64_t number)
{
    uint64_t steps = 0;
    while ((number = lineage->entries[number].parent) != LINEAGE_NONE)
        steps++;
    return steps;
}

static dh_path *path_new(uint64_t steps)
{
    dh_path *path = calloc(1, sizeof *path);
    uint64_t told = steps <= PATH_STEPS_MAX ? steps : PATH_STEPS_MAX;

    if (path == NULL)
        return NULL;
    path->info.steps_count = told;
    path->info.omitted_count = steps - told;
    path->texts = calloc((size_t)told + 1, sizeof *path->texts);
    path->types = calloc((size_t)told + 1, sizeof *path->types);
    if (path->texts != NULL && path->types != NULL)
        return path;
    dh_path_free(path);
    return NULL;
}

/* Numbers of the containers that the steps told lead to, in the order of the path; returns that of its
 * root. */
static uint64_t fill_numbers(const dh_lineage *lineage, const dh_path_info *info, uint64_t number,
                             uint64_t *numbers_out)
{
    uint64_t told = info->steps_count, behind = told, omitted = info->omitted_count;

    for (uint64_t parent; (parent = lineage->entries[number].parent) != LINEAGE_NONE;
         number = parent) {
        if (omitted > 0 && behind == told / 2)
            omitted--;
        else
            numbers_out[--behind] = number;
    }
    return number;
}

static int fill_steps(const dh_lineage *lineage, dh_path *path, const uint64_t *numbers)
{
    seeker *seek = calloc(1, sizeof *seek);
    int rc = seek == NULL ? ENOMEM : dhi_survey_init(&seek->survey, lineage->heap, meet_wanted);

    for (uint64_t i = 0; rc == 0 && i < path->info.steps_count; i++) {
        const dh_lineage_entry *entry = &lineage->entries[numbers[i]];
        path->texts[i] = step_text(seek, lineage->entries[entry->parent].word, entry->word);
        path->types[i] = dhi_type_text(lineage->heap, entry->word);
        if (path->texts[i] == NULL || path->types[i] == NULL)
            rc = ENOMEM;
    }
    if (seek != NULL)
        dhi_survey_finish(&seek->survey);
    free(seek);
    return rc;
}

int dhi_lineage_path(const dh_lineage *lineage, uint64_t number, dh_path **path_out)
{
    dh_path *path = path_new(steps_to(lineage, number));
    if (path == NULL)
        return ENOMEM;
    uint64_t *numbers = calloc((size_t)path->info.steps_count + 1, sizeof *numbers);
    int rc = ENOMEM;

    if (numbers != NULL) {
        dh_word root = lineage->entries[fill_numbers(lineage, &path->info, number, numbers)].word;
        path->info.is_from_root = root == lineage->heap->root;
        path->origin =
            path->info.is_from_root ? strdup("root") : dhi_type_text(lineage->heap, root);
        rc = path->origin == NULL ? ENOMEM : fill_steps(lineage, path, numbers);
    }
    free(numbers);
    if (rc == 0)
        *path_out = path;
    else
        dh_path_free(path);
    return rc;
}

int dhi_path_of_handle(const dh_heap *heap, dh_word w, dh_path **path_out)
{
    dh_path *path = path_new(0);
    if (path == NULL)
        return ENOMEM;
    path->origin = dhi_type_text(heap, w);
    if (path->origin == NULL) {
        dh_path_free(path);
        return ENOMEM;
    }
    *path_out = path;
    return 0;
}

void dh_path_free(dh_path *path)
{
    for (uint64_t i = 0; i < path->info.steps_count; i++) {
        if (path->texts != NULL)
            free(path->texts[i]);
        if (path->types != NULL)
            free(path->types[i]);
    }
    free(path->texts);
    free(path->types);
    free(path->origin);
    free(path);
}

void dh_path_read(const dh_path *path, dh_path_info *info_out)
{
    *info_out = path->info;
    info_out->origin = path->origin;
}

int dh_path_step(const dh_path *path, size_t index, const char **text_out, const char **type_out)
{
    if (index >= path->info.steps_count)
        return DH_E_ABSENT;
    *text_out = path->texts[index];
    *type_out = path->types[index];
    return 0;
}
