/* dict_shape.c -- shapes: finding the shared key table of a key sequence, and making it.
 *
 * Contract: dict_shape.h. Nothing here changes a dict. Whatever goes wrong on the way to a shape
 * ends in "no shape", with nothing left behind: a dict can always have keys of its own.
 */
#include "dict_shape.h"

#include "dict_private.h"

#include <stdlib.h>

#define ROWS_FIRST 64u
/* Key sequences remembered for their second sighting. Few, on purpose: what comes again only after
 * many others is data, not a kind of record. */
#define SEEN_SETS 32u
#define SEEN_WAYS 4u /* kinds of records that come in turn must not push one another out */

typedef struct {
    uint64_t sequence;
    uint64_t serial;
    uint64_t from; /* serial of a shape that has all keys of this one but the last; 0: not known */
    dh_word shape; /* EMPTY: the row is free */
} shapes_row;

typedef struct dh_shapes {
    shapes_row *rows; /* open addressing, a power of two, at most three quarters full */
    uint32_t rows_count, used_count;
    uint32_t refusals_left; /* there were too many shapes: look again after so many requests */
    bool is_recent_read;
    uint64_t seen[SEEN_SETS][SEEN_WAYS];
    uint8_t seen_next[SEEN_SETS];
} dh_shapes;

void dhi_shapes_free(dh_heap *heap)
{
    if (heap->shapes != NULL)
        free(heap->shapes->rows);
    free(heap->shapes);
    heap->shapes = NULL;
}

/* --- one shape -------------------------------------------------------------------------------- */

uint64_t dh_shape_serial(const dh_heap *heap, dh_word w)
{
    const dh_word *shape = dhi_shape_at(heap, w, 1);
    if (shape == NULL || !dh_cell_is_allocated(heap, dh_ref_off(w)))
        return 0;
    /* Cells of bytes can hold any pattern; in a cell of words only heads and shapes have this one. */
    bool holds_words = (heap->alloc.kind[dh_ref_off(w) >> DH_PAGE_SHIFT] & 1u) == DH_REFS;
    return holds_words && dh_is_meta(shape[SHAPE_META]) ? dh_meta_serial(shape[SHAPE_META]) : 0;
}

static bool words_are_same_text(const dh_heap *heap, dh_word a, dh_word b)
{
    dh_bytes_view x, y;
    if (a == b)
        return true;
    return dhi_text_view(heap, a, DH_T_STR, &x) && dhi_text_view(heap, b, DH_T_STR, &y) &&
           x.size == y.size && x.size > DH_SHORT_BYTES_MAX && dhi_text_same(x.data, y.data, x.size);
}

static bool key_is_word(const dh_heap *heap, const dh_key *key, dh_word w)
{
    dh_bytes_view view;
    if (key->word != 0 || !dhi_text_view(heap, w, DH_T_STR, &view))
        return key->word == w;
    return view.size == key->size && dhi_text_same(view.data, key->data, view.size);
}

/* The first `known` keys are not looked at. */
static bool shape_has_keys(const dh_heap *heap, dh_word w, const dhi_key_sequence *keys,
                           unsigned known)
{
    unsigned count = keys->words_count + keys->keys_count;
    const dh_word *shape = dhi_shape_at(heap, w, count);
    if (shape == NULL || shape_count(shape) != count)
        return false;
    const dh_word *words = shape + SHAPE_KEYS;
    for (unsigned i = known; i < keys->words_count; i++)
        if (!words_are_same_text(heap, words[i], keys->words[i]))
            return false;
    for (unsigned i = 0; i < keys->keys_count; i++)
        if (!key_is_word(heap, &keys->keys[i], words[keys->words_count + i]))
            return false;
    return true;
}

/* Hash of a key word, which must be a string. */
static int shape_key_hash(const dh_heap *heap, dh_word w, uint64_t *hash_out)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer = NULL;
    dh_key key = {.tag = 0};
    int rc = dh_key_from_word(heap, w, scratch, &key, &buffer);
    free(buffer);
    *hash_out = key.hash;
    return rc == 0 && key.tag == 's' ? 0 : dict_corrupt(heap, "shape");
}

/* What can be reckoned again from the keys must be what stands there. */
int dhi_shape_check(const dh_heap *heap, dh_word w)
{
    uint64_t sequence = SHAPE_SEQUENCE_EMPTY, hash;
    dh_word prints[SHAPE_PRINT_WORDS];
    const dh_word *shape = dhi_shape_at(heap, w, 1);
    unsigned count = shape == NULL ? 0 : shape_count(shape);
    shape = dhi_shape_at(heap, w, count);
    if (shape == NULL || count == 0 || dh_shape_serial(heap, w) == 0 ||
        dh_meta_serial(shape[SHAPE_META]) >= heap->serial_next)
        return dict_corrupt(heap, "shape");
    for (unsigned i = 0; i < SHAPE_PRINT_WORDS; i++)
        prints[i] = dh_int(0);
    for (unsigned i = 0; i < count; i++) {
        if (shape_key_hash(heap, shape[SHAPE_KEYS + i], &hash) != 0)
            return DH_E_CORRUPT;
        for (unsigned k = 0; k < i; k++)
            if (words_are_same_text(heap, shape[SHAPE_KEYS + k], shape[SHAPE_KEYS + i]))
                return dict_corrupt(heap, "shape");
        sequence = dhi_sequence_next(sequence, hash);
        prints[i / 8] = dict_fingerprint_set(prints[i / 8], i % 8, hash);
    }
    if (shape[SHAPE_SEQUENCE] != dh_int((int64_t)sequence) ||
        memcmp(prints, shape + SHAPE_PRINTS, sizeof prints) != 0)
        return dict_corrupt(heap, "shape");
    return 0;
}

/* --- the table -------------------------------------------------------------------------------- */

static dh_shapes *shapes_of(dh_heap *heap)
{
    dh_shapes *shapes = heap->shapes;
    if (DH_LIKELY(shapes != NULL))
        return shapes;
    shapes = calloc(1, sizeof *shapes);
    if (shapes == NULL)
        return NULL;
    shapes->rows_count = ROWS_FIRST;
    shapes->rows = calloc(ROWS_FIRST, sizeof *shapes->rows);
    if (shapes->rows == NULL) {
        free(shapes);
        return NULL;
    }
    heap->shapes = shapes;
    return shapes;
}

void dhi_shapes_refuse(dh_heap *heap, uint32_t count)
{
    dh_shapes *shapes = shapes_of(heap);
    if (shapes != NULL)
        shapes->refusals_left = count;
}

static bool row_is_valid(const dh_heap *heap, const shapes_row *row)
{
    return dh_shape_serial(heap, row->shape) == row->serial;
}

static void rows_put(shapes_row *rows, uint32_t rows_count, const shapes_row *row)
{
    uint32_t i = (uint32_t)row->sequence & (rows_count - 1);
    while (rows[i].shape != DH_EMPTY)
        i = (i + 1) & (rows_count - 1);
    rows[i] = *row;
}

/* Leave out the rows of shapes that are no more, and give the rest room. */
static bool shapes_rebuild(const dh_heap *heap, dh_shapes *shapes)
{
    uint32_t kept = 0, rows_count = ROWS_FIRST;
    for (uint32_t i = 0; i < shapes->rows_count; i++)
        if (shapes->rows[i].shape != DH_EMPTY && row_is_valid(heap, &shapes->rows[i]))
            kept++;
    if (kept >= SHAPES_COUNT_MAX)
        return false;
    while (rows_count < 2 * (kept + 1))
        rows_count *= 2;
    shapes_row *rows = calloc(rows_count, sizeof *rows);
    if (rows == NULL)
        return false;
    for (uint32_t i = 0; i < shapes->rows_count; i++)
        if (shapes->rows[i].shape != DH_EMPTY && row_is_valid(heap, &shapes->rows[i]))
            rows_put(rows, rows_count, &shapes->rows[i]);
    free(shapes->rows);
    shapes->rows = rows;
    shapes->rows_count = rows_count;
    shapes->used_count = kept;
    return true;
}

/* Room for one more row. */
static bool shapes_room(const dh_heap *heap, dh_shapes *shapes)
{
    if (shapes->refusals_left > 0) {
        shapes->refusals_left--;
        return false;
    }
    if (shapes->used_count < shapes->rows_count / 4 * 3 && shapes->used_count < SHAPES_COUNT_MAX)
        return true;
    bool has_room = shapes_rebuild(heap, shapes);
    if (!has_room)
        shapes->refusals_left = SHAPES_COUNT_MAX;
    return has_room;
}

static void shapes_put(dh_shapes *shapes, const dh_word *shape, dh_word w, uint64_t from)
{
    shapes_row row = {(uint64_t)dh_int_value(shape[SHAPE_SEQUENCE]),
                      dh_meta_serial(shape[SHAPE_META]), from, w};
    rows_put(shapes->rows, shapes->rows_count, &row);
    shapes->used_count++;
}

/* A dict that is filled key by key comes from the same shape each time: its keys are compared once. */
static dh_word shapes_find(const dh_heap *heap, const dh_shapes *shapes,
                           const dhi_key_sequence *keys)
{
    uint32_t mask = shapes->rows_count - 1;
    for (uint32_t i = (uint32_t)keys->sequence & mask; shapes->rows[i].shape != DH_EMPTY;
         i = (i + 1) & mask) {
        shapes_row *row = &shapes->rows[i];
        bool is_known = keys->from != 0 && row->from == keys->from;
        if (row->sequence == keys->sequence && row_is_valid(heap, row) &&
            shape_has_keys(heap, row->shape, keys, is_known ? keys->words_count : 0)) {
            if (keys->from != 0)
                row->from = keys->from;
            return row->shape;
        }
    }
    return DH_EMPTY;
}

/* --- the shapes made last, across processes --------------------------------------------------- */

static void recent_read(const dh_heap *heap, dh_shapes *shapes)
{
    const dh_word *word = dh_dict_root_word(heap, DH_ROOT_SHAPES);
    shapes->is_recent_read = true;
    const dh_word *recent = word ? dh_deref(heap, *word, DH_T_SHAPES, SHAPES_BYTES) : NULL;
    for (unsigned i = 1; recent != NULL && i <= SHAPES_RECENT; i++)
        if (recent[i] != DH_EMPTY && dhi_shape_check(heap, recent[i]) == 0 &&
            shapes_room(heap, shapes))
            shapes_put(shapes, dh_at(heap, dh_ref_off(recent[i])), recent[i], 0);
}

/* Failing costs a second shape of the same keys in a later process. */
static void recent_enter(dh_heap *heap, dh_word shape)
{
    dh_off off;
    dh_word *word = dh_dict_root_word(heap, DH_ROOT_SHAPES);
    if (word == NULL)
        return;
    dh_word *recent = dh_deref(heap, *word, DH_T_SHAPES, SHAPES_BYTES);
    if (recent == NULL) {
        if (*word != DH_EMPTY || dh_cell_new(heap, SHAPES_BYTES, DH_REFS, &off) != 0)
            return;
        recent = dh_at(heap, off);
        recent[0] = dh_int(0);
        dh_store(word, dh_ref(DH_T_SHAPES, off));
    }
    uint64_t entered = (uint64_t)dh_int_value(recent[0]);
    dh_store(&recent[1 + entered % SHAPES_RECENT], shape);
    dh_store(&recent[0], dh_int((int64_t)((entered + 1) & (uint64_t)DH_INT_MAX)));
}

int dhi_shapes_check(const dh_heap *heap, dh_word w)
{
    const dh_word *recent = dh_deref(heap, w, DH_T_SHAPES, SHAPES_BYTES);
    if (recent == NULL || !dh_is_int(recent[0]))
        return dict_corrupt(heap, "list of shapes");
    for (unsigned i = 1; i <= SHAPES_RECENT; i++)
        if (recent[i] != DH_EMPTY && !dh_is_ref_to(recent[i], DH_T_SHAPE))
            return dict_corrupt(heap, "list of shapes");
    return 0;
}

/* --- making ----------------------------------------------------------------------------------- */

static void shape_drop(dh_heap *heap, dh_word *shape, dh_off off)
{
    for (unsigned i = 0; i < shape_count(shape); i++)
        dh_value_drop(heap, shape[SHAPE_KEYS + i]);
    dh_cell_free(heap, off);
}

/* Copy one key into the shape; the count says how many there are, for shape_drop. */
static int shape_add_key(dh_heap *heap, dh_word *shape, const dhi_key_sequence *keys, unsigned i)
{
    uint64_t hash;
    int rc;
    if (i < keys->words_count) {
        rc = shape_key_hash(heap, keys->words[i], &hash);
        if (rc == 0)
            rc = dh_value_clone(heap, keys->words[i], &shape[SHAPE_KEYS + i]);
    } else {
        const dh_key *key = &keys->keys[i - keys->words_count];
        hash = key->hash;
        rc = dh_str_new(heap, key->data, key->size, &shape[SHAPE_KEYS + i]);
    }
    if (rc != 0)
        return rc;
    dh_word *prints = &shape[SHAPE_PRINTS + i / 8];
    *prints = dict_fingerprint_set(*prints, i % 8, hash);
    shape[SHAPE_META] = dh_meta(dh_meta_serial(shape[SHAPE_META]), i + 1);
    return 0;
}

static dh_word shape_make(dh_heap *heap, const dhi_key_sequence *keys)
{
    unsigned count = keys->words_count + keys->keys_count;
    dh_off off;
    if (dh_cell_new(heap, (SHAPE_KEYS + count) * 8u, DH_REFS, &off) != 0)
        return DH_EMPTY;
    dh_word *shape = dh_at(heap, off);
    shape[SHAPE_META] = dh_meta(dhi_serial_next(heap), 0);
    shape[SHAPE_SEQUENCE] = dh_int((int64_t)keys->sequence);
    for (unsigned i = 0; i < SHAPE_PRINT_WORDS; i++)
        shape[SHAPE_PRINTS + i] = dh_int(0);
    for (unsigned i = 0; i < count; i++)
        if (shape_add_key(heap, shape, keys, i) != 0) {
            shape_drop(heap, shape, off);
            return DH_EMPTY;
        }
    return dh_ref(DH_T_SHAPE, off);
}

/* A shape outlives the operation that asked for it, also one that is taken back. */
static dh_word shapes_add(dh_heap *heap, dh_shapes *shapes, const dhi_key_sequence *keys)
{
    if (!shapes_room(heap, shapes))
        return DH_EMPTY;
    bool journal_was_open = dh_journal_suspend(heap);
    dh_word shape = shape_make(heap, keys);
    if (shape != DH_EMPTY) {
        shapes_put(shapes, dh_at(heap, dh_ref_off(shape)), shape, keys->from);
        recent_enter(heap, shape);
    }
    dh_journal_resume(heap, journal_was_open);
    return shape;
}

static bool shapes_has_seen(dh_shapes *shapes, uint64_t sequence)
{
    unsigned set = (unsigned)(sequence >> 32) % SEEN_SETS;
    for (unsigned way = 0; way < SEEN_WAYS; way++)
        if (shapes->seen[set][way] == sequence)
            return true;
    shapes->seen[set][shapes->seen_next[set]++ % SEEN_WAYS] = sequence;
    return false;
}

dh_word dhi_shape_get(dh_heap *heap, const dhi_key_sequence *keys)
{
    dh_shapes *shapes = shapes_of(heap);
    if (shapes == NULL || keys->words_count + keys->keys_count > SHAPE_KEYS_MAX)
        return DH_EMPTY;
    if (DH_UNLIKELY(!shapes->is_recent_read))
        recent_read(heap, shapes);
    dh_word shape = shapes_find(heap, shapes, keys);
    if (shape == DH_EMPTY && shapes_has_seen(shapes, keys->sequence))
        shape = shapes_add(heap, shapes, keys);
    return shape;
}

dh_word dh_shape_of_keys(dh_heap *heap, const dh_key *keys, unsigned count)
{
    dhi_key_sequence wanted = {SHAPE_SEQUENCE_EMPTY, 0, NULL, 0, keys, count};
    for (unsigned i = 0; i < count; i++) {
        if (keys[i].tag != 's')
            return DH_EMPTY;
        wanted.sequence = dhi_sequence_next(wanted.sequence, keys[i].hash);
    }
    return count > 0 ? dhi_shape_get(heap, &wanted) : DH_EMPTY;
}
