/* test_shape.c -- dicts that share their key tables, against a plain model: contents, order, who
 * owns which key, full arenas, rollback, damage. */
#include "capture.h"
#include "containers.h"
#include "dict_private.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCALE 4u
#else
#define SCALE 1u
#endif

/* --- keys and values -------------------------------------------------------------------------- */

#define NAMES 48u

/* Every third name needs a cell; the last eight keys are ints. */
static const dh_key *name_key(const dh_heap *heap, unsigned k, containers_key *key)
{
    if (k >= NAMES - 8)
        dh_key_from_int(heap, k, &key->key);
    else
        dh_key_from_str(heap, key->scratch,
                        (size_t)snprintf((char *)key->scratch, 40,
                                         k % 3 == 0 ? "a name that is long %u" : "n%u", k),
                        &key->key);
    return &key->key;
}

static int name_word(dh_heap *heap, unsigned k, dh_word *word_out)
{
    containers_key key;
    const dh_key *canonical = name_key(heap, k, &key);
    if (canonical->word != 0) {
        *word_out = canonical->word;
        return 0;
    }
    return dh_str_new(heap, canonical->data, canonical->size, word_out);
}

/* Every second value needs a cell; the number tells it. */
static int value_word(dh_heap *heap, uint64_t number, dh_word *word_out)
{
    uint8_t text[40];
    if (number % 2 == 0) {
        *word_out = dh_int((int64_t)number);
        return 0;
    }
    return dh_str_new(
        heap, text,
        (size_t)snprintf((char *)text, 40, "value number %llu", (unsigned long long)number),
        word_out);
}

static void value_check(const dh_heap *heap, dh_word word, uint64_t number)
{
    char text[40];
    dh_bytes_view view;
    if (number % 2 == 0) {
        CHECK_EQ(word, dh_int((int64_t)number));
        return;
    }
    CHECK_EQ(dh_bytes_read(heap, word, &view), 0);
    size_t size = (size_t)snprintf(text, 40, "value number %llu", (unsigned long long)number);
    CHECK(view.size == size && memcmp(view.data, text, size) == 0);
}

static void keys_of(const dh_heap *heap, const unsigned *names, unsigned count,
                    containers_key *storage, dh_key *keys)
{
    for (unsigned i = 0; i < count; i++)
        keys[i] = *name_key(heap, names[i], &storage[i]);
}

static dh_word shape_of(dh_heap *heap, const unsigned *names, unsigned count)
{
    containers_key storage[NAMES];
    dh_key keys[NAMES];
    keys_of(heap, names, count, storage, keys);
    return dh_shape_of_keys(heap, keys, count);
}

static unsigned form_of(const dh_heap *heap, dh_word dict)
{
    const dh_word *head = dh_deref(heap, dict, DH_T_DICT, DH_HEAD_BYTES);
    CHECK(head != NULL);
    return dict_form(head);
}

/* --- model ------------------------------------------------------------------------------------ */

/* One dict: names in order, and their values. */
typedef struct {
    dh_word dict;
    unsigned count;
    unsigned names[NAMES];
    uint64_t values[NAMES];
} row;

typedef struct {
    dh_heap *heap;
    row *rows;
    unsigned rows_count;
    dh_word list; /* holds the dicts, and hangs on the root */
    uint64_t clock;
    uint64_t by_form[4]; /* operations on dicts of that form */
} table;

static void table_open(table *t, dh_heap *heap, unsigned rows_count)
{
    *t = (table){.heap = heap, .rows_count = rows_count};
    t->rows = calloc(rows_count, sizeof *t->rows);
    CHECK(t->rows != NULL);
    CHECK_EQ(dh_list_new(heap, &t->list), 0);
    containers_root(heap, t->list);
    for (unsigned i = 0; i < rows_count; i++) {
        CHECK_EQ(dh_dict_new(heap, &t->rows[i].dict), 0);
        CHECK_EQ(dh_list_append(heap, t->list, t->rows[i].dict), 0);
    }
}

static unsigned row_at(const row *r, unsigned name)
{
    unsigned i = 0;
    while (i < r->count && r->names[i] != name)
        i++;
    return i;
}

/* The two ways to store: with the key's word, or letting the dict make it. */
static int row_store(table *t, row *r, unsigned name, dh_word value, bool is_new)
{
    containers_key key;
    bool was_new = is_new;
    dh_word key_word = DH_EMPTY;
    const dh_key *canonical = name_key(t->heap, name, &key);
    if (canonical->tag == 's' && check_random_below(2) == 0)
        return dh_dict_set_str(t->heap, r->dict, canonical, value);
    int rc = is_new ? name_word(t->heap, name, &key_word) : 0;
    if (rc != 0)
        return rc;
    rc = dh_dict_set(t->heap, r->dict, canonical, key_word, value, &was_new);
    if (rc != 0)
        dh_value_drop(t->heap, key_word);
    CHECK_EQ(was_new, is_new);
    return rc;
}

static int row_set(table *t, row *r, unsigned name)
{
    unsigned at = row_at(r, name);
    dh_word value;
    int rc = value_word(t->heap, t->clock, &value);
    if (rc != 0)
        return rc;
    rc = row_store(t, r, name, value, at == r->count);
    if (rc != 0) {
        dh_value_drop(t->heap, value);
        return rc;
    }
    r->count += at == r->count;
    r->names[at] = name;
    r->values[at] = t->clock++;
    return 0;
}

static void row_delete(table *t, row *r, unsigned name)
{
    containers_key key;
    unsigned at = row_at(r, name);
    dh_word value;
    bool is_taken = check_random_below(2) == 0;
    int rc =
        dh_dict_delete(t->heap, r->dict, name_key(t->heap, name, &key), is_taken ? &value : NULL);
    CHECK_EQ(rc, at == r->count ? DH_E_ABSENT : 0);
    if (rc != 0)
        return;
    if (is_taken) {
        value_check(t->heap, value, r->values[at]);
        dh_value_drop(t->heap, value);
    }
    r->count--;
    memmove(r->names + at, r->names + at + 1, (r->count - at) * sizeof r->names[0]);
    memmove(r->values + at, r->values + at + 1, (r->count - at) * sizeof r->values[0]);
}

static void row_clear(table *t, row *r)
{
    CHECK_EQ(dh_dict_clear(t->heap, r->dict), 0);
    r->count = 0;
}

/* As a conversion does it: all at once, when there is a shape. */
static void row_fill(table *t, row *r, const unsigned *names, unsigned count)
{
    dh_word words[NAMES];
    row_clear(t, r);
    dh_word shape = shape_of(t->heap, names, count);
    if (shape == DH_EMPTY) {
        CHECK_EQ(dh_dict_reserve(t->heap, r->dict, count), 0);
        for (unsigned i = 0; i < count; i++)
            CHECK_EQ(row_set(t, r, names[i]), 0);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        r->names[i] = names[i];
        r->values[i] = t->clock++;
        CHECK_EQ(value_word(t->heap, r->values[i], &words[i]), 0);
    }
    r->count = count;
    CHECK_EQ(dh_dict_fill_shaped(t->heap, r->dict, shape, words, count), 0);
    CHECK_EQ(dh_dict_shape(t->heap, r->dict), shape);
}

static void name_check(dh_heap *heap, dh_word word, unsigned name)
{
    containers_key key;
    CHECK_EQ(dh_key_matches(heap, name_key(heap, name, &key), word), 1);
}

static void row_check_all(table *t, const row *r)
{
    containers_key key;
    dh_word key_word, value;
    uint64_t length;
    CHECK_EQ(dh_dict_check(t->heap, r->dict), 0);
    CHECK_EQ(dh_dict_length(t->heap, r->dict, &length), 0);
    CHECK_EQ(length, r->count);
    for (unsigned backwards = 0; backwards < 2; backwards++) {
        dh_dict_pos pos = {0, 0};
        for (unsigned n = 0; n <= r->count; n++) {
            int rc = backwards ? dh_dict_prev(t->heap, r->dict, &pos, &key_word, &value)
                               : dh_dict_next(t->heap, r->dict, &pos, &key_word, &value);
            CHECK_EQ(rc, n < r->count);
            unsigned i = backwards ? r->count - 1 - n : n;
            if (rc == 1) {
                name_check(t->heap, key_word, r->names[i]);
                value_check(t->heap, value, r->values[i]);
            }
        }
    }
    for (unsigned name = 0; name < NAMES; name++) {
        unsigned at = row_at(r, name);
        int rc = dh_dict_get(t->heap, r->dict, name_key(t->heap, name, &key), &value);
        CHECK_EQ(rc, at < r->count ? 0 : DH_E_ABSENT);
        if (rc == 0)
            value_check(t->heap, value, r->values[at]);
    }
}

/* Shapes that no dict has any more are garbage like other cells. */
static void table_verify(table *t)
{
    dh_collect_stats stats;
    for (unsigned i = 0; i < t->rows_count; i++)
        row_check_all(t, &t->rows[i]);
    CHECK_EQ(dh_collect(t->heap, &stats), 0);
    containers_verify(t->heap);
}

static void table_close(table *t)
{
    containers_root(t->heap, DH_NONE);
    free(t->rows);
}

/* --- contents --------------------------------------------------------------------------------- */

/* A few key sequences that come again and again, and prefixes of them. */
static unsigned usual_names(unsigned kind, unsigned names[NAMES])
{
    static const unsigned counts[] = {1, 3, 6, 8, 9, 17, 32, 33, 5};
    unsigned count = counts[kind];
    for (unsigned i = 0; i < count; i++)
        names[i] = kind == 8 ? NAMES - 1 - i : (i * 7 + kind) % 40; /* 8: ints, of no shape */
    return count;
}
enum { KINDS = 9 };

static void row_random(table *t, row *r)
{
    unsigned names[NAMES], kind = (unsigned)check_random_below(KINDS);
    unsigned count = usual_names(kind, names);
    switch (check_random_below(12)) {
    case 0:
        row_fill(t, r, names, count);
        return;
    case 1:
        if (check_random_below(4) == 0)
            row_clear(t, r);
        return;
    case 2: /* key by key, always in the same order */
        row_clear(t, r);
        for (unsigned i = 0; i < count; i++)
            CHECK_EQ(row_set(t, r, names[i]), 0);
        return;
    case 3: /* the last one goes, and comes again or not */
        if (r->count > 0) {
            unsigned last = r->names[r->count - 1];
            row_delete(t, r, last);
            if (check_random_below(2) == 0)
                CHECK_EQ(row_set(t, r, last), 0);
        }
        return;
    case 4:
    case 5:
        row_delete(t, r, (unsigned)check_random_below(NAMES));
        return;
    case 6:
        if (r->count > 0)
            row_delete(t, r, r->names[check_random_below(r->count)]);
        return;
    case 7:
        CHECK_EQ(row_set(t, r, (unsigned)check_random_below(NAMES)), 0);
        return;
    default:
        if (r->count > 0)
            CHECK_EQ(row_set(t, r, r->names[check_random_below(r->count)]), 0);
    }
}

static void test_random(uint64_t operations_count)
{
    table t;
    dh_heap *heap = containers_heap(64u << 20);
    table_open(&t, heap, 40);
    for (uint64_t i = 0; i < operations_count; i++) {
        row *r = &t.rows[check_random_below(t.rows_count)];
        t.by_form[form_of(heap, r->dict)]++;
        row_random(&t, r);
        if (i % 16 == 0)
            row_check_all(&t, r);
        if (i % (operations_count / 10) == 0)
            table_verify(&t);
    }
    table_verify(&t);
    CHECK(t.by_form[DICT_TINY] > 0 && t.by_form[DICT_SMALL] > 0);
    CHECK(t.by_form[DICT_SHAPED] > operations_count / 8);
    table_close(&t);
    dh_heap_close(heap);
}

/* --- which shape ------------------------------------------------------------------------------ */

static void test_a_shape_is_made_at_the_second_sighting(void)
{
    static const unsigned abc[] = {0, 1, 2}, acb[] = {0, 2, 1};
    unsigned many[SHAPE_KEYS_MAX + 1];
    dh_heap *heap = containers_heap(16u << 20);
    CHECK_EQ(shape_of(heap, abc, 3), DH_EMPTY);
    CHECK_EQ(shape_of(heap, acb, 3), DH_EMPTY);
    dh_word shape = shape_of(heap, abc, 3);
    CHECK(dh_is_ref_to(shape, DH_T_SHAPE));
    CHECK_EQ(dhi_shape_check(heap, shape), 0);
    CHECK_EQ(shape_of(heap, abc, 3), shape);
    dh_word other = shape_of(heap, acb, 3);
    CHECK(dh_is_ref_to(other, DH_T_SHAPE) && other != shape);
    CHECK_EQ(shape_of(heap, abc, 2), DH_EMPTY);
    CHECK_EQ(shape_of(heap, abc, 0), DH_EMPTY);
    for (unsigned i = 0; i <= SHAPE_KEYS_MAX; i++)
        many[i] = i;
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(shape_of(heap, many, SHAPE_KEYS_MAX + 1), DH_EMPTY);
    (void)!shape_of(heap, many, SHAPE_KEYS_MAX);
    CHECK(shape_of(heap, many, SHAPE_KEYS_MAX) != DH_EMPTY);
    dh_heap_close(heap);
}

/* Sequences that come in turn, more of them than are remembered, are data. */
static void test_data_makes_no_shapes(void)
{
    dh_heap *heap = containers_heap(16u << 20);
    uint64_t before = containers_allocated(heap), made = 0;
    for (unsigned pass = 0; pass < 3; pass++)
        for (unsigned i = 0; i < 20000; i++) {
            dh_key key;
            uint8_t text[32];
            dh_key_from_str(heap, text, (size_t)snprintf((char *)text, 32, "user %u", i), &key);
            made += dh_shape_of_keys(heap, &key, 1) != DH_EMPTY;
        }
    CHECK_EQ(made, 0);
    CHECK_EQ(containers_allocated(heap), before);
    dh_heap_close(heap);
}

/* Records built key by key share as well, after a few of them. */
static void test_key_by_key(void)
{
    static const unsigned names[] = {3, 1, 0, 7, 9, 4, 6, 2, 5, 8};
    table t;
    dh_heap *heap = containers_heap(16u << 20);
    table_open(&t, heap, 30);
    for (unsigned i = 0; i < t.rows_count; i++)
        for (unsigned k = 0; k < 10; k++)
            CHECK_EQ(row_set(&t, &t.rows[i], names[k]), 0);
    row *last = &t.rows[t.rows_count - 1];
    CHECK_EQ(form_of(heap, last->dict), DICT_SHAPED);
    CHECK_EQ(dh_dict_shape(heap, last->dict), dh_dict_shape(heap, t.rows[t.rows_count - 2].dict));
    CHECK_EQ(shape_of(heap, names, 10), dh_dict_shape(heap, last->dict));
    /* What goes from the end and comes again keeps the shape; a hole and a new key do not. */
    row_delete(&t, last, names[9]);
    row_delete(&t, last, names[8]);
    CHECK_EQ(dh_dict_shape(heap, last->dict), DH_EMPTY);
    CHECK_EQ(row_set(&t, last, names[8]), 0);
    CHECK_EQ(row_set(&t, last, names[9]), 0);
    CHECK_EQ(form_of(heap, last->dict), DICT_SHAPED);
    row_delete(&t, last, names[0]);
    CHECK_EQ(form_of(heap, last->dict), DICT_SHAPED);
    CHECK_EQ(row_set(&t, last, 20), 0);
    CHECK_EQ(form_of(heap, last->dict), DICT_SMALL);
    table_verify(&t);
    table_close(&t);
    dh_heap_close(heap);
}

/* The table is lost with the process; the shapes made last are found again. */
static void test_shapes_are_found_again(void)
{
    dh_heap *heap = containers_heap(16u << 20);
    dh_collect_stats stats;
    dh_word shapes[SHAPES_RECENT];
    for (unsigned i = 0; i < SHAPES_RECENT; i++) {
        unsigned names[2] = {i % 39, 39};
        (void)!shape_of(heap, names, 1 + i / 39);
        shapes[i] = shape_of(heap, names, 1 + i / 39);
        CHECK(shapes[i] != DH_EMPTY);
    }
    dhi_shapes_free(heap);
    CHECK_EQ(dh_collect(heap, &stats), 0);
    for (unsigned i = 0; i < SHAPES_RECENT; i++) {
        unsigned names[2] = {i % 39, 39};
        CHECK_EQ(shape_of(heap, names, 1 + i / 39), shapes[i]);
    }
    containers_verify(heap);
    dh_heap_close(heap);
}

/* The script tracker sees no stores: all pages count as written. */
static void roll_back(dh_heap *heap)
{
    uint64_t pages, stop_ns;
    CHECK_EQ(dh_mark_dirty(heap, (uint64_t)(uintptr_t)heap->arena.base,
                           heap->arena.hwm_pages * DH_PAGE_BYTES),
             0);
    CHECK_EQ(dh_show_state(heap, NULL, &pages, &stop_ns), 0);
}

/* A shape that is collected, and one that is rolled back, are not found any more, whatever has come
 * to stand in their place. */
static void test_lost_shapes(void)
{
    dh_heap *heap = containers_heap(16u << 20);
    dh_collect_stats stats;
    unsigned names[4] = {10, 11, 12, 13};
    for (unsigned round = 0; round < 20; round++) {
        (void)!shape_of(heap, names, 4);
        dh_word shape = shape_of(heap, names, 4), other;
        CHECK(shape != DH_EMPTY);
        CHECK_EQ(shape_of(heap, names, 4), shape);
        roll_back(heap);
        CHECK_EQ(dh_shape_serial(heap, shape), 0);
        for (unsigned i = 0; i < round; i++) { /* cells that take its place */
            dh_word words[9];
            for (unsigned k = 0; k < 9; k++)
                words[k] = dh_int((int64_t)check_random() >> 2);
            CHECK_EQ(dh_tuple_new(heap, words, 9, &other), 0);
        }
        dh_word again = shape_of(heap, names, 4);
        CHECK(again == DH_EMPTY || dhi_shape_check(heap, again) == 0);
        roll_back(heap);
    }
    for (unsigned i = 0; i < 3 * SHAPES_RECENT; i++) { /* the first ones leave the cell */
        unsigned pair[2] = {i % 40, (i + 1 + i / 40) % 40};
        (void)!shape_of(heap, pair, 2);
        CHECK(shape_of(heap, pair, 2) != DH_EMPTY);
    }
    CHECK_EQ(dh_collect(heap, &stats), 0);
    CHECK(stats.freed_cells_count >= SHAPES_RECENT);
    containers_verify(heap);
    dh_heap_close(heap);
}

static dh_word shape_number(dh_heap *heap, unsigned i)
{
    uint8_t text[16];
    dh_key key;
    dh_key_from_str(heap, text, (size_t)snprintf((char *)text, 16, "%u", i), &key);
    (void)!dh_shape_of_keys(heap, &key, 1);
    return dh_shape_of_keys(heap, &key, 1);
}

static void test_there_is_a_limit(void)
{
    dh_heap *heap = containers_heap(64u << 20);
    dh_collect_stats stats;
    unsigned made = 0;
    while (shape_number(heap, made) != DH_EMPTY) {
        made++;
        CHECK(made <= SHAPES_COUNT_MAX);
    }
    CHECK_EQ(made, SHAPES_COUNT_MAX);
    CHECK_EQ(dh_collect(heap, &stats), 0);
    for (unsigned i = 0; i < SHAPES_COUNT_MAX + 1; i++)
        (void)!shape_number(heap, 100000 + i);
    CHECK(shape_number(heap, 400000) != DH_EMPTY);
    dh_heap_close(heap);
}

/* --- versions and memory ---------------------------------------------------------------------- */

static int compare_versions(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The version changes with every insertion and deletion and never comes back. */
static void test_versions(void)
{
    enum { CHANGES = 4000 };
    static uint64_t versions[CHANGES + 1];
    static const unsigned names[] = {0, 1, 2, 3, 4, 5};
    table t;
    uint64_t version;
    dh_heap *heap = containers_heap(16u << 20);
    table_open(&t, heap, 3);
    for (unsigned i = 0; i < 3 * 6; i++) /* the shapes of all prefixes */
        row_fill(&t, &t.rows[0], names, 1 + i % 6);
    row *r = &t.rows[1];
    CHECK_EQ(dh_dict_version(heap, r->dict, &versions[0]), 0);
    for (unsigned i = 1; i <= CHANGES; i++) {
        bool grows = r->count == 0 || (r->count < 6 && check_random_below(2) == 0);
        if (grows)
            CHECK_EQ(row_set(&t, r, names[r->count]), 0);
        else
            row_delete(&t, r, names[r->count - 1]);
        CHECK_EQ(dh_dict_version(heap, r->dict, &versions[i]), 0);
        if (r->count > 0) {
            CHECK_EQ(form_of(heap, r->dict), DICT_SHAPED);
            CHECK_EQ(row_set(&t, r, names[0]), 0);
            CHECK_EQ(dh_dict_version(heap, r->dict, &version), 0);
            CHECK_EQ(version, versions[i]);
        }
    }
    qsort(versions, CHANGES + 1, sizeof versions[0], compare_versions);
    for (unsigned i = 1; i <= CHANGES; i++)
        CHECK(versions[i] != versions[i - 1]);
    table_close(&t);
    dh_heap_close(heap);
}

/* The n-th allocation fails, for every n, and all after it: inserting changes nothing, deleting
 * and overwriting need no memory. */
static void test_no_memory(unsigned count, unsigned new_name, bool has_hole)
{
    unsigned names[NAMES];
    table t;
    dh_heap *heap = containers_heap(16u << 20);
    table_open(&t, heap, 1);
    row *r = &t.rows[0];
    for (unsigned i = 0; i < count; i++)
        names[i] = i;
    for (uint64_t n = 0; n < 40; n++) {
        row_fill(&t, r, names, count);
        row_fill(&t, r, names, count);
        CHECK_EQ(form_of(heap, r->dict), DICT_SHAPED);
        if (has_hole)
            row_delete(&t, r, 0);
        CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
        int rc = row_set(&t, r, new_name);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        CHECK(rc == 0 || rc == DH_E_FULL);
        table_verify(&t);
        CHECK_EQ(dh_fault_set("alloc.cell", 0, DH_E_FULL), 0);
        for (unsigned i = 0; i < count; i++)
            row_delete(&t, r, (i * 7 + 3) % count);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        row_check_all(&t, r);
        row_clear(&t, r);
        if (rc == 0 && n > 0)
            break;
        CHECK(n < 39);
    }
    table_close(&t);
    dh_heap_close(heap);
}

/* Two cells for a record, and what its values need. */
static void test_memory_of_a_record(void)
{
    static const unsigned names[] = {0, 1, 2, 3, 6, 9};
    dh_word dict, *values;
    dh_heap *heap = containers_heap(16u << 20);
    (void)!shape_of(heap, names, 6);
    dh_word shape = shape_of(heap, names, 6);
    uint64_t before = containers_allocated(heap);
    CHECK_EQ(dh_dict_new_shaped(heap, shape, &dict, &values), 0);
    for (unsigned i = 0; i < 6; i++)
        values[i] = dh_int(i);
    CHECK_EQ(containers_allocated(heap) - before, 32 + 48);
    CHECK_EQ(dh_dict_check(heap, dict), 0);
    dh_heap_close(heap);
}

/* --- damage ----------------------------------------------------------------------------------- */

/* Words of the head, its values, its shape and the cell of the shapes made last. */
static size_t inner_words(dh_heap *heap, dh_word dict, dh_word **words)
{
    size_t count = 0;
    dh_word *head = dh_deref(heap, dict, DH_T_DICT, DH_HEAD_BYTES);
    dh_word *shapes = dh_dict_root_word(heap, DH_ROOT_SHAPES);
    dh_word cells[3] = {head[DICT_ENTRIES], head[DICT_INDEX], *shapes};
    for (unsigned i = 0; i < 4; i++)
        words[count++] = head + i;
    for (unsigned c = 0; c < 3; c++)
        for (size_t i = 0; i < dh_cell_bytes(heap, dh_ref_off(cells[c])) / 8; i++)
            words[count++] = (dh_word *)dh_at(heap, dh_ref_off(cells[c])) + i;
    words[count++] = shapes;
    return count;
}

static void damage(dh_heap *heap, dh_word dict)
{
    dh_word *words[200];
    size_t count = inner_words(heap, dict, words);
    uint64_t pages = heap->arena.hwm_pages;
    for (unsigned i = 0; i < 1 + check_random_below(3); i++) {
        dh_word *at = words[check_random_below(count)];
        uint64_t page = check_random_below(2) ? pages - 1 : check_random_below(pages);
        uint64_t off = page * DH_PAGE_BYTES + check_random_below(256) * 16;
        switch (check_random_below(4)) {
        case 0:
            *at = dh_ref((dh_type)check_random_below(DH_TYPES_COUNT), off);
            break;
        case 1:
            *at ^= (uint64_t)1 << check_random_below(64);
            break;
        case 2:
            *at = *words[check_random_below(count)];
            break;
        default:
            *at = dh_is_ref(*at) ? dh_ref(dh_ref_type(*at), off) : check_random();
        }
    }
}

static void use_damaged(table *t, row *r)
{
    containers_key key;
    dh_word key_word, value;
    bool was_new;
    uint64_t cells, problems;
    dh_heap *heap = t->heap;
    (void)!dh_dict_check(heap, r->dict);
    (void)!dh_check(heap, &cells, &problems);
    (void)!dh_dict_shape(heap, r->dict);
    for (unsigned backwards = 0; backwards < 2; backwards++) {
        dh_dict_pos pos = {0, 0};
        for (unsigned steps = 0;
             (backwards ? dh_dict_prev(heap, r->dict, &pos, &key_word, &value)
                        : dh_dict_next(heap, r->dict, &pos, &key_word, &value)) == 1;
             steps++)
            CHECK(steps < 100000);
    }
    for (unsigned i = 0; i < 60; i++) {
        unsigned name = (unsigned)check_random_below(NAMES);
        const dh_key *canonical = name_key(heap, name, &key);
        (void)!dh_dict_get(heap, r->dict, canonical, &value);
        if (i % 3 == 0)
            (void)!dh_dict_delete(heap, r->dict, canonical, NULL);
        else if (i % 3 == 1 && name_word(heap, name, &key_word) == 0)
            (void)!dh_dict_set(heap, r->dict, canonical, key_word, dh_int(0), &was_new);
    }
    for (unsigned i = 0; i < 4; i++) { /* the other dicts, and shapes that are still known */
        unsigned names[NAMES], count = usual_names((unsigned)check_random_below(KINDS), names);
        dh_word shape = shape_of(heap, names, count), *values;
        if (shape != DH_EMPTY && dh_dict_new_shaped(heap, shape, &value, &values) == 0)
            (void)!dh_dict_check(heap, value);
        (void)!dh_dict_clear(heap, t->rows[i].dict);
    }
    (void)!dh_dict_clear(heap, r->dict);
}

static void test_damage(unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        table t;
        unsigned names[NAMES], count = usual_names(1 + round % 6, names);
        dh_collect_stats stats;
        dh_heap *heap = containers_heap(4u << 20);
        table_open(&t, heap, 6);
        for (unsigned i = 0; i < 6; i++)
            row_fill(&t, &t.rows[i], names, count);
        row *r = &t.rows[1 + check_random_below(5)];
        CHECK_EQ(form_of(heap, r->dict), DICT_SHAPED);
        if (round % 3 == 0)
            row_delete(&t, r, names[check_random_below(count)]);
        if (round % 2 == 0)
            dhi_shapes_free(heap); /* as after opening */
        if (r->count > 0)
            damage(heap, r->dict);
        if (check_random_below(2) == 0)
            containers_fence(heap);
        use_damaged(&t, r);
        containers_unfence();
        CHECK_EQ(dh_collect(heap, &stats), 0);
        free(t.rows);
        dh_heap_close(heap);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    test_a_shape_is_made_at_the_second_sighting();
    test_data_makes_no_shapes();
    test_key_by_key();
    test_shapes_are_found_again();
    test_lost_shapes();
    test_there_is_a_limit();
    test_versions();
    test_memory_of_a_record();
    static const unsigned counts[] = {1, 2, 3, 6, 7, 8, 9, 16, 31, 32};
    for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++)
        for (unsigned has_hole = 0; has_hole < 2 && has_hole < counts[i]; has_hole++) {
            test_no_memory(counts[i], counts[i], has_hole != 0);
            test_no_memory(counts[i], NAMES - 1, has_hole != 0);
        }
    test_random(80000 / SCALE);
    test_damage(4000 / SCALE);
    return 0;
}
