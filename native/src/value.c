/* value.c -- values without identity: making, reading, dropping and copying their cells.
 *
 * Contract: value.h. Every reader checks the ref, the page behind it and the size inside the cell
 * against the cell, because the bytes may come from a damaged file. Nothing here may loop or
 * recurse further than a sound heap can make it: tuples and frozensets nest at most VALUE_DEPTH_MAX
 * deep, and a copy visits no more words than the heap has.
 */
#include "value.h"

#include "ext.h"
#include "value_private.h"

#include <stdlib.h>

#define VALUE_SIZE_MAX 0x7ffffff0u

/* --- strings and bytes ------------------------------------------------------------------------ */

static int text_new(dh_heap *heap, dh_type type, const uint8_t *data, size_t size,
                    dh_word *word_out)
{
    dh_off off;
    uint32_t size32 = (uint32_t)size;
    if (size <= DH_SHORT_BYTES_MAX) {
        *word_out = dh_short(data, size, type == DH_T_BYTES);
        return 0;
    }
    if (size > VALUE_SIZE_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "a string of %zu bytes is too long", size);
    int rc = dh_cell_new(heap, sizeof size32 + size, DH_RAW, &off);
    if (rc != 0)
        return rc;
    uint8_t *cell = dh_at(heap, off);
    memcpy(cell, &size32, sizeof size32);
    memcpy(cell + sizeof size32, data, size);
    *word_out = dh_ref(type, off);
    return 0;
}

int dh_str_new(dh_heap *heap, const uint8_t *utf8, size_t size, dh_word *word_out)
{
    return text_new(heap, DH_T_STR, utf8, size, word_out);
}

int dh_bytes_new(dh_heap *heap, const uint8_t *data, size_t size, dh_word *word_out)
{
    return text_new(heap, DH_T_BYTES, data, size, word_out);
}

int dh_bytes_read(const dh_heap *heap, dh_word w, dh_bytes_view *view_out)
{
    dh_bytes_view view;
    if ((dhi_text_view(heap, w, DH_T_STR, &view) || dhi_text_view(heap, w, DH_T_BYTES, &view)) &&
        view.size > DH_SHORT_BYTES_MAX) {
        *view_out = view;
        return 0;
    }
    return dhi_fail(heap, DH_E_CORRUPT, "string word %#llx is damaged", (unsigned long long)w);
}

/* --- numbers ---------------------------------------------------------------------------------- */

int dh_float_new(dh_heap *heap, double d, dh_word *word_out)
{
    dh_off off;
    if (dh_float_fits(d, word_out))
        return 0;
    int rc = dh_cell_new(heap, sizeof d, DH_RAW, &off);
    if (rc != 0)
        return rc;
    memcpy(dh_at(heap, off), &d, sizeof d);
    *word_out = dh_ref(DH_T_FLOAT, off);
    return 0;
}

int dh_float_read(const dh_heap *heap, dh_word w, double *d_out)
{
    if (dh_is_float(w)) {
        *d_out = dh_float_value(w);
        return 0;
    }
    const void *cell = dh_deref(heap, w, DH_T_FLOAT, sizeof *d_out);
    if (cell == NULL)
        return dhi_fail(heap, DH_E_CORRUPT, "float word %#llx is damaged", (unsigned long long)w);
    memcpy(d_out, cell, sizeof *d_out);
    return 0;
}

bool dhi_magnitude_fits(bool is_negative, const uint8_t *magnitude, size_t size, int64_t *v_out)
{
    uint64_t u = 0;
    if (size > 8)
        return false;
    memcpy(&u, magnitude, size);
    if (u > (uint64_t)INT64_MAX + (is_negative ? 1u : 0u))
        return false;
    *v_out = (int64_t)(is_negative ? 0 - u : u);
    return true;
}

int dh_bigint_new(dh_heap *heap, bool is_negative, const uint8_t *magnitude, size_t size,
                  dh_word *word_out)
{
    int64_t v;
    dh_off off;
    while (size > 0 && magnitude[size - 1] == 0)
        size--;
    if (dhi_magnitude_fits(is_negative, magnitude, size, &v) && dh_int_fits(v)) {
        *word_out = dh_int(v);
        return 0;
    }
    if (size > VALUE_SIZE_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "an integer of %zu bytes is too large", size);
    uint32_t head = (uint32_t)size << 1 | (uint32_t)is_negative;
    int rc = dh_cell_new(heap, sizeof head + size, DH_RAW, &off);
    if (rc != 0)
        return rc;
    uint8_t *cell = dh_at(heap, off);
    memcpy(cell, &head, sizeof head);
    memcpy(cell + sizeof head, magnitude, size);
    *word_out = dh_ref(DH_T_BIGINT, off);
    return 0;
}

int dh_bigint_read(const dh_heap *heap, dh_word w, bool *is_negative_out,
                   dh_bytes_view *magnitude_out)
{
    size_t bytes;
    uint32_t head = 0;
    const uint8_t *cell = dhi_span(heap, w, DH_T_BIGINT, &bytes);
    if (cell != NULL)
        memcpy(&head, cell, sizeof head);
    size_t size = head >> 1;
    /* A size of zero or a leading zero byte would make two forms of one number. */
    if (cell == NULL || size == 0 || size > bytes - sizeof head || cell[3 + size] == 0)
        return dhi_fail(heap, DH_E_CORRUPT, "integer word %#llx is damaged", (unsigned long long)w);
    *is_negative_out = (head & 1u) != 0;
    magnitude_out->data = cell + sizeof head;
    magnitude_out->size = size;
    return 0;
}

/* --- tuples and frozensets -------------------------------------------------------------------- */

static dh_word *items_cell(const dh_heap *heap, dh_word w)
{
    return dh_is_items(w) ? dh_deref(heap, w, dh_ref_type(w), 8) : NULL;
}

/* Levels of tuples in w: 0 for anything else. What a damaged cell says is only ever too strict. */
static uint64_t items_depth(const dh_heap *heap, dh_word w)
{
    const dh_word *cell = items_cell(heap, w);
    return cell == NULL ? 0
                        : (uint64_t)dh_int_value(cell[0]) >> TUPLE_DEPTH_SHIFT & TUPLE_DEPTH_MASK;
}

static int items_new(dh_heap *heap, dh_type type, const dh_word *words, size_t count,
                     dh_word *word_out)
{
    uint64_t depth = 1;
    dh_off off;
    for (size_t i = 0; i < count; i++) {
        uint64_t inner = items_depth(heap, words[i]);
        if (inner >= depth)
            depth = inner + 1;
    }
    if (depth > VALUE_DEPTH_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "tuples and frozensets nest more than %u deep",
                        VALUE_DEPTH_MAX);
    if (count > VALUE_SIZE_MAX / 8)
        return dhi_fail(heap, DH_E_LIMIT, "a tuple of %zu elements is too long", count);
    int rc = dh_cell_new(heap, (count + 1) * 8, DH_REFS, &off);
    if (rc != 0)
        return rc;
    dh_word *cell = dh_at(heap, off);
    cell[0] = dh_int((int64_t)(depth << TUPLE_DEPTH_SHIFT | count));
    if (count > 0)
        memcpy(cell + 1, words, count * 8);
    *word_out = dh_ref(type, off);
    return 0;
}

int dh_tuple_new(dh_heap *heap, const dh_word *words, size_t count, dh_word *word_out)
{
    return items_new(heap, DH_T_TUPLE, words, count, word_out);
}

int dh_frozenset_new(dh_heap *heap, const dh_word *words, size_t count, dh_word *word_out)
{
    return items_new(heap, DH_T_FROZENSET, words, count, word_out);
}

int dh_tuple_read(const dh_heap *heap, dh_word w, const dh_word **words_out, size_t *count_out)
{
    size_t bytes;
    const dh_word *cell = dh_is_items(w) ? dhi_span(heap, w, dh_ref_type(w), &bytes) : NULL;
    uint64_t count = cell == NULL ? 0 : (uint32_t)dh_int_value(cell[0]);
    if (cell == NULL || !dh_is_int(cell[0]) || count > bytes / 8 - 1)
        return dhi_fail(heap, DH_E_CORRUPT, "tuple word %#llx is damaged", (unsigned long long)w);
    *words_out = cell + 1;
    *count_out = (size_t)count;
    return 0;
}

void dh_tuple_share(dh_heap *heap, dh_word w)
{
    dh_word *cell = items_cell(heap, w);
    if (cell != NULL)
        dh_store(cell, dh_int(dh_int_value(cell[0]) | TUPLE_SHARED));
}

bool dh_tuple_is_shared(const dh_heap *heap, dh_word w)
{
    const dh_word *cell = items_cell(heap, w);
    return cell != NULL && (dh_int_value(cell[0]) & TUPLE_SHARED) != 0;
}

/* --- drop and clone --------------------------------------------------------------------------- */

static void value_drop_at(dh_heap *heap, dh_word w, unsigned depth);

/* The cell goes first: what a damaged file links twice, or to itself, is then met as free and not
 * followed again. Freeing leaves the bytes alone, so they can still be read (alloc.h). */
static void items_drop(dh_heap *heap, dh_word w, unsigned depth)
{
    const dh_word *words;
    size_t count;
    if (depth > VALUE_DEPTH_MAX || !dh_cell_is_allocated(heap, dh_ref_off(w)) ||
        dh_tuple_is_shared(heap, w) || dh_tuple_read(heap, w, &words, &count) != 0)
        return;
    dh_cell_free(heap, dh_ref_off(w));
    for (size_t i = 0; i < count; i++)
        value_drop_at(heap, words[i], depth + 1);
}

static void value_drop_at(dh_heap *heap, dh_word w, unsigned depth)
{
    if (!dh_is_ref(w))
        return;
    dh_type type = dh_ref_type(w);
    if (dh_is_items(w))
        items_drop(heap, w, depth);
    else if ((type >= DH_T_STR && type < DH_T_TUPLE) || type == DH_T_EXT)
        dh_cell_free(heap, dh_ref_off(w));
}

void dh_value_drop(dh_heap *heap, dh_word w) { value_drop_at(heap, w, 1); }

static int value_clone_at(dh_heap *heap, dh_word w, unsigned depth, uint64_t *budget,
                          dh_word *word_out);

static int items_clone(dh_heap *heap, dh_word w, unsigned depth, uint64_t *budget,
                       dh_word *word_out)
{
    const dh_word *words;
    size_t count, done = 0;
    dh_word few[16], *copies = few;
    int rc = dh_tuple_read(heap, w, &words, &count);
    if (rc != 0)
        return rc;
    if (dh_tuple_is_shared(heap, w)) {
        *word_out = w;
        return 0;
    }
    /* A sound heap owns every other word once, so a copy never visits more than there are. */
    if (depth > VALUE_DEPTH_MAX || count + 1 > *budget)
        return dhi_fail(heap, DH_E_CORRUPT, "tuple word %#llx contains itself",
                        (unsigned long long)w);
    *budget -= count + 1;
    if (count > sizeof few / sizeof few[0]) {
        copies = malloc(count * sizeof *copies);
        if (copies == NULL)
            return ENOMEM;
    }
    for (; done < count && rc == 0; done += rc == 0)
        rc = value_clone_at(heap, words[done], depth + 1, budget, &copies[done]);
    if (rc == 0)
        rc = items_new(heap, dh_ref_type(w), copies, count, word_out);
    if (rc != 0)
        for (size_t i = 0; i < done; i++)
            dh_value_drop(heap, copies[i]);
    if (copies != few)
        free(copies);
    return rc;
}

static int value_clone_at(dh_heap *heap, dh_word w, unsigned depth, uint64_t *budget,
                          dh_word *word_out)
{
    dh_bytes_view view;
    dh_ext_view ext;
    bool is_negative;
    double d;
    int rc;

    if (!dh_is_ref(w) || dh_is_container(w)) {
        *word_out = w;
        return 0;
    }
    switch (dh_ref_type(w)) {
    case DH_T_STR:
    case DH_T_BYTES:
        rc = dh_bytes_read(heap, w, &view);
        return rc != 0 ? rc : text_new(heap, dh_ref_type(w), view.data, view.size, word_out);
    case DH_T_FLOAT:
        rc = dh_float_read(heap, w, &d);
        return rc != 0 ? rc : dh_float_new(heap, d, word_out);
    case DH_T_BIGINT:
        rc = dh_bigint_read(heap, w, &is_negative, &view);
        return rc != 0 ? rc : dh_bigint_new(heap, is_negative, view.data, view.size, word_out);
    case DH_T_EXT:
        rc = dh_ext_read(heap, w, &ext);
        return rc != 0 ? rc : dh_ext_new(heap, &ext, word_out);
    case DH_T_TUPLE:
    case DH_T_FROZENSET:
        return items_clone(heap, w, depth, budget, word_out);
    default:
        return dhi_fail(heap, DH_E_CORRUPT, "word %#llx is no value", (unsigned long long)w);
    }
}

int dh_value_clone(dh_heap *heap, dh_word w, dh_word *word_out)
{
    uint64_t budget = heap->alloc.allocated_bytes / 8 + 1;
    return value_clone_at(heap, w, 1, &budget, word_out);
}
