/* test_dict.c -- Dict against a plain model: contents, order, memory, full arenas, damage. */
#include "containers.h"
#include "dict_private.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCALE 4u
#else
#define SCALE 1u
#endif

/* --- model ------------------------------------------------------------------------------------ */

/* A key is a number below keys_count; order[k] is when it was inserted, 0: it is not there. */
typedef struct {
    dh_heap *heap;
    dh_word dict;
    uint64_t keys_count;
    uint64_t *order;
    int64_t *value;
    uint64_t clock;
    uint64_t length;
} model;

static void model_open(model *m, dh_heap *heap, uint64_t keys_count)
{
    memset(m, 0, sizeof *m);
    m->heap = heap;
    m->keys_count = keys_count;
    m->order = calloc(keys_count, sizeof *m->order);
    m->value = calloc(keys_count, sizeof *m->value);
    CHECK(m->order != NULL && m->value != NULL);
    CHECK_EQ(dh_dict_new(heap, &m->dict), 0);
    containers_root(heap, m->dict);
}

static void model_close(model *m)
{
    CHECK_EQ(dh_dict_clear(m->heap, m->dict), 0);
    free(m->order);
    free(m->value);
}

static int model_set(model *m, uint64_t k)
{
    containers_key key;
    bool was_new = false;
    dh_word key_word = DH_EMPTY;
    int64_t value = (int64_t)(check_random() >> 8);
    const dh_key *canonical = containers_key_of(m->heap, k, &key);
    if (m->order[k] == 0) {
        int rc = containers_key_word(m->heap, k, &key_word);
        if (rc != 0)
            return rc;
    }
    int rc = dh_dict_set(m->heap, m->dict, canonical, key_word, dh_int(value), &was_new);
    if (rc != 0) {
        dh_value_drop(m->heap, key_word);
        return rc;
    }
    CHECK_EQ(was_new, m->order[k] == 0);
    if (was_new) {
        m->order[k] = ++m->clock;
        m->length++;
    }
    m->value[k] = value;
    return 0;
}

static void model_delete(model *m, uint64_t k)
{
    containers_key key;
    dh_word value = DH_EMPTY;
    int rc = dh_dict_delete(m->heap, m->dict, containers_key_of(m->heap, k, &key), &value);
    CHECK_EQ(rc, m->order[k] == 0 ? DH_E_ABSENT : 0);
    if (rc == 0) {
        CHECK_EQ(value, dh_int(m->value[k]));
        m->order[k] = 0;
        m->length--;
    }
}

static void model_get(model *m, uint64_t k)
{
    containers_key key;
    dh_word value = DH_EMPTY;
    int rc = dh_dict_get(m->heap, m->dict, containers_key_of(m->heap, k, &key), &value);
    CHECK_EQ(rc, m->order[k] == 0 ? DH_E_ABSENT : 0);
    if (rc == 0)
        CHECK_EQ(value, dh_int(m->value[k]));
}

/* The model's number of a stored key, by asking the model for the value. */
static void model_check_order(model *m, bool backwards)
{
    dh_dict_pos pos = {0, 0};
    dh_word key, value, *values = malloc((m->length + 1) * sizeof *values);
    uint64_t count = 0;
    int rc;
    CHECK(values != NULL);
    while ((rc = backwards ? dh_dict_prev(m->heap, m->dict, &pos, &key, &value)
                           : dh_dict_next(m->heap, m->dict, &pos, &key, &value)) == 1) {
        CHECK(count < m->length);
        values[count++] = value;
    }
    CHECK_EQ(rc, 0);
    CHECK_EQ(count, m->length);
    /* Values by age: the i-th oldest. */
    int64_t *expected = malloc((m->clock + 1) * sizeof *expected);
    uint8_t *is_there = calloc(m->clock + 1, 1);
    CHECK(expected != NULL && is_there != NULL);
    for (uint64_t k = 0; k < m->keys_count; k++)
        if (m->order[k] != 0) {
            expected[m->order[k]] = m->value[k];
            is_there[m->order[k]] = 1;
        }
    uint64_t at = 0;
    for (uint64_t t = 1; t <= m->clock; t++)
        if (is_there[t]) {
            CHECK_EQ(values[backwards ? count - 1 - at : at], dh_int(expected[t]));
            at++;
        }
    free(values);
    free(expected);
    free(is_there);
}

static void model_check(model *m)
{
    uint64_t length;
    int rc = dh_dict_check(m->heap, m->dict);
    if (rc != 0)
        fprintf(stderr, "length %llu: %s\n", (unsigned long long)m->length,
                dh_heap_error_text(m->heap));
    CHECK_EQ(rc, 0);
    CHECK_EQ(dh_dict_length(m->heap, m->dict, &length), 0);
    CHECK_EQ(length, m->length);
    for (uint64_t k = 0; k < m->keys_count; k++)
        model_get(m, k);
    model_check_order(m, false);
    model_check_order(m, true);
}

static unsigned form_of(const model *m)
{
    const dh_word *head = dh_deref(m->heap, m->dict, DH_T_DICT, DH_HEAD_BYTES);
    CHECK(head != NULL);
    return dict_form(head);
}

/* --- contents --------------------------------------------------------------------------------- */

/* Every length up to limit, checked around the thresholds, then emptied in one of three orders. */
static void test_growing_and_emptying(dh_heap *heap, uint64_t limit, unsigned how)
{
    model m;
    uint64_t before;
    model_open(&m, heap, limit);
    before = containers_allocated(heap);
    for (uint64_t k = 0; k < limit; k++) {
        CHECK_EQ(model_set(&m, k), 0);
        if (k < 24 || (k >= 4090 && k < 4100) || k % 1009 == 0)
            model_check(&m);
    }
    model_check(&m);
    containers_verify(heap);
    for (uint64_t i = 0; i < limit; i++) {
        uint64_t k = how == 0 ? i : how == 1 ? limit - 1 - i : (i * 7919 + 13) % limit;
        model_delete(&m, k);
        if (limit - i < 24 || i % 1009 == 0)
            model_check(&m);
    }
    /* With 7919 not dividing the limit the third order leaves nothing either. */
    CHECK_EQ(m.length, 0);
    CHECK_EQ(form_of(&m), DICT_TINY);
    CHECK_EQ(containers_allocated(heap), before);
    model_close(&m);
}

/* Random operations while the length swings between nothing and keys_count. */
static void test_churn(dh_heap *heap, uint64_t keys_count, uint64_t operations_count)
{
    model m;
    uint64_t before, bias = 50;
    model_open(&m, heap, keys_count);
    before = containers_allocated(heap);
    for (uint64_t i = 0; i < operations_count; i++) {
        uint64_t k = check_random_below(keys_count), what = check_random_below(100);
        if (i % (keys_count * 3 + 7) == 0)
            bias = 20 + check_random_below(60);
        if (what < bias)
            CHECK_EQ(model_set(&m, k), 0);
        else if (what < 95)
            model_delete(&m, k);
        else
            model_get(&m, k);
        if (i % (operations_count / 8 + 1) == 0)
            model_check(&m);
    }
    model_check(&m);
    containers_verify(heap);
    for (uint64_t k = 0; k < keys_count; k++)
        model_delete(&m, k);
    CHECK_EQ(containers_allocated(heap), before);
    model_close(&m);
}

/* The oldest goes, a new one comes: numbers and memory must not grow with the time. */
static void test_queue(dh_heap *heap, uint64_t length, uint64_t rounds)
{
    dh_word dict, key_word, value;
    dh_key key;
    bool was_new;
    uint64_t before, most = 0;
    CHECK_EQ(dh_dict_new(heap, &dict), 0);
    containers_root(heap, dict);
    before = containers_allocated(heap);
    for (uint64_t i = 0; i < length + rounds; i++) {
        dh_key_from_int(heap, (int64_t)i, &key);
        dh_word word = dh_int((int64_t)i);
        CHECK_EQ(dh_dict_set(heap, dict, &key, word, word, &was_new), 0);
        if (i < length)
            continue;
        dh_dict_pos pos = {0, 0};
        CHECK_EQ(dh_dict_next(heap, dict, &pos, &key_word, &value), 1);
        CHECK_EQ(key_word, dh_int((int64_t)(i - length)));
        dh_key_from_int(heap, (int64_t)(i - length), &key);
        CHECK_EQ(dh_dict_delete(heap, dict, &key, NULL), 0);
        if (containers_allocated(heap) > most)
            most = containers_allocated(heap);
    }
    CHECK_EQ(dh_dict_check(heap, dict), 0);
    CHECK(most - before < length * 48 + 400000);
    CHECK_EQ(dh_dict_clear(heap, dict), 0);
    CHECK_EQ(containers_allocated(heap), before);
}

/* Random ones go, new ones come: compaction keeps the slots in proportion. */
static void test_random_replacement(dh_heap *heap, uint64_t length, uint64_t rounds)
{
    model m;
    const uint64_t keys_count = length * 2;
    model_open(&m, heap, keys_count);
    while (m.length < length)
        CHECK_EQ(model_set(&m, check_random_below(keys_count)), 0);
    for (uint64_t i = 0; i < rounds; i++) {
        while (m.length >= length)
            model_delete(&m, check_random_below(keys_count));
        CHECK_EQ(model_set(&m, check_random_below(keys_count)), 0);
        if (i % (rounds / 4 + 1) == 0)
            model_check(&m);
    }
    model_check(&m);
    CHECK_EQ(form_of(&m), DICT_BIG);
    const dh_word *head = dh_deref(heap, m.dict, DH_T_DICT, DH_HEAD_BYTES);
    const dh_word *big = dict_big_at(heap, head);
    CHECK(big_int(big, BIG_SLOTS) <= 2 * m.length + 16384 + 4096);
    CHECK(big_int(big, BIG_CHUNKS) * DICT_CHUNK_ENTRIES <= 4 * m.length + 65536);
    containers_verify(heap);
    model_close(&m);
}

/* From the end and from the front, with the position that iteration gives. */
static void test_popping(dh_heap *heap, uint64_t length, bool from_end)
{
    dh_word dict, key_word, value;
    dh_key key;
    bool was_new;
    CHECK_EQ(dh_dict_new(heap, &dict), 0);
    containers_root(heap, dict);
    for (uint64_t i = 0; i < length; i++) {
        dh_key_from_int(heap, (int64_t)i, &key);
        CHECK_EQ(dh_dict_set(heap, dict, &key, dh_int((int64_t)i), DH_NONE, &was_new), 0);
    }
    for (uint64_t i = 0; i < length; i++) {
        dh_dict_pos pos = {0, 0};
        int64_t expected = (int64_t)(from_end ? length - 1 - i : i);
        CHECK_EQ(from_end ? dh_dict_prev(heap, dict, &pos, &key_word, &value)
                          : dh_dict_next(heap, dict, &pos, &key_word, &value),
                 1);
        CHECK_EQ(key_word, dh_int(expected));
        dh_key_from_int(heap, expected, &key);
        CHECK_EQ(dh_dict_delete(heap, dict, &key, NULL), 0);
        if (i % 1013 == 0)
            CHECK_EQ(dh_dict_check(heap, dict), 0);
    }
}

/* --- keys, versions, reservations ------------------------------------------------------------- */

static int compare_versions(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The version changes with the size and only then, and in a few thousand operations no version
 * comes twice, whatever is cleared, packed or popped meanwhile. */
static void test_versions(dh_heap *heap, uint64_t keys_count)
{
    enum { OPERATIONS = 8000 };
    model m;
    uint64_t *versions = malloc((OPERATIONS + 1) * sizeof *versions), count = 0;
    CHECK(versions != NULL);
    model_open(&m, heap, keys_count);
    CHECK_EQ(dh_dict_version(heap, m.dict, &versions[count++]), 0);
    for (uint64_t i = 0; i < OPERATIONS; i++) {
        uint64_t k = check_random_below(keys_count), version;
        bool changes = m.order[k] == 0;
        if (i % 1000 == 999 && m.length > 0) {
            CHECK_EQ(dh_dict_clear(heap, m.dict), 0);
            memset(m.order, 0, keys_count * sizeof *m.order);
            m.length = 0;
            changes = true;
        } else if (!changes && check_random_below(2) == 0) {
            model_delete(&m, k);
            changes = true;
        } else {
            CHECK_EQ(model_set(&m, k), 0);
        }
        CHECK_EQ(dh_dict_version(heap, m.dict, &version), 0);
        CHECK((version != versions[count - 1]) == changes);
        if (changes)
            versions[count++] = version;
    }
    qsort(versions, count, sizeof *versions, compare_versions);
    for (uint64_t i = 1; i < count; i++)
        CHECK(versions[i] != versions[i - 1]);
    free(versions);
    model_close(&m);
}

/* --- memory ----------------------------------------------------------------------------------- */

/* What is left of a large dict after deleting at random is a small one. */
static void test_memory_follows_the_length(dh_heap *heap)
{
    model m;
    model_open(&m, heap, 200000);
    uint64_t before = containers_allocated(heap);
    for (uint64_t k = 0; k < m.keys_count; k++)
        CHECK_EQ(model_set(&m, k), 0);
    while (m.length > 3000)
        model_delete(&m, check_random_below(m.keys_count));
    CHECK(containers_allocated(heap) - before < 900000);
    CHECK_EQ(dh_dict_check(heap, m.dict), 0);
    model_check_order(&m, false);
    while (m.length > 600)
        for (uint64_t k = 0; k < m.keys_count && m.length > 600; k++)
            if (m.order[k] != 0 && check_random_below(2))
                model_delete(&m, k);
    CHECK_EQ(form_of(&m), DICT_SMALL);
    CHECK(containers_allocated(heap) - before < 100000);
    model_check(&m);
    for (uint64_t k = 0; k < m.keys_count && m.length > 20; k++)
        if (m.order[k] != 0)
            model_delete(&m, k);
    CHECK(containers_allocated(heap) - before < 12000);
    model_check(&m);
    model_close(&m);
}

/* A hundred entries, replaced for ever, need the room of a few hundred. */
static void test_replacement_stays_small(dh_heap *heap)
{
    model m;
    model_open(&m, heap, 5000);
    uint64_t before = containers_allocated(heap);
    for (uint64_t i = 0; i < 60000; i++) {
        CHECK_EQ(model_set(&m, check_random_below(m.keys_count)), 0);
        while (m.length > 100)
            model_delete(&m, check_random_below(m.keys_count));
        CHECK(containers_allocated(heap) - before < 100 * 48 + 16000);
    }
    model_check(&m);
    model_close(&m);
}

/* Dense and sparse chunks take turns: compaction must not carry entries past a dense one. */
static void test_compaction_keeps_the_order(dh_heap *heap)
{
    model m;
    model_open(&m, heap, 160000);
    for (uint64_t k = 0; k < 120000; k++)
        CHECK_EQ(model_set(&m, k), 0);
    for (unsigned pass = 0; pass < 6; pass++) {
        for (uint64_t k = 0; k < 120000; k++)
            if ((k >> DICT_CHUNK_BITS) % 3 != 0 && check_random_below(100) < 60)
                model_delete(&m, k);
        CHECK_EQ(dh_dict_check(heap, m.dict), 0);
        model_check_order(&m, pass % 2 != 0);
        for (uint64_t i = 0; i < 3000; i++) {
            model_delete(&m, 120000 + check_random_below(40000));
            CHECK_EQ(model_set(&m, 120000 + check_random_below(40000)), 0);
        }
    }
    model_check(&m);
    model_close(&m);
}

static void test_reserve_is_exact(dh_heap *heap)
{
    model m;
    model_open(&m, heap, 6000);
    uint64_t before = containers_allocated(heap);
    CHECK_EQ(dh_dict_reserve(heap, m.dict, 6), 0);
    for (uint64_t k = 0; k < 6; k++)
        CHECK_EQ(model_set(&m, k * 5), 0); /* ints: no cells of their own */
    CHECK_EQ(containers_allocated(heap) - before, 96);
    model_check(&m);
    model_close(&m);
    static const uint64_t counts[] = {0, 1, 8, 9, 100, 400, 4096, 5000};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        model_open(&m, heap, 6000);
        CHECK_EQ(dh_dict_reserve(heap, m.dict, counts[i]), 0);
        CHECK_EQ(dh_dict_check(heap, m.dict), 0);
        for (uint64_t k = 0; k < counts[i] + 3; k++)
            CHECK_EQ(model_set(&m, k), 0);
        model_check(&m);
        model_close(&m);
    }
}

static void test_missing_key_needs_no_word(dh_heap *heap)
{
    model m;
    containers_key key;
    bool was_new = true;
    model_open(&m, heap, 100);
    for (uint64_t k = 0; k < 100; k++) {
        const dh_key *canonical = containers_key_of(heap, k, &key);
        CHECK_EQ(dh_dict_set(heap, m.dict, canonical, DH_EMPTY, dh_int(1), &was_new), DH_E_ABSENT);
        CHECK_EQ(model_set(&m, k), 0);
        CHECK_EQ(dh_dict_set(heap, m.dict, canonical, DH_EMPTY, dh_int(m.value[k]), &was_new), 0);
        CHECK(!was_new);
    }
    model_check(&m);
    model_close(&m);
}

/* Values with cells: overwriting, deleting and clearing free them; taking does not. */
static void test_values_are_dropped(dh_heap *heap)
{
    static const uint8_t text[] = "a value of more than seven bytes";
    uint64_t before;
    dh_word dict, value, taken;
    dh_key key;
    bool was_new;
    CHECK_EQ(dh_dict_new(heap, &dict), 0);
    containers_root(heap, dict);
    before = containers_allocated(heap);
    for (int64_t i = 0; i < 3000; i++) {
        dh_key_from_int(heap, i % 1000, &key);
        CHECK_EQ(dh_str_new(heap, text, sizeof text, &value), 0);
        CHECK_EQ(dh_dict_set(heap, dict, &key, dh_int(i % 1000), value, &was_new), 0);
    }
    containers_verify(heap);
    for (int64_t i = 0; i < 500; i++) {
        dh_key_from_int(heap, i, &key);
        CHECK_EQ(dh_dict_delete(heap, dict, &key, i % 2 == 0 ? &taken : NULL), 0);
        if (i % 2 == 0) {
            CHECK(dh_cell_is_allocated(heap, dh_ref_off(taken)));
            dh_value_drop(heap, taken);
        }
    }
    containers_verify(heap);
    CHECK_EQ(dh_dict_clear(heap, dict), 0);
    CHECK_EQ(containers_allocated(heap), before);
}

/* --- equal hashes ----------------------------------------------------------------------------- */

static int set_with_hash(dh_heap *heap, dh_word dict, int64_t number, uint64_t hash)
{
    dh_key key;
    bool was_new;
    dh_key_from_int(heap, number, &key);
    key.hash = hash;
    return dh_dict_set(heap, dict, &key, dh_int(number), dh_int(number * 2), &was_new);
}

static void check_with_hash(dh_heap *heap, dh_word dict, int64_t number, uint64_t hash)
{
    dh_key key;
    dh_word value = DH_EMPTY;
    dh_key_from_int(heap, number, &key);
    key.hash = hash;
    CHECK_EQ(dh_dict_get(heap, dict, &key, &value), 0);
    CHECK_EQ(value, dh_int(number * 2));
}

/* 64 equal hashes fit their block; one more is refused, and nothing else changes. */
static void test_equal_hashes_end_in_a_limit(dh_heap *heap)
{
    dh_word dict;
    const uint64_t hash = 0x123456789abcdef0u;
    CHECK_EQ(dh_dict_new(heap, &dict), 0);
    containers_root(heap, dict);
    CHECK_EQ(dh_dict_reserve(heap, dict, 9), 0); /* no fingerprints: keys are never hashed anew */
    for (int64_t i = 0; i < 64; i++)
        CHECK_EQ(set_with_hash(heap, dict, i, hash), 0);
    for (int64_t i = 64; i < 80; i++)
        CHECK_EQ(set_with_hash(heap, dict, i, hash), DH_E_LIMIT);
    CHECK_EQ(dhi_dict_check(heap, dict, false), 0);
    for (int64_t i = 100; i < 3000; i++)
        CHECK_EQ(set_with_hash(heap, dict, i, check_random()), 0);
    for (int64_t i = 0; i < 64; i++)
        check_with_hash(heap, dict, i, hash);
    CHECK_EQ(dhi_dict_check(heap, dict, false), 0);
    dh_key key;
    dh_key_from_int(heap, 7, &key);
    key.hash = hash;
    CHECK_EQ(dh_dict_delete(heap, dict, &key, NULL), 0);
    CHECK_EQ(set_with_hash(heap, dict, 64, hash), 0);
    check_with_hash(heap, dict, 64, hash);
    CHECK_EQ(dh_dict_clear(heap, dict), 0);
}

/* Hashes that differ in few bits make deep and crooked directories. */
static void test_biased_hashes(dh_heap *heap, uint64_t mask, uint64_t count)
{
    dh_word dict;
    uint64_t before, *hashes = malloc(count * sizeof *hashes);
    uint8_t *is_there = calloc(count, 1);
    dh_key key;
    CHECK(hashes != NULL && is_there != NULL);
    CHECK_EQ(dh_dict_new(heap, &dict), 0);
    containers_root(heap, dict);
    before = containers_allocated(heap);
    CHECK_EQ(dh_dict_reserve(heap, dict, 9), 0);
    for (uint64_t i = 0; i < count; i++) {
        hashes[i] = check_random() & mask;
        int rc = set_with_hash(heap, dict, (int64_t)i, hashes[i]);
        CHECK(rc == 0 || rc == DH_E_LIMIT);
        is_there[i] = rc == 0;
        if (i % 500 == 0)
            CHECK_EQ(dhi_dict_check(heap, dict, false), 0);
        /* Few deletions: a pack of a big dict would hash the keys anew. */
        if (i % 16 == 15 && is_there[i / 2]) {
            dh_key_from_int(heap, (int64_t)(i / 2), &key);
            key.hash = hashes[i / 2];
            CHECK_EQ(dh_dict_delete(heap, dict, &key, NULL), 0);
            is_there[i / 2] = 0;
        }
    }
    CHECK_EQ(dhi_dict_check(heap, dict, false), 0);
    for (uint64_t i = 0; i < count; i++)
        if (is_there[i])
            check_with_hash(heap, dict, (int64_t)i, hashes[i]);
    CHECK_EQ(dh_dict_clear(heap, dict), 0);
    CHECK_EQ(containers_allocated(heap), before);
    free(hashes);
    free(is_there);
}

/* Few distinct hashes in a small dict, which never hashes anew: joins and splits of crowded blocks.
 * The hashes' low half is 0, so every deletion tries to join. */
static void test_biased_churn(dh_heap *heap, uint64_t mask, int64_t keys_count)
{
    dh_word dict;
    dh_key key;
    uint64_t *hashes = calloc((size_t)keys_count, sizeof *hashes), live = 0;
    CHECK(hashes != NULL);
    CHECK_EQ(dh_dict_new(heap, &dict), 0);
    containers_root(heap, dict);
    CHECK_EQ(dh_dict_reserve(heap, dict, 9), 0);
    for (unsigned i = 0; i < 60000 / SCALE; i++) {
        int64_t k = (int64_t)check_random_below((uint64_t)keys_count);
        bool is_growing = i / 4000 % 2 == 0;
        if (hashes[k] == 0 && (is_growing || live < 40)) {
            uint64_t hash = (check_random() | (uint64_t)1 << 63) & mask;
            int rc = set_with_hash(heap, dict, k, hash);
            CHECK(rc == 0 || rc == DH_E_LIMIT);
            hashes[k] = rc == 0 ? hash : 0;
            live += rc == 0;
        } else if (hashes[k] != 0 && live > 30 && !is_growing) {
            dh_key_from_int(heap, k, &key);
            key.hash = hashes[k];
            CHECK_EQ(dh_dict_delete(heap, dict, &key, NULL), 0);
            hashes[k] = 0;
            live--;
        } else if (hashes[k] != 0) {
            check_with_hash(heap, dict, k, hashes[k]);
        }
        if (i % 512 == 0)
            CHECK_EQ(dhi_dict_check(heap, dict, false), 0);
    }
    for (int64_t k = 0; k < keys_count; k++)
        if (hashes[k] != 0)
            check_with_hash(heap, dict, k, hashes[k]);

    CHECK_EQ(dh_dict_clear(heap, dict), 0);
    free(hashes);
}

/* --- full arenas ------------------------------------------------------------------------------ */

/* Refuse the n-th allocation and all after it, for every n: what was there stays there. */
static void test_no_memory(dh_heap *heap, uint64_t length)
{
    model m;
    model_open(&m, heap, length + 2);
    for (uint64_t k = 0; k < length; k++)
        CHECK_EQ(model_set(&m, k), 0);
    for (uint64_t n = 0;; n++) {
        uint64_t clock = m.clock, cells = containers_allocated(heap);
        CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
        int rc = model_set(&m, length);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        model_check(&m);
        containers_verify(heap);
        if (rc == 0) {
            CHECK_EQ(m.clock, clock + 1);
            break;
        }
        CHECK_EQ(rc, DH_E_FULL);
        CHECK(containers_allocated(heap) >= cells);
        CHECK(n < 16);
    }
    /* Deleting needs no memory. */
    CHECK_EQ(dh_fault_set("alloc.cell", 0, DH_E_FULL), 0);
    for (uint64_t k = 0; k <= length; k++)
        model_delete(&m, k);
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    CHECK_EQ(form_of(&m), DICT_TINY);
    containers_verify(heap);
    model_close(&m);
}

static void test_full_arena(void)
{
    model m;
    dh_heap *heap = containers_heap(1u << 20);
    uint64_t refused = 0;
    model_open(&m, heap, 60000);
    for (uint64_t i = 0; i < 200000; i++) {
        uint64_t k = check_random_below(60000);
        if (check_random_below(100) < 65) {
            int rc = model_set(&m, k);
            CHECK(rc == 0 || rc == DH_E_FULL);
            refused += rc != 0;
        } else {
            model_delete(&m, k);
        }
    }
    CHECK(refused > 0);
    model_check(&m);
    containers_verify(heap);
    model_close(&m);
    dh_heap_close(heap);
}

/* --- damage ----------------------------------------------------------------------------------- */

static void damage_words(dh_heap *heap, unsigned count)
{
    uint64_t words = heap->arena.hwm_pages * DH_PAGE_WORDS;
    dh_word *arena = (dh_word *)(void *)heap->arena.base;
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = check_random_below(words);
        switch (check_random_below(4)) {
        case 0:
            arena[at] ^= (uint64_t)1 << check_random_below(64);
            break;
        case 1:
            arena[at] = check_random();
            break;
        case 2:
            arena[at] = arena[check_random_below(words)];
            break;
        default:
            arena[at] = dh_ref((dh_type)check_random_below(32),
                               check_random_below(words * 8) & ~(uint64_t)15);
            break;
        }
    }
}

/* Heads are what a hostile file aims at. */
static void damage_head(dh_heap *heap, dh_word dict)
{
    dh_word *head = dh_deref(heap, dict, DH_T_DICT, DH_HEAD_BYTES);
    uint64_t bytes = heap->arena.hwm_pages * DH_PAGE_BYTES;
    unsigned at = (unsigned)check_random_below(4);
    dh_type types[] = {DH_T_ENTRIES, DH_T_BUCKET, DH_T_DIR, DH_T_BIG, DH_T_NODE};
    if (head == NULL)
        return;
    if (check_random_below(2) == 0)
        head[at] ^= (uint64_t)1 << check_random_below(64);
    else
        head[at] = dh_ref(types[check_random_below(5)], check_random_below(bytes) & ~(uint64_t)15);
}

/* Words of the inner structure: head, BIG, its rows, the top of the index. */
static size_t inner_words(dh_heap *heap, dh_word dict, dh_word **words, size_t room)
{
    size_t count = 0;
    unsigned bits;
    dh_word *head = dh_deref(heap, dict, DH_T_DICT, DH_HEAD_BYTES);
    for (unsigned i = 0; i < 4; i++)
        words[count++] = head + i;
    dh_word *big = dict_form(head) == DICT_BIG ? dict_big_at(heap, head) : NULL;
    for (unsigned i = 0; big != NULL && i < BIG_WORDS; i++)
        words[count++] = big + i;
    for (uint64_t link = 1; big != NULL && link <= big_rows_count(big); link++)
        for (unsigned i = 0; i < ROW_WORDS && count < room; i++)
            words[count++] = big_row(heap, big, link) + i;
    dh_word *slots = dict_dir_at(heap, head[DICT_INDEX], &bits);
    for (unsigned i = 0; slots != NULL && i < 1u << bits && count < room; i++)
        words[count++] = slots + i;
    return count;
}

/* Refs of the right type to wrong places, above all to the last page; counts that are too large. */
static void damage_inner(dh_heap *heap, dh_word dict)
{
    dh_word *words[600];
    size_t count = inner_words(heap, dict, words, 600);
    uint64_t pages = heap->arena.hwm_pages;
    for (unsigned i = 0; i < 1 + check_random_below(3); i++) {
        dh_word *at = words[check_random_below(count)];
        uint64_t page = check_random_below(2) ? pages - 1 : check_random_below(pages);
        uint64_t off = page * DH_PAGE_BYTES + check_random_below(256) * 16;
        if (dh_is_ref(*at) && check_random_below(4) != 0)
            *at = dh_ref(dh_ref_type(*at), off);
        else if (check_random_below(2) == 0)
            *at ^= (uint64_t)1 << check_random_below(64);
        else
            *at = *words[check_random_below(count)];
    }
}

static void use_damaged(dh_heap *heap, dh_word dict, uint64_t keys_count)
{
    containers_key key;
    dh_word key_word, value;
    bool was_new;
    (void)!dh_dict_check(heap, dict);
    for (unsigned backwards = 0; backwards < 2; backwards++) {
        dh_dict_pos pos = {0, 0};
        uint64_t steps = 0;
        while ((backwards ? dh_dict_prev(heap, dict, &pos, &key_word, &value)
                          : dh_dict_next(heap, dict, &pos, &key_word, &value)) == 1)
            CHECK(steps++ < (uint64_t)1 << 24);
    }
    for (unsigned i = 0; i < 200; i++) {
        uint64_t k = check_random_below(keys_count);
        const dh_key *canonical = containers_key_of(heap, k, &key);
        (void)!dh_dict_get(heap, dict, canonical, &value);
        if (i % 4 == 0)
            (void)!dh_dict_delete(heap, dict, canonical, NULL);
        else if (i % 4 == 1 && containers_key_word(heap, k + keys_count, &key_word) == 0)
            (void)!dh_dict_set(heap, dict, containers_key_of(heap, k + keys_count, &key), key_word,
                               dh_int(0), &was_new);
    }
    (void)!dh_dict_clear(heap, dict);
}

static void test_damage(uint64_t length, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        model m;
        dh_heap *heap = containers_heap(16u << 20);
        model_open(&m, heap, length);
        for (uint64_t k = 0; k < length; k++)
            CHECK_EQ(model_set(&m, k), 0);
        for (uint64_t i = 0; i < length / 4; i++)
            model_delete(&m, check_random_below(length));
        if (round % 4 == 0)
            damage_head(heap, m.dict);
        else if (round % 4 != 1)
            damage_inner(heap, m.dict);
        else
            damage_words(heap, 1u << check_random_below(length > 100 ? 13 : 8));
        if (check_random_below(2) == 0)
            containers_fence(heap);
        use_damaged(heap, m.dict, length);
        containers_unfence();
        free(m.order);
        free(m.value);
        dh_heap_close(heap);
    }
}

/* A directory that leads to itself, rows that follow one another in a ring. */
static void test_rings(uint64_t length)
{
    for (unsigned what = 0; what < 6; what++) {
        model m;
        unsigned bits;
        dh_heap *heap = containers_heap(16u << 20);
        model_open(&m, heap, length);
        for (uint64_t k = 0; k < length; k++)
            CHECK_EQ(model_set(&m, k), 0);
        dh_word *head = dh_deref(heap, m.dict, DH_T_DICT, DH_HEAD_BYTES);
        dh_word *slots = dict_dir_at(heap, head[DICT_INDEX], &bits);
        dh_word *big = dict_form(head) == DICT_BIG ? dict_big_at(heap, head) : NULL;
        CHECK(slots != NULL);
        if (big == NULL || what < 2) {
            for (unsigned i = 0; i < 1u << bits; i += 1 + (what & 1u))
                slots[i] = head[DICT_INDEX];
        } else {
            dh_word *row = big_row(heap, big, 2);
            row[ROW_LINKS] = dh_int((int64_t)((what & 1u) << BIG_LINK_BITS | (what / 2u)));
            if (what / 2 == 2)
                big_set(big, BIG_FREE, 2);
        }
        (void)!dh_dict_check(heap, m.dict);
        use_damaged(heap, m.dict, length);
        free(m.order);
        free(m.value);
        dh_heap_close(heap);
    }
}

/* Entry numbers in the index that lead nowhere, met by lookups and by a pack. */
static void test_bad_numbers(unsigned rounds)
{
    unsigned done = 0;
    for (unsigned round = 0; round < rounds; round++) {
        model m;
        containers_key key;
        dh_heap *heap = containers_heap(16u << 20);
        model_open(&m, heap, 300);
        for (uint64_t k = 0; k < 300; k++)
            CHECK_EQ(model_set(&m, k), 0);
        dh_word *head = dh_deref(heap, m.dict, DH_T_DICT, DH_HEAD_BYTES);
        dict_bucket bucket = dict_bucket_at(heap, head[DICT_INDEX]);
        bool is_one_bucket = bucket.groups_count > 0; /* rarely, by its hash key, more already */
        done += is_one_bucket;
        for (unsigned i = 0; is_one_bucket && i < 5; i++)
            bucket.groups[check_random_below(bucket.groups_count)]
                .entry[check_random_below(DICT_GROUP_SLOTS)] = (uint32_t)check_random();
        CHECK_EQ(dh_dict_check(heap, m.dict), is_one_bucket ? DH_E_CORRUPT : 0);
        for (uint64_t k = 0; k < 300; k++) {
            const dh_key *canonical = containers_key_of(heap, k, &key);
            (void)!dh_dict_delete(heap, m.dict, canonical, NULL);
        }
        free(m.order);
        free(m.value);
        dh_heap_close(heap);
    }
    CHECK(done > rounds / 2);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap((uint64_t)1 << 30);

    dhi_shapes_refuse(heap, UINT32_MAX); /* dicts with keys of their own; others: test_shape.c */
    for (unsigned how = 0; how < 3; how++) {
        test_growing_and_emptying(heap, 30, how);
        test_growing_and_emptying(heap, 4200, how);
        test_growing_and_emptying(heap, 60000 / SCALE, how);
    }
    static const uint64_t sizes[] = {3, 8, 12, 40, 300, 700, 3000, 6000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        test_churn(heap, sizes[i], 60000 / SCALE + sizes[i] * 20);
    test_churn(heap, 60000 / SCALE, 600000 / SCALE);
    test_queue(heap, 5, 20000);
    test_queue(heap, 1000, 50000 / SCALE);
    test_queue(heap, 1000000 / SCALE, 1000000 / SCALE);
    test_random_replacement(heap, 40000, 400000 / SCALE);
    for (unsigned from_end = 0; from_end < 2; from_end++) {
        test_popping(heap, 3, from_end != 0);
        test_popping(heap, 4000, from_end != 0);
        test_popping(heap, 30000, from_end != 0);
    }
    for (uint64_t keys_count = 5; keys_count < 10000; keys_count *= 6)
        test_versions(heap, keys_count);
    test_memory_follows_the_length(heap);
    test_replacement_stays_small(heap);
    test_compaction_keeps_the_order(heap);
    test_reserve_is_exact(heap);
    test_missing_key_needs_no_word(heap);
    test_values_are_dropped(heap);
    test_equal_hashes_end_in_a_limit(heap);
    test_biased_hashes(heap, 0xffff00ff00000000u, 6000);
    test_biased_hashes(heap, 0x00000fff00000000u, 6000);
    test_biased_hashes(heap, 0x0fffffff00000000u, 40000);
    test_biased_hashes(heap, 0x003fffff00000000u, 40000);
    test_biased_churn(heap, 0xfff0000700000000u, 3000);
    test_biased_churn(heap, 0xe00000ff00000000u, 2000);
    test_biased_churn(heap, 0xffffff3f00000000u, 4000);
    static const uint64_t lengths[] = {0, 1, 2, 4, 7, 8, 9, 12, 16, 40, 425, 700, 4095, 4096, 8192};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        test_no_memory(heap, lengths[i]);
    dh_heap_close(heap);
    test_full_arena();
    test_rings(2000);
    test_rings(20000);
    test_rings(170000); /* a directory of a whole page */
    test_bad_numbers(100);
    test_damage(7, 600 / SCALE);
    test_damage(300, 400 / SCALE);
    test_damage(4000, 160 / SCALE);
    test_damage(9000, 160 / SCALE);
    return 0;
}
