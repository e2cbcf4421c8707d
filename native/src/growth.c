/* growth.c -- which containers grew from one census to another.
 *
 * A container is the same in both if it has the same serial. Each cell is counted for its *home*: the
 * nearest container above it, in the lineage of its own state, that is in both. So what was stored below
 * a container counts for it, what was taken out counts against it, and nothing counts twice; the sum over
 * all homes is what the heap grew by. Then sums go up the newer lineage, as sizes do in a tree of
 * directories. Contract: dirtyheap.h. Changes nothing.
 */
#include "census.h"

#include <stdlib.h>

/* Less than a hundredth is not worth telling. */
#define SHARE_MIN 100

typedef struct {
    uint64_t number; /* in the newer line */
    dh_growth_row row;
    dh_path *path;
    char *type;
} growth_item;

struct dh_growth {
    growth_item *items;
    size_t count;
};

/* --- containers by serial --------------------------------------------------------------------- */

typedef struct {
    uint64_t serial; /* 0: free */
    uint64_t number;
} serial_slot;

typedef struct {
    serial_slot *slots;
    uint64_t mask;
} serial_map;

/* 0: it has none. The root has one of its own, for that of a heap without a commit is made anew. */
static uint64_t serial_of(const dh_lineage *line, dh_word w)
{
    if (!dh_is_container(w))
        return 0;
    if (w == line->heap->root)
        return UINT64_MAX;
    dh_word meta = dh_load((const dh_word *)dh_at(line->heap, dh_ref_off(w)));
    return dh_is_meta(meta) ? dh_meta_serial(meta) : 0;
}

static serial_slot *slot_of(const serial_map *map, uint64_t serial)
{
    uint64_t at = serial * 0x9e3779b97f4a7c15u >> 20 & map->mask;
    while (map->slots[at].serial != 0 && map->slots[at].serial != serial)
        at = (at + 1) & map->mask;
    return &map->slots[at];
}

static int map_fill(serial_map *map, const dh_lineage *line)
{
    uint64_t room = 16;
    while (room < line->count * 2)
        room *= 2;
    map->slots = calloc(room, sizeof *map->slots);
    map->mask = room - 1;
    if (map->slots == NULL)
        return ENOMEM;
    for (uint64_t i = 0; i < line->count; i++) {
        uint64_t serial = serial_of(line, line->entries[i].word);
        if (serial != 0)
            *slot_of(map, serial) = (serial_slot){serial, i};
    }
    return 0;
}

/* --- homes and sums --------------------------------------------------------------------------- */

/* One for each in the newer line. */
typedef struct {
    uint64_t home; /* number in the newer line, or LINEAGE_NONE */
    int64_t own_bytes, bytes, objects;
    int64_t child_bytes_max; /* of those that it led to: what the one that grew most grew by */
    bool is_in_both;
} change;

typedef struct {
    const dh_census *old, *new_;
    serial_map map; /* of the newer one */
    uint64_t *old_homes;
    change *changes;
} work;

static int work_init(work *work_out, const dh_census *old, const dh_census *new_)
{
    *work_out = (work){.old = old, .new_ = new_};
    work_out->old_homes = calloc(old->lineage.count + 1, sizeof *work_out->old_homes);
    work_out->changes = calloc(new_->lineage.count + 1, sizeof *work_out->changes);
    if (work_out->old_homes == NULL || work_out->changes == NULL)
        return ENOMEM;
    return map_fill(&work_out->map, &new_->lineage);
}

static void work_finish(work *w)
{
    free(w->map.slots);
    free(w->old_homes);
    free(w->changes);
}

static void count_for(work *w, uint64_t home, int64_t bytes, int64_t objects)
{
    if (home == LINEAGE_NONE)
        return;
    w->changes[home].own_bytes += bytes;
    w->changes[home].bytes += bytes;
    w->changes[home].objects += objects;
}

/* Containers, tuples and frozensets; the heap's own descriptions are no objects of a user. */
static int64_t is_counted(dh_word w) { return dh_ref_type(w) <= DH_T_VALUES_LAST; }

/* In both passes whoever led to a container stands before it, and has its home already. */
static void take_old_away(work *w)
{
    const dh_lineage *line = &w->old->lineage;
    for (uint64_t i = 0; i < line->count; i++) {
        uint64_t parent = line->entries[i].parent, serial = serial_of(line, line->entries[i].word);
        const serial_slot *slot = serial != 0 ? slot_of(&w->map, serial) : NULL;
        if (slot != NULL && slot->serial != 0) {
            w->changes[slot->number].is_in_both = true;
            w->old_homes[i] = slot->number;
        } else {
            w->old_homes[i] = parent == LINEAGE_NONE ? LINEAGE_NONE : w->old_homes[parent];
        }
        count_for(w, w->old_homes[i], -(int64_t)w->old->bytes[i],
                  -is_counted(line->entries[i].word));
    }
}

static void add_new(work *w)
{
    const dh_lineage *line = &w->new_->lineage;
    for (uint64_t i = 0; i < line->count; i++) {
        uint64_t parent = line->entries[i].parent;
        change *c = &w->changes[i];
        if (c->is_in_both)
            c->home = i;
        else
            c->home = parent == LINEAGE_NONE ? LINEAGE_NONE : w->changes[parent].home;
        count_for(w, c->home, (int64_t)w->new_->bytes[i], is_counted(line->entries[i].word));
    }
}

static void sum_up(work *w)
{
    const dh_lineage *line = &w->new_->lineage;
    for (uint64_t i = line->count; i-- > 0;) {
        const change *c = &w->changes[i];
        if (line->entries[i].parent == LINEAGE_NONE)
            continue;
        change *parent = &w->changes[line->entries[i].parent];
        parent->bytes += c->bytes;
        parent->objects += c->objects;
        if (c->bytes > parent->child_bytes_max)
            parent->child_bytes_max = c->bytes;
    }
}

/* --- those that grew most --------------------------------------------------------------------- */

static bool is_told(const change *c)
{
    bool is_in_one_child = c->child_bytes_max >= c->bytes - c->bytes / SHARE_MIN;
    return c->is_in_both && c->bytes > 0 && !is_in_one_child;
}

/* Should a be told before b? */
static bool is_before(const growth_item *a, const growth_item *b)
{
    return a->row.bytes != b->row.bytes ? a->row.bytes > b->row.bytes : a->number < b->number;
}

/* items is a heap whose first is the one to be told last. */
static void sift_down(growth_item *items, size_t count)
{
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && is_before(&items[child], &items[child + 1]))
            child++;
        if (!is_before(&items[at], &items[child]))
            return;
        growth_item swap = items[at];
        items[at] = items[child];
        items[child] = swap;
    }
}

static void sift_up(growth_item *items, size_t at)
{
    for (size_t parent; at > 0 && is_before(&items[parent = (at - 1) / 2], &items[at]);
         at = parent) {
        growth_item swap = items[at];
        items[at] = items[parent];
        items[parent] = swap;
    }
}

static void offer(dh_growth *growth, size_t max_count, uint64_t number, const change *c)
{
    growth_item item = {.number = number, .row = {c->bytes, c->own_bytes, c->objects}};
    if (growth->count < max_count) {
        growth->items[growth->count++] = item;
        sift_up(growth->items, growth->count - 1);
    } else if (is_before(&item, &growth->items[0])) {
        growth->items[0] = item;
        sift_down(growth->items, growth->count);
    }
}

static int compare_items(const void *a, const void *b)
{
    return is_before(a, b) ? -1 : 1; /* no two have one number */
}

/* Many that grew by little each are told by who holds them all. */
static void drop_small(dh_growth *growth)
{
    while (growth->count > 0 &&
           growth->items[growth->count - 1].row.bytes < growth->items[0].row.bytes / SHARE_MIN)
        growth->count--;
}

static int name_items(dh_growth *growth, const dh_lineage *line)
{
    for (size_t i = 0; i < growth->count; i++) {
        growth_item *item = &growth->items[i];
        int rc = dhi_lineage_path(line, item->number, &item->path);
        if (rc != 0)
            return rc;
        item->type = dhi_type_text(line->heap, line->entries[item->number].word);
        if (item->type == NULL)
            return ENOMEM;
    }
    return 0;
}

static int choose(dh_growth *growth, const work *w, size_t max_count)
{
    const dh_lineage *line = &w->new_->lineage;
    size_t room = max_count < line->count ? max_count : (size_t)line->count;

    growth->items = calloc(room + 1, sizeof *growth->items);
    if (growth->items == NULL)
        return ENOMEM;
    for (uint64_t i = 0; room > 0 && i < line->count; i++)
        if (is_told(&w->changes[i]))
            offer(growth, room, i, &w->changes[i]);
    qsort(growth->items, growth->count, sizeof *growth->items, compare_items);
    drop_small(growth);
    return name_items(growth, line);
}

/* --- the verbs -------------------------------------------------------------------------------- */

int dh_growth_new(const dh_census *old, const dh_census *new_, size_t max_count,
                  dh_growth **growth_out)
{
    dh_growth *growth = calloc(1, sizeof *growth);
    work w;

    DH_ASSERT(old->keeps_containers && new_->keeps_containers);
    if (growth == NULL)
        return ENOMEM;
    if (!new_->is_private)
        dhi_world_stop(new_->heap);
    int rc = work_init(&w, old, new_);
    if (rc == 0) {
        take_old_away(&w);
        add_new(&w);
        sum_up(&w);
        rc = choose(growth, &w, max_count);
    }
    if (!new_->is_private)
        dhi_world_resume(new_->heap);
    work_finish(&w);
    if (rc == 0)
        *growth_out = growth;
    else
        dh_growth_free(growth);
    return rc;
}

void dh_growth_free(dh_growth *growth)
{
    for (size_t i = 0; i < growth->count; i++) {
        if (growth->items[i].path != NULL)
            dh_path_free(growth->items[i].path);
        free(growth->items[i].type);
    }
    free(growth->items);
    free(growth);
}

int dh_growth_read(const dh_growth *growth, size_t index, dh_growth_row *row_out,
                   const dh_path **path_out, const char **type_out)
{
    if (index >= growth->count)
        return DH_E_ABSENT;
    *row_out = growth->items[index].row;
    *path_out = growth->items[index].path;
    *type_out = growth->items[index].type;
    return 0;
}
