/* test_set.c -- Set against a plain model: contents, order, memory, damage; and the work that
 * lookups of hostile keys take, for Set and Dict.
 *
 * The engine is that of Dict and has its tests in test_dict.c; here is what entries of one word
 * change: sizes, deletion marks, values that are keys.
 */
#include "containers.h"
#include "dict_private.h"
#include "set.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCALE 4u
#else
#define SCALE 1u
#endif

/* --- model ------------------------------------------------------------------------------------ */

/* A key is a number below keys_count; order[k] is when it was added, 0: it is not there. */
typedef struct {
    dh_heap *heap;
    dh_word set;
    uint64_t keys_count;
    uint64_t *order;
    uint64_t clock;
    uint64_t length;
} model;

static void model_open(model *m, dh_heap *heap, uint64_t keys_count)
{
    memset(m, 0, sizeof *m);
    m->heap = heap;
    m->keys_count = keys_count;
    m->order = calloc(keys_count, sizeof *m->order);
    CHECK(m->order != NULL);
    CHECK_EQ(dh_set_new(heap, &m->set), 0);
    containers_root(heap, m->set);
}

static void model_close(model *m)
{
    CHECK_EQ(dh_set_clear(m->heap, m->set), 0);
    free(m->order);
}

/* What is there is found without a word of its own; so no cell is made in vain. */
static int model_add(model *m, uint64_t k)
{
    containers_key key;
    bool was_new = true;
    dh_word key_word = DH_EMPTY;
    const dh_key *canonical = containers_key_of(m->heap, k, &key);
    int rc = dh_set_add(m->heap, m->set, canonical, DH_EMPTY, &was_new);
    CHECK_EQ(rc, m->order[k] == 0 ? DH_E_ABSENT : 0);
    CHECK(!was_new);
    if (rc == 0)
        return 0;
    rc = containers_key_word(m->heap, k, &key_word);
    if (rc == 0)
        rc = dh_set_add(m->heap, m->set, canonical, key_word, &was_new);
    if (rc != 0) {
        CHECK(!was_new);
        dh_value_drop(m->heap, key_word);
        return rc;
    }
    CHECK(was_new);
    m->order[k] = ++m->clock;
    m->length++;
    return 0;
}

static void model_remove(model *m, uint64_t k)
{
    containers_key key;
    int rc = dh_set_remove(m->heap, m->set, containers_key_of(m->heap, k, &key));
    CHECK_EQ(rc, m->order[k] == 0 ? DH_E_ABSENT : 0);
    m->length -= m->order[k] != 0;
    m->order[k] = 0;
}

static void model_find(const model *m, uint64_t k)
{
    containers_key key;
    dh_word word = DH_EMPTY;
    const dh_key *canonical = containers_key_of(m->heap, k, &key);
    CHECK_EQ(dh_set_find(m->heap, m->set, canonical, &word), m->order[k] == 0 ? DH_E_ABSENT : 0);
    if (m->order[k] != 0)
        CHECK_EQ(dh_key_matches(m->heap, canonical, word), 1);
}

/* The elements come in the order in which they were added. */
static void model_check_order(const model *m, bool backwards)
{
    dh_dict_pos pos = {0, 0};
    dh_word word;
    uint64_t *at_time = calloc(m->clock + 1, sizeof *at_time), i = 0;
    int rc;
    CHECK(at_time != NULL);
    for (uint64_t k = 0; k < m->keys_count; k++)
        at_time[m->order[k]] = k + 1;
    for (uint64_t t = 1; t <= m->clock; t++) {
        containers_key key;
        uint64_t k = at_time[backwards ? m->clock + 1 - t : t];
        if (k == 0)
            continue;
        rc = backwards ? dh_set_prev(m->heap, m->set, &pos, &word)
                       : dh_set_next(m->heap, m->set, &pos, &word);
        CHECK_EQ(rc, 1);
        CHECK_EQ(dh_key_matches(m->heap, containers_key_of(m->heap, k - 1, &key), word), 1);
        i++;
    }
    CHECK_EQ(i, m->length);
    rc = backwards ? dh_set_prev(m->heap, m->set, &pos, &word)
                   : dh_set_next(m->heap, m->set, &pos, &word);
    CHECK_EQ(rc, 0);
    free(at_time);
}

static void model_check(const model *m)
{
    uint64_t length;
    int rc = dh_set_check(m->heap, m->set);
    if (rc != 0)
        fprintf(stderr, "length %llu: %s\n", (unsigned long long)m->length,
                dh_heap_error_text(m->heap));
    CHECK_EQ(rc, 0);
    CHECK_EQ(dh_set_length(m->heap, m->set, &length), 0);
    CHECK_EQ(length, m->length);
    for (uint64_t k = 0; k < m->keys_count; k++)
        model_find(m, k);
    model_check_order(m, false);
    model_check_order(m, true);
}

/* --- contents --------------------------------------------------------------------------------- */

static void test_growing_and_emptying(dh_heap *heap, uint64_t limit, unsigned how)
{
    model m;
    model_open(&m, heap, limit);
    uint64_t before = containers_allocated(heap);
    for (uint64_t k = 0; k < limit; k++) {
        CHECK_EQ(model_add(&m, k), 0);
        if (k < 24 || (k >= 4090 && k < 4100) || k % 2017 == 0)
            model_check(&m);
    }
    containers_verify(heap);
    for (uint64_t i = 0; i < limit; i++) {
        model_remove(&m, how == 0 ? i : how == 1 ? limit - 1 - i : (i * 7919 + 13) % limit);
        if (limit - i < 24 || i % 2017 == 0)
            model_check(&m);
    }
    CHECK_EQ(m.length, 0);
    CHECK_EQ(containers_allocated(heap), before);
    model_close(&m);
}

static void test_churn(dh_heap *heap, uint64_t keys_count, uint64_t operations_count)
{
    model m;
    uint64_t bias = 50;
    model_open(&m, heap, keys_count);
    uint64_t before = containers_allocated(heap);
    for (uint64_t i = 0; i < operations_count; i++) {
        uint64_t k = check_random_below(keys_count), what = check_random_below(100), version, now;
        bool is_there = m.order[k] != 0;
        if (i % (keys_count * 3 + 7) == 0)
            bias = 20 + check_random_below(60);
        CHECK_EQ(dh_set_version(heap, m.set, &version), 0);
        if (what < bias)
            CHECK_EQ(model_add(&m, k), 0);
        else if (what < 95)
            model_remove(&m, k);
        else
            model_find(&m, k);
        CHECK_EQ(dh_set_version(heap, m.set, &now), 0);
        CHECK((now != version) == (is_there != (m.order[k] != 0)));
        if (i % (operations_count / 8 + 1) == 0)
            model_check(&m);
    }
    model_check(&m);
    containers_verify(heap);
    model_close(&m);
    CHECK_EQ(containers_allocated(heap), before);
}

/* Add at the end, remove from the front, which must not look at what was removed before. */
static void test_queue(dh_heap *heap, int64_t length, int64_t operations_count)
{
    dh_word set, word;
    dh_key key;
    bool was_new;
    CHECK_EQ(dh_set_new(heap, &set), 0);
    containers_root(heap, set);
    uint64_t before = containers_allocated(heap);
    for (int64_t i = 0; i < operations_count; i++) {
        dh_dict_pos pos = {0, 0};
        dh_key_from_int(heap, i, &key);
        CHECK_EQ(dh_set_add(heap, set, &key, dh_int(i), &was_new), 0);
        if (i < length)
            continue;
        CHECK_EQ(dh_set_next(heap, set, &pos, &word), 1);
        CHECK_EQ(word, dh_int(i - length));
        dh_key_from_int(heap, i - length, &key);
        CHECK_EQ(dh_set_remove(heap, set, &key), 0);
        if (i % 4001 == 0)
            CHECK_EQ(dh_set_check(heap, set), 0);
    }
    CHECK_EQ(dh_set_clear(heap, set), 0);
    CHECK_EQ(containers_allocated(heap), before);
}

/* --- memory ----------------------------------------------------------------------------------- */

/* An element costs 8 bytes less than an entry of a dict, at any size. */
static void test_smaller_than_a_dict(dh_heap *heap)
{
    static const int64_t counts[] = {8, 400, 4000, 100000};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        uint64_t bytes[2];
        for (unsigned is_set = 0; is_set < 2; is_set++) {
            dh_word made;
            dh_key key;
            bool was_new;
            CHECK_EQ(is_set ? dh_set_new(heap, &made) : dh_dict_new(heap, &made), 0);
            containers_root(heap, made);
            uint64_t before = containers_allocated(heap);
            CHECK_EQ(is_set ? dh_set_reserve(heap, made, (uint64_t)counts[i])
                            : dh_dict_reserve(heap, made, (uint64_t)counts[i]),
                     0);
            for (int64_t k = 0; k < counts[i]; k++) {
                dh_key_from_int(heap, k, &key);
                CHECK_EQ(is_set ? dh_set_add(heap, made, &key, dh_int(k), &was_new)
                                : dh_dict_set(heap, made, &key, dh_int(k), dh_int(1), &was_new),
                         0);
            }
            bytes[is_set] = containers_allocated(heap) - before;
        }
        CHECK(bytes[0] - bytes[1] >= (uint64_t)counts[i] * 7);
    }
}

static void test_no_memory(dh_heap *heap, uint64_t length)
{
    model m;
    model_open(&m, heap, length + 2);
    for (uint64_t k = 0; k < length; k++)
        CHECK_EQ(model_add(&m, k), 0);
    for (uint64_t n = 0;; n++) {
        CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
        int rc = model_add(&m, length);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        model_check(&m);
        containers_verify(heap);
        if (rc == 0)
            break;
        CHECK_EQ(rc, DH_E_FULL);
        CHECK(n < 16);
    }
    CHECK_EQ(dh_fault_set("alloc.cell", 0, DH_E_FULL), 0);
    for (uint64_t k = 0; k <= length; k++)
        model_remove(&m, k);
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    containers_verify(heap);
    model_close(&m);
}

/* --- two sets --------------------------------------------------------------------------------- */

/* Two sets below one root, with random elements. */
static void pair_open(model pair[2], dh_heap *heap, uint64_t keys_count,
                      const uint64_t adds_count[2])
{
    dh_word list;
    CHECK_EQ(dh_list_new(heap, &list), 0);
    containers_root(heap, list);
    for (unsigned i = 0; i < 2; i++) {
        model *m = &pair[i];
        memset(m, 0, sizeof *m);
        m->heap = heap;
        m->keys_count = keys_count;
        m->order = calloc(keys_count, sizeof *m->order);
        CHECK(m->order != NULL);
        CHECK_EQ(dh_set_new(heap, &m->set), 0);
        CHECK_EQ(dh_list_append(heap, list, m->set), 0);
        for (uint64_t n = 0; n < adds_count[i]; n++)
            CHECK_EQ(model_add(m, check_random_below(keys_count)), 0);
    }
}

enum { MERGE, KEEP, TAKE_OUT, TOGGLE, CHANGES_COUNT };

static int change_set(model pair[2], unsigned change)
{
    dh_heap *heap = pair[0].heap;
    switch (change) {
    case MERGE:
        return dh_set_merge(heap, pair[0].set, pair[1].set);
    case TOGGLE:
        return dh_set_toggle(heap, pair[0].set, pair[1].set);
    default:
        return dh_set_subtract(heap, pair[0].set, pair[1].set, change == TAKE_OUT);
    }
}

/* The same to the model; what is added comes in the order of the other set. */
static void change_model(model pair[2], unsigned change)
{
    model *m = &pair[0], *other = &pair[1];
    uint64_t clock = m->clock;
    m->length = 0;
    for (uint64_t k = 0; k < m->keys_count; k++) {
        bool mine = m->order[k] != 0, theirs = other->order[k] != 0;
        bool stays = change == MERGE  ? mine || theirs
                     : change == KEEP ? mine && theirs
                                      : mine && !theirs;
        if (change == TOGGLE)
            stays = mine != theirs;
        if (!stays)
            m->order[k] = 0;
        else if (!mine)
            m->order[k] = clock + other->order[k];
        m->length += stays;
    }
    m->clock = clock + other->clock;
}

static void check_questions(const model pair[2])
{
    bool any = false, all = true;
    for (uint64_t k = 0; k < pair[0].keys_count; k++) {
        any = any || (pair[0].order[k] != 0 && pair[1].order[k] != 0);
        all = all && (pair[0].order[k] != 0 || pair[1].order[k] == 0);
    }
    CHECK_EQ(dh_set_has_any(pair[0].heap, pair[0].set, pair[1].set), any);
    CHECK_EQ(dh_set_has_all(pair[0].heap, pair[0].set, pair[1].set), all);
}

static void test_two_sets(dh_heap *heap, uint64_t keys_count, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        model pair[2];
        uint64_t adds[2] = {check_random_below(keys_count), check_random_below(keys_count)};
        adds[round % 2] /= 1 + check_random_below(20);
        pair_open(pair, heap, keys_count, adds);
        for (unsigned step = 0; step < 3; step++) {
            unsigned change = (unsigned)check_random_below(CHANGES_COUNT);
            check_questions(pair);
            CHECK_EQ(change_set(pair, change), 0);
            change_model(pair, change);
            model_check(&pair[0]);
            model_check(&pair[1]);
        }
        containers_verify(heap);
        for (unsigned i = 0; i < 2; i++)
            model_close(&pair[i]);
    }
}

/* Refuse the n-th allocation and all after it: done whole, or nothing changed. */
static void test_two_sets_without_memory(dh_heap *heap, unsigned change)
{
    const uint64_t adds[2] = {60, 60};
    for (uint64_t n = 0;; n++) {
        model pair[2];
        pair_open(pair, heap, 100, adds);
        CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
        int rc = change_set(pair, change);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        CHECK(rc == 0 || rc == DH_E_FULL);
        if (rc == 0)
            change_model(pair, change);
        model_check(&pair[0]);
        model_check(&pair[1]);
        containers_verify(heap);
        for (unsigned i = 0; i < 2; i++)
            model_close(&pair[i]);
        if (rc == 0)
            break;
        CHECK(n < 200);
    }
}

static void test_a_set_and_itself(dh_heap *heap)
{
    for (unsigned change = 0; change < CHANGES_COUNT; change++) {
        model m;
        model_open(&m, heap, 30);
        for (uint64_t k = 0; k < 30; k++)
            CHECK_EQ(model_add(&m, k), 0);
        CHECK_EQ(dh_set_has_all(heap, m.set, m.set), 1);
        CHECK_EQ(dh_set_has_any(heap, m.set, m.set), 1);
        model same[2] = {m, m};
        CHECK_EQ(change_set(same, change), 0);
        uint64_t length;
        CHECK_EQ(dh_set_length(heap, m.set, &length), 0);
        CHECK_EQ(length, change == MERGE || change == KEEP ? 30 : 0);
        model_close(&m);
    }
}

/* --- hostile keys ----------------------------------------------------------------------------- */

enum { HOSTILE_COUNT = 100000 };

/* Lookups of all of them together may compare at most 1.001 keys and look at 1.5 groups each; by
 * chance two of a hundred thousand share 32 bits of their hash. */
static void check_work(dh_heap *heap, dh_word container)
{
    dict_work work;
    CHECK_EQ(dhi_dict_work(heap, container, &work), 0);
    CHECK_EQ(work.lookups_count, HOSTILE_COUNT);
    CHECK(work.compares_count >= HOSTILE_COUNT);
    CHECK(work.compares_count <= HOSTILE_COUNT + HOSTILE_COUNT / 1000);
    CHECK(work.groups_count <= HOSTILE_COUNT + HOSTILE_COUNT / 2);
    CHECK(work.compares_max <= 4);
}

/* k * (2^61 - 1): to Python, whose hash of an int is its remainder by that prime, all the same. */
static dh_word hostile_int(dh_heap *heap, uint64_t k, dh_key *key, uint8_t data[17])
{
    dh_word word;
    unsigned __int128 v = (unsigned __int128)k * (((uint64_t)1 << 61) - 1);
    size_t size = 16;
    data[0] = 0;
    memcpy(data + 1, &v, 16);
    while (size > 0 && data[size] == 0)
        size--;
    dh_key_from_bigint(heap, data, size + 1, key);
    CHECK_EQ(dh_bigint_new(heap, false, data + 1, size, &word), 0);
    return word;
}

static uint32_t fnv1a(const uint8_t *data, size_t size)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * 16777619u;
    return hash;
}

/* Strings of which a hash without a key has the same low bits: the last byte before the counter's end
 * is chosen so. The lowest 8 bits of FNV-1a are permuted by each last byte, so there is always one. */
static dh_word hostile_text(dh_heap *heap, uint64_t k, dh_key *key, uint8_t data[17])
{
    dh_word word;
    uint64_t salt = 0;
    size_t size;
    do
        size = (size_t)snprintf((char *)data, 17, "%06x%06x", (unsigned)k, (unsigned)salt++);
    while ((fnv1a(data, size) & 0xffu) != 0x5au);
    dh_key_from_str(heap, data, size, key);
    CHECK_EQ(dh_str_new(heap, data, size, &word), 0);
    return word;
}

typedef dh_word (*hostile_maker)(dh_heap *heap, uint64_t k, dh_key *key, uint8_t data[17]);

static void test_hostile_keys(dh_heap *heap, hostile_maker make)
{
    dh_word set, dict;
    bool was_new;
    CHECK_EQ(dh_set_new(heap, &set), 0);
    containers_root(heap, set);
    for (uint64_t k = 0; k < HOSTILE_COUNT; k++) {
        dh_key key;
        uint8_t data[17];
        dh_word word = make(heap, k, &key, data);
        CHECK_EQ(dh_set_add(heap, set, &key, word, &was_new), 0);
        CHECK(was_new);
    }
    check_work(heap, set);
    CHECK_EQ(dh_dict_new(heap, &dict), 0);
    containers_root(heap, dict);
    for (uint64_t k = 0; k < HOSTILE_COUNT; k++) {
        dh_key key;
        uint8_t data[17];
        dh_word word = make(heap, k, &key, data);
        CHECK_EQ(dh_dict_set(heap, dict, &key, word, DH_NONE, &was_new), 0);
    }
    check_work(heap, dict);
}

/* --- damage ----------------------------------------------------------------------------------- */

static void damage(dh_heap *heap, dh_word set, unsigned how)
{
    dh_word *head = dh_deref(heap, set, DH_T_SET, DH_HEAD_BYTES);
    dh_word *arena = (dh_word *)(void *)heap->arena.base;
    uint64_t words = heap->arena.hwm_pages * DH_PAGE_WORDS;
    if (how == 0) { /* a bit of the head: the width and the form are among them */
        head[check_random_below(4)] ^= (uint64_t)1 << check_random_below(24);
        return;
    }
    for (uint64_t i = 0; i < 1 + check_random_below(how == 1 ? 2000 : 20); i++)
        arena[check_random_below(words)] =
            check_random_below(2) ? check_random() : arena[check_random_below(words)];
}

static void use_damaged(dh_heap *heap, dh_word set, uint64_t keys_count)
{
    containers_key key;
    dh_word word;
    bool was_new;
    (void)!dh_set_check(heap, set);
    for (unsigned backwards = 0; backwards < 2; backwards++) {
        dh_dict_pos pos = {0, 0};
        uint64_t steps = 0;
        while ((backwards ? dh_set_prev(heap, set, &pos, &word)
                          : dh_set_next(heap, set, &pos, &word)) == 1)
            CHECK(steps++ < (uint64_t)1 << 24);
    }
    for (unsigned i = 0; i < 200; i++) {
        uint64_t k = check_random_below(keys_count);
        const dh_key *canonical = containers_key_of(heap, k, &key);
        (void)!dh_set_find(heap, set, canonical, &word);
        if (i % 4 == 0)
            (void)!dh_set_remove(heap, set, canonical);
        else if (i % 4 == 1 && containers_key_word(heap, k + keys_count, &word) == 0)
            (void)!dh_set_add(heap, set, containers_key_of(heap, k + keys_count, &key), word,
                              &was_new);
    }
    (void)!dh_set_clear(heap, set);
}

static void test_damage(uint64_t length, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        model m;
        dh_heap *heap = containers_heap(16u << 20);
        model_open(&m, heap, length);
        for (uint64_t k = 0; k < length; k++)
            CHECK_EQ(model_add(&m, k), 0);
        for (uint64_t i = 0; i < length / 4; i++)
            model_remove(&m, check_random_below(length));
        damage(heap, m.set, round % 3);
        if (check_random_below(2) == 0)
            containers_fence(heap);
        use_damaged(heap, m.set, length);
        containers_unfence();
        free(m.order);
        dh_heap_close(heap);
    }
}

/* A set that says it has values, a dict that says it has none: found by the check. */
static void test_wrong_width(dh_heap *heap)
{
    uint64_t cells, problems;
    for (unsigned is_set = 0; is_set < 2; is_set++) {
        dh_word made;
        CHECK_EQ(is_set ? dh_set_new(heap, &made) : dh_dict_new(heap, &made), 0);
        containers_root(heap, made);
        dh_word *head = dh_at(heap, dh_ref_off(made));
        head[DICT_META] ^= (dh_word)DICT_KEYS_ONLY << DH_META_TAG_BITS;
        CHECK_EQ(dh_check(heap, &cells, &problems), 0);
        CHECK_EQ(problems, 1);
        head[DICT_META] ^= (dh_word)DICT_KEYS_ONLY << DH_META_TAG_BITS;
        CHECK_EQ(dh_check(heap, &cells, &problems), 0);
        CHECK_EQ(problems, 0);
    }
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap((uint64_t)1 << 30);
    static const uint64_t sizes[] = {3, 8, 12, 40, 300, 700, 3000, 6000};
    static const uint64_t lengths[] = {0, 1, 2, 7, 8, 9, 12, 40, 425, 4095, 4096, 8192};

    for (unsigned how = 0; how < 3; how++) {
        test_growing_and_emptying(heap, 30, how);
        test_growing_and_emptying(heap, 4200, how);
        test_growing_and_emptying(heap, 40000 / SCALE, how);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        test_churn(heap, sizes[i], 40000 / SCALE + sizes[i] * 20);
    test_churn(heap, 40000 / SCALE, 400000 / SCALE);
    test_queue(heap, 5, 20000);
    test_queue(heap, 1000, 50000 / SCALE);
    test_queue(heap, 400000 / SCALE, 600000 / SCALE);
    test_smaller_than_a_dict(heap);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        test_no_memory(heap, lengths[i]);
    test_two_sets(heap, 8, 100);
    test_two_sets(heap, 600, 60 / SCALE);
    test_two_sets(heap, 12000, 8 / SCALE);
    for (unsigned change = 0; change < CHANGES_COUNT; change++)
        test_two_sets_without_memory(heap, change);
    test_a_set_and_itself(heap);
    test_hostile_keys(heap, hostile_int);
    test_hostile_keys(heap, hostile_text);
    test_wrong_width(heap);
    dh_heap_close(heap);
    test_damage(7, 400 / SCALE);
    test_damage(300, 200 / SCALE);
    test_damage(9000, 100 / SCALE);
    return 0;
}
