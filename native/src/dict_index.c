/* dict_index.c -- the hash index of a dict: buckets of groups under a directory.
 *
 * Contract: dict_private.h. Extendible hashing (Fagin, Nievergelt, Pippenger, Strong: "Extendible
 * hashing -- a fast access method for dynamic files", TODS 1979) with one page per bucket. A split
 * reads hashes only, never an entry or a key. The local depth of a bucket is not stored: it is how
 * many neighbouring slots of its DIR are the same ref.
 *
 * Every change that allocates is complete in itself: it leaves an index with the same contents, so
 * a later failure needs no undoing. Loops are bounded by the bits of a hash.
 */
#include "dict_private.h"

/* Deleted marks in a block that are worth a rebuild. */
#define INDEX_DELETED_MAX 12u
/* Buddies are joined when they hold no more than this together. */
#define INDEX_JOIN_SLOTS 160u
#define INDEX_LEVELS_MAX 4u

unsigned dhi_index_groups_for(uint64_t count)
{
    unsigned groups = 2;
    while (groups < DICT_BUCKET_GROUPS && groups * DICT_GROUP_SLOTS * 4u < count * 5u)
        groups *= 2;
    return groups;
}

int dhi_index_new(dh_heap *heap, unsigned groups_count, dh_word *index_out)
{
    dh_off off;
    int rc = dh_cell_new(heap, groups_count * sizeof(dict_group), DH_RAW, &off);
    if (rc == 0)
        *index_out = dh_ref(DH_T_BUCKET, off);
    return rc;
}

/* --- one bucket ------------------------------------------------------------------------------- */

static bool slot_is_live(uint32_t entry) { return entry != 0 && entry != DICT_SLOT_DELETED; }

/* First slot that takes a pair within so many groups from home; NULL: none. */
static dict_group *bucket_slot(const dict_bucket *bucket, uint32_t hash, unsigned probes,
                               unsigned *slot_out)
{
    unsigned home = hash & (bucket->groups_count - 1u);
    for (unsigned i = 0; i < probes; i++) {
        dict_group *group = &bucket->groups[home ^ i];
        unsigned room = dict_match8(group->entry, 0) | dict_match8(group->entry, DICT_SLOT_DELETED);
        if (room != 0) {
            *slot_out = (unsigned)__builtin_ctz(room);
            return group;
        }
    }
    return NULL;
}

bool dhi_bucket_put(const dict_bucket *bucket, uint32_t hash, uint32_t entry)
{
    unsigned slot;
    dict_group *group = bucket_slot(bucket, hash, dict_probes(bucket), &slot);
    if (group == NULL)
        return false;
    group->hash[slot] = hash;
    group->entry[slot] = entry;
    return true;
}

/* Put the live pairs of some groups into a bucket whose blocks have room for them. */
static void bucket_put_all(const dict_bucket *bucket, const dict_group *groups,
                           unsigned groups_count)
{
    for (unsigned g = 0; g < groups_count; g++)
        for (unsigned s = 0; s < DICT_GROUP_SLOTS; s++)
            if (slot_is_live(groups[g].entry[s]))
                (void)dhi_bucket_put(bucket, groups[g].hash[s], groups[g].entry[s]);
}

/* Drop the deleted marks of the block that group stands in. */
static void block_rebuild(dict_bucket bucket, const dict_group *group)
{
    dict_group kept[DICT_BLOCK_GROUPS];
    unsigned count = dict_probes(&bucket);
    unsigned first = (unsigned)(group - bucket.groups) & ~(count - 1u);
    memcpy(kept, bucket.groups + first, count * sizeof kept[0]);
    memset(bucket.groups + first, 0, count * sizeof kept[0]);
    bucket_put_all(&bucket, kept, count);
}

static unsigned block_deleted_count(dict_bucket bucket, const dict_group *group)
{
    unsigned total = 0, count = dict_probes(&bucket);
    unsigned first = (unsigned)(group - bucket.groups) & ~(count - 1u);
    for (unsigned i = 0; i < count; i++)
        total += (unsigned)__builtin_popcount(
            dict_match8(bucket.groups[first + i].entry, DICT_SLOT_DELETED));
    return total;
}

/* A group that has an empty slot ends every search, so nothing was ever placed behind it by a
 * search that came through: its slots may become empty. In a full group a mark must stay. */
void dhi_index_remove(dict_bucket bucket, dict_group *group, unsigned slot)
{
    bool has_empty = dict_match8(group->entry, 0) != 0;
    group->hash[slot] = 0;
    group->entry[slot] = has_empty ? 0 : DICT_SLOT_DELETED;
    if (!has_empty && block_deleted_count(bucket, group) > INDEX_DELETED_MAX)
        block_rebuild(bucket, group);
}

dict_group *dhi_index_locate(const dh_heap *heap, dh_word index, uint32_t hash, uint32_t entry,
                             unsigned *slot_out)
{
    dict_bucket bucket = dict_bucket_find(heap, index, hash);
    unsigned home = bucket.groups_count == 0 ? 0 : hash & (bucket.groups_count - 1u);
    for (unsigned i = 0; i < dict_probes(&bucket); i++) {
        dict_group *group = &bucket.groups[home ^ i];
        unsigned hits = dict_match8(group->entry, entry) & dict_match8(group->hash, hash);
        if (hits != 0) {
            *slot_out = (unsigned)__builtin_ctz(hits);
            return group;
        }
    }
    return NULL;
}

/* --- the way to a bucket ---------------------------------------------------------------------- */

/* Where the ref to a bucket stands. */
typedef struct {
    dh_word *index;   /* the word that the index hangs on                                  */
    dh_word *dir_ref; /* the word that holds the ref to the last DIR; == slot without one  */
    dh_word *dir;     /* its slots; NULL: the bucket hangs on the index word itself        */
    dh_word *slot;    /* the word that led to the bucket                                   */
    unsigned slot_no;
    unsigned dir_bits;
    unsigned taken; /* bits of the hash that DIRs above this one have used               */
} index_path;

static bool index_path_find(const dh_heap *heap, dh_word *index, uint32_t hash,
                            index_path *path_out)
{
    index_path path = {index, index, NULL, index, 0, 0, 0};
    while (dh_is_ref_to(*path.slot, DH_T_DIR)) {
        path.taken += path.dir_bits;
        path.dir_ref = path.slot;
        path.dir = dict_dir_at(heap, *path.dir_ref, &path.dir_bits);
        if (path.dir == NULL || path.taken + path.dir_bits > DICT_DIR_BITS_MAX)
            return false;
        path.slot_no = (hash << path.taken) >> (32u - path.dir_bits);
        path.slot = &path.dir[path.slot_no];
    }
    *path_out = path;
    return true;
}

/* log2 of how many slots of the DIR are this bucket's. Ranges are aligned and buddies differ. */
static unsigned path_range_bits(const index_path *path)
{
    unsigned bits = 0;
    while (path->dir != NULL && bits < path->dir_bits &&
           path->dir[path->slot_no ^ (1u << bits)] == *path->slot)
        bits++;
    return bits;
}

/* --- growing ---------------------------------------------------------------------------------- */

/* A bucket below the full size moves into a cell of twice its groups. */
static int index_double_bucket(dh_heap *heap, const index_path *path, dict_bucket bucket)
{
    dh_word grown, old = *path->slot;
    int rc = dhi_index_new(heap, bucket.groups_count * 2u, &grown);
    if (rc != 0)
        return rc;
    dict_bucket into = dict_bucket_at(heap, grown);
    if (into.groups_count <= bucket.groups_count)
        return dict_corrupt(heap, "index");
    bucket_put_all(&into, bucket.groups, bucket.groups_count);
    dh_store(path->slot, grown);
    dh_cell_free(heap, dh_ref_off(old));
    return 0;
}

/* A full DIR, or a bucket without one, gets a DIR of two slots in between. */
static int index_insert_dir(dh_heap *heap, const index_path *path)
{
    dh_off off;
    int rc = dh_cell_new(heap, 2 * 8, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *slots = dh_at(heap, off);
    slots[0] = slots[1] = *path->slot;
    dh_store(path->slot, dh_ref(DH_T_DIR, off));
    return 0;
}

static int index_double_dir(dh_heap *heap, const index_path *path)
{
    dh_off off;
    unsigned count = 1u << path->dir_bits;
    dh_word old = *path->dir_ref;
    int rc = dh_cell_new(heap, (size_t)count * 2 * 8, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *slots = dh_at(heap, off);
    for (unsigned i = 0; i < count; i++)
        slots[2 * i] = slots[2 * i + 1] = path->dir[i];
    dh_store(path->dir_ref, dh_ref(DH_T_DIR, off));
    dh_cell_free(heap, dh_ref_off(old));
    return 0;
}

/* Move the pairs whose next directory bit is set to a new bucket; deleted marks vanish. */
static int index_split_bucket(dh_heap *heap, const index_path *path, dict_bucket bucket,
                              unsigned range_bits)
{
    dict_group kept[DICT_BUCKET_GROUPS];
    dh_word split;
    uint32_t bit = (uint32_t)1 << (31u - (path->taken + path->dir_bits - range_bits));
    int rc = dhi_index_new(heap, DICT_BUCKET_GROUPS, &split);
    if (rc != 0)
        return rc;
    dict_bucket into = dict_bucket_at(heap, split);
    memcpy(kept, bucket.groups, sizeof kept);
    memset(bucket.groups, 0, sizeof kept);
    for (unsigned g = 0; g < DICT_BUCKET_GROUPS; g++)
        for (unsigned s = 0; s < DICT_GROUP_SLOTS; s++)
            if (slot_is_live(kept[g].entry[s]))
                (void)dhi_bucket_put((kept[g].hash[s] & bit) ? &into : &bucket, kept[g].hash[s],
                                     kept[g].entry[s]);
    unsigned half = 1u << (range_bits - 1u);
    unsigned first = (path->slot_no & ~(2 * half - 1u)) + half;
    for (unsigned i = 0; i < half; i++)
        dh_store(&path->dir[first + i], split);
    return 0;
}

/* One step towards a slot for hash; each step leaves a whole index. */
static int index_grow(dh_heap *heap, const index_path *path, dict_bucket bucket)
{
    if (bucket.groups_count < DICT_BUCKET_GROUPS)
        return index_double_bucket(heap, path, bucket);
    unsigned range_bits = path_range_bits(path);
    if (range_bits > 0)
        return index_split_bucket(heap, path, bucket, range_bits);
    if (path->taken + path->dir_bits >= DICT_DIR_BITS_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "too many keys of a dict have the same hash");
    if (path->dir == NULL || 8u << path->dir_bits >= DH_PAGE_BYTES)
        return index_insert_dir(heap, path);
    return index_double_dir(heap, path);
}

int dhi_index_reserve(dh_heap *heap, dh_word *index, uint32_t hash, dict_group **group_out,
                      unsigned *slot_out)
{
    for (;;) {
        index_path path;
        if (!index_path_find(heap, index, hash, &path))
            return dict_corrupt(heap, "index");
        dict_bucket bucket = dict_bucket_at(heap, *path.slot);
        if (bucket.groups_count == 0)
            return dict_corrupt(heap, "index");
        unsigned probes = dict_probes(&bucket);
        if (bucket.groups_count < DICT_BUCKET_GROUPS && probes > DICT_PROBES_SMALL)
            probes = DICT_PROBES_SMALL;
        *group_out = bucket_slot(&bucket, hash, probes, slot_out);
        if (*group_out != NULL)
            return 0;
        int rc = index_grow(heap, &path, bucket);
        if (rc != 0)
            return rc;
    }
}

/* --- shrinking -------------------------------------------------------------------------------- */

static unsigned group_live_count(const dict_group *group)
{
    return DICT_GROUP_SLOTS -
           (unsigned)__builtin_popcount(dict_match8(group->entry, 0) |
                                        dict_match8(group->entry, DICT_SLOT_DELETED));
}

/* Few enough pairs together, and in no block more than it holds? */
static bool buckets_can_join(dict_bucket a, dict_bucket b)
{
    unsigned total = 0, block = 0;
    for (unsigned g = 0; g < DICT_BUCKET_GROUPS; g++) {
        if (g % DICT_BLOCK_GROUPS == 0)
            block = 0;
        unsigned live = group_live_count(&a.groups[g]) + group_live_count(&b.groups[g]);
        block += live;
        total += live;
        if (block > DICT_BLOCK_GROUPS * DICT_GROUP_SLOTS || total > INDEX_JOIN_SLOTS)
            return false;
    }
    return true;
}

/* Halve a DIR as long as all its slots come in equal pairs; a DIR of two equal slots goes away. */
static void index_halve_dir(dh_heap *heap, const index_path *path)
{
    unsigned count = 1u << path->dir_bits, same = path->dir_bits;
    dh_word old = *path->dir_ref;
    dh_off off;
    for (unsigned i = 0; i < count && same > 0; i++)
        while (same > 0 && path->dir[i] != path->dir[i & ~((1u << same) - 1u)])
            same--;
    if (same == 0)
        return;
    if (same == path->dir_bits) {
        dh_store(path->dir_ref, path->dir[0]);
    } else {
        if (dh_cell_new(heap, (size_t)(count >> same) * 8, DH_REFS, &off) != 0)
            return;
        dh_word *slots = dh_at(heap, off);
        for (unsigned i = 0; i < count >> same; i++)
            slots[i] = path->dir[i << same];
        dh_store(path->dir_ref, dh_ref(DH_T_DIR, off));
    }
    dh_cell_free(heap, dh_ref_off(old));
}

/* Join the bucket on the path with its buddy, the other half of the range one level up. */
static bool index_join(dh_heap *heap, const index_path *path)
{
    unsigned range_bits = path_range_bits(path), range = 1u << range_bits;
    if (path->dir == NULL || range_bits == path->dir_bits)
        return false;
    unsigned buddy_first = (path->slot_no & ~(range - 1u)) ^ range;
    dh_word ref = *path->slot, buddy_ref = path->dir[buddy_first];
    /* The buddy must be one bucket, not two that were split further. */
    if (path->dir[buddy_first + range - 1u] != buddy_ref)
        return false;
    dict_bucket bucket = dict_bucket_at(heap, ref), buddy = dict_bucket_at(heap, buddy_ref);
    if (bucket.groups_count != DICT_BUCKET_GROUPS || buddy.groups_count != DICT_BUCKET_GROUPS ||
        !buckets_can_join(bucket, buddy))
        return false;
    bucket_put_all(&bucket, buddy.groups, DICT_BUCKET_GROUPS);
    for (unsigned i = 0; i < range; i++)
        dh_store(&path->dir[buddy_first + i], ref);
    dh_cell_free(heap, dh_ref_off(buddy_ref));
    return true;
}

void dhi_index_shrink(dh_heap *heap, dh_word *index, uint32_t hash)
{
    index_path path;
    for (unsigned joins = 0; joins < DICT_DIR_BITS_MAX; joins++) {
        if (!index_path_find(heap, index, hash, &path) || !index_join(heap, &path))
            return;
        index_halve_dir(heap, &path);
    }
}

/* --- whole indexes ---------------------------------------------------------------------------- */

/* The DIR goes before what hangs on it: one that is linked twice in a damaged file is free when it
 * is met again. Freeing leaves the bytes readable (alloc.h). */
static void index_free_at(dh_heap *heap, dh_word w, unsigned level)
{
    unsigned bits;
    if (dh_is_ref_to(w, DH_T_BUCKET)) {
        dh_cell_free(heap, dh_ref_off(w));
        return;
    }
    const dh_word *slots = dict_dir_at(heap, w, &bits);
    if (slots == NULL || level > INDEX_LEVELS_MAX || !dh_cell_is_allocated(heap, dh_ref_off(w)))
        return;
    dh_cell_free(heap, dh_ref_off(w));
    for (unsigned i = 0; i < 1u << bits; i++)
        if (i == 0 || slots[i] != slots[i - 1])
            index_free_at(heap, slots[i], level + 1);
}

void dhi_index_free(dh_heap *heap, dh_word index)
{
    if (dh_is_ref(index))
        index_free_at(heap, index, 1);
}

typedef struct {
    const dh_heap *heap;
    dhi_bucket_visit visit;
    void *context;
    uint64_t budget; /* slots and buckets that a heap of this size can have */
} index_walk;

static int index_walk_at(index_walk *walk, dh_word w, uint32_t prefix, unsigned taken,
                         unsigned level)
{
    unsigned bits;
    int rc = 0;
    if (!dh_is_ref_to(w, DH_T_DIR)) {
        dict_bucket bucket = dict_bucket_at(walk->heap, w);
        if (bucket.groups_count == 0 || walk->budget < bucket.groups_count)
            return dict_corrupt(walk->heap, "index");
        walk->budget -= bucket.groups_count;
        return walk->visit(walk->context, bucket, prefix, taken);
    }
    const dh_word *slots = dict_dir_at(walk->heap, w, &bits);
    if (slots == NULL || level > INDEX_LEVELS_MAX || taken + bits > DICT_DIR_BITS_MAX ||
        walk->budget < 1u << bits)
        return dict_corrupt(walk->heap, "directory");
    walk->budget -= 1u << bits;
    for (unsigned i = 0, range; i < 1u << bits && rc == 0; i += range) {
        unsigned range_bits = 0;
        /* As long as a range is aligned and all of it is this ref. */
        for (range = 1; range_bits < bits && (i & range) == 0 && i + range < 1u << bits &&
                        slots[i + range] == slots[i];
             range *= 2)
            range_bits++;
        rc = index_walk_at(walk, slots[i],
                           prefix | (uint32_t)(i >> range_bits)
                                        << (32u - taken - (bits - range_bits)) % 32u,
                           taken + bits - range_bits, level + 1);
    }
    return rc;
}

int dhi_index_walk(const dh_heap *heap, dh_word index, dhi_bucket_visit visit, void *context)
{
    index_walk walk = {heap, visit, context, heap->alloc.allocated_bytes / 8 + 1};
    return index_walk_at(&walk, index, 0, 0, 1);
}
