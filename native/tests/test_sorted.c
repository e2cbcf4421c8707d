/* test_sorted.c -- SortedDict against a sorted array: keys of every kind, positions, memory, damage.
 *
 * Key number k of a kind is made so that keys have the order of their numbers.
 */
#include "containers.h"
#include "sorted.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCALE 4u
#else
#define SCALE 1u
#endif
#define ROOM_MAX 300000u

typedef enum { INTS, TEXTS, NUMBERS, BYTES, TUPLES, KINDS_COUNT } key_kind;

typedef struct {
    dh_heap *heap;
    dh_word sorted;
    key_kind kind;
    uint64_t *numbers; /* rising; the value of k is k + 1 as text for every third, else as int */
    uint64_t length;
} model;

/* --- keys ------------------------------------------------------------------------------------- */

/* Short and long ones, one the beginning of the next. */
static int text_word(dh_heap *heap, uint64_t k, bool is_bytes, dh_word *word_out)
{
    char text[64];
    int size = snprintf(text, sizeof text, "%06llx%s", (unsigned long long)(k / 2),
                        k % 2 == 1 ? " and a tail" : "");
    return is_bytes ? dh_bytes_new(heap, (const uint8_t *)text, (size_t)size, word_out)
                    : dh_str_new(heap, (const uint8_t *)text, (size_t)size, word_out);
}

static int number_word(dh_heap *heap, uint64_t k, dh_word *word_out)
{
    uint64_t magnitude[2] = {k, 1};
    if (k >= 1u << 24)
        return dh_bigint_new(heap, false, (const uint8_t *)magnitude, 16, word_out);
    if (k % 4 == 0) {
        *word_out = dh_int((int64_t)k / 4 - 1000);
        return 0;
    }
    return dh_float_new(heap, (double)k / 4 - 1000, word_out);
}

static int tuple_word(dh_heap *heap, uint64_t k, dh_word *word_out)
{
    dh_word words[2] = {dh_int((int64_t)(k / 7)), DH_EMPTY};
    int rc = text_word(heap, k % 7, false, &words[1]);
    if (rc == 0 && (rc = dh_tuple_new(heap, words, 2, word_out)) != 0)
        dh_value_drop(heap, words[1]);
    return rc;
}

static int key_word(dh_heap *heap, key_kind kind, uint64_t k, dh_word *word_out)
{
    switch (kind) {
    case INTS:
        *word_out = dh_int((int64_t)k * 3 - 1000);
        return 0;
    case TEXTS:
    case BYTES:
        return text_word(heap, k, kind == BYTES, word_out);
    case NUMBERS:
        return number_word(heap, k, word_out);
    default:
        return tuple_word(heap, k, word_out);
    }
}

static int value_word(dh_heap *heap, uint64_t k, dh_word *word_out)
{
    char text[32];
    if (k % 3 != 0) {
        *word_out = dh_int((int64_t)k + 1);
        return 0;
    }
    int size = snprintf(text, sizeof text, "value %llu", (unsigned long long)k + 1);
    return dh_str_new(heap, (const uint8_t *)text, (size_t)size, word_out);
}

static void check_value(const dh_heap *heap, dh_word word, uint64_t k)
{
    char text[32];
    dh_bytes_view view;
    if (k % 3 != 0) {
        CHECK_EQ(word, dh_int((int64_t)k + 1));
        return;
    }
    int size = snprintf(text, sizeof text, "value %llu", (unsigned long long)k + 1);
    if (dh_is_short(word))
        return;
    CHECK_EQ(dh_bytes_read(heap, word, &view), 0);
    CHECK_EQ(view.size, size);
    CHECK(memcmp(view.data, text, view.size) == 0);
}

/* A key with the storage that it borrows. */
typedef struct {
    dh_key key;
    dh_word word;
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
} held_key;

static int held_begin(dh_heap *heap, key_kind kind, uint64_t k, held_key *held)
{
    int rc = key_word(heap, kind, k, &held->word);
    if (rc != 0)
        return rc;
    CHECK_EQ(dh_key_from_word(heap, held->word, held->scratch, &held->key, &held->buffer), 0);
    return 0;
}

static void held_end(dh_heap *heap, held_key *held, bool is_dropped)
{
    free(held->buffer);
    if (is_dropped)
        dh_value_drop(heap, held->word);
}

/* --- the model -------------------------------------------------------------------------------- */

static void model_open(model *m, dh_heap *heap, key_kind kind)
{
    *m = (model){.heap = heap, .kind = kind};
    m->numbers = malloc(ROOM_MAX * sizeof *m->numbers);
    CHECK(m->numbers != NULL);
    CHECK_EQ(dh_sorted_new(heap, &m->sorted), 0);
    containers_root(heap, m->sorted);
}

static void model_close(model *m)
{
    CHECK_EQ(dh_sorted_clear(m->heap, m->sorted), 0);
    free(m->numbers);
}

static uint64_t model_rank(const model *m, uint64_t k)
{
    uint64_t low = 0, high = m->length;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (m->numbers[middle] < k)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool model_has(const model *m, uint64_t k)
{
    uint64_t at = model_rank(m, k);
    return at < m->length && m->numbers[at] == k;
}

static int model_set(model *m, uint64_t k)
{
    held_key held;
    dh_word value;
    bool was_new = false, has = model_has(m, k), by_key;
    int rc = held_begin(m->heap, m->kind, k, &held);
    if (rc != 0)
        return rc;
    by_key = (held.key.tag == 's' || held.key.tag == 'b') && k % 5 != 0;
    rc = value_word(m->heap, k, &value);
    if (rc == 0 && (rc = dh_sorted_set(m->heap, m->sorted, &held.key, by_key ? DH_EMPTY : held.word,
                                       value, &was_new)) != 0)
        dh_value_drop(m->heap, value);
    held_end(m->heap, &held, by_key || !was_new);
    if (rc != 0)
        return rc;
    CHECK_EQ(was_new, !has);
    if (was_new) {
        uint64_t at = model_rank(m, k);
        CHECK(m->length < ROOM_MAX);
        memmove(m->numbers + at + 1, m->numbers + at, (m->length - at) * sizeof *m->numbers);
        m->numbers[at] = k;
        m->length++;
    }
    return 0;
}

static void model_forget(model *m, uint64_t at)
{
    memmove(m->numbers + at, m->numbers + at + 1, (m->length - at - 1) * sizeof *m->numbers);
    m->length--;
}

static void model_delete(model *m, uint64_t k)
{
    held_key held;
    dh_word value;
    bool has = model_has(m, k);
    CHECK_EQ(held_begin(m->heap, m->kind, k, &held), 0);
    if (k % 2 == 0) {
        CHECK_EQ(dh_sorted_delete(m->heap, m->sorted, &held.key, NULL), has ? 0 : DH_E_ABSENT);
    } else {
        CHECK_EQ(dh_sorted_delete(m->heap, m->sorted, &held.key, &value), has ? 0 : DH_E_ABSENT);
        if (has) {
            check_value(m->heap, value, k);
            dh_value_drop(m->heap, value);
        }
    }
    held_end(m->heap, &held, true);
    if (has)
        model_forget(m, model_rank(m, k));
}

static void model_delete_at(model *m, uint64_t at)
{
    CHECK_EQ(dh_sorted_delete_at(m->heap, m->sorted, at), 0);
    model_forget(m, at);
}

static void check_lookup(model *m, uint64_t k)
{
    held_key held;
    dh_word value;
    uint64_t rank, expected = model_rank(m, k);
    bool is_found, has = model_has(m, k);
    CHECK_EQ(held_begin(m->heap, m->kind, k, &held), 0);
    CHECK_EQ(dh_sorted_get(m->heap, m->sorted, &held.key, &value), has ? 0 : DH_E_ABSENT);
    if (has)
        check_value(m->heap, value, k);
    CHECK_EQ(dh_sorted_rank(m->heap, m->sorted, &held.key, false, &rank, &is_found), 0);
    CHECK_EQ(rank, expected);
    CHECK_EQ(is_found, has);
    CHECK_EQ(dh_sorted_rank(m->heap, m->sorted, &held.key, true, &rank, &is_found), 0);
    CHECK_EQ(rank, expected + has);
    held_end(m->heap, &held, true);
}

static void model_check(model *m, uint64_t limit)
{
    uint64_t length;
    dh_sorted_span span;
    CHECK_EQ(dh_sorted_length(m->heap, m->sorted, &length), 0);
    CHECK_EQ(length, m->length);
    for (uint64_t i = 0; i < length; i = span.first + span.count) {
        CHECK_EQ(dh_sorted_span_at(m->heap, m->sorted, i, &span), 0);
        CHECK(span.first == i && span.count > 0);
        for (uint64_t j = 0; j < span.count; j++)
            check_value(m->heap, span.values[j], m->numbers[i + j]);
    }
    CHECK_EQ(dh_sorted_span_at(m->heap, m->sorted, length, &span), DH_E_ABSENT);
    for (unsigned i = 0; i < 20; i++) {
        check_lookup(m, check_random_below(limit));
        if (length > 0) {
            uint64_t at = check_random_below(length);
            check_lookup(m, m->numbers[at]);
            CHECK_EQ(dh_sorted_span_at(m->heap, m->sorted, at, &span), 0);
            CHECK(span.first <= at && at < span.first + span.count);
        }
    }
}

/* --- tests ------------------------------------------------------------------------------------ */

/* Random keys below limit; the length swings. */
static void test_random(dh_heap *heap, key_kind kind, uint64_t limit, unsigned rounds)
{
    model m;
    model_open(&m, heap, kind);
    uint64_t before = containers_allocated(heap);
    for (unsigned i = 0; i < rounds; i++) {
        bool is_growing = i / (rounds / 4 + 1) % 2 == 0;
        if (check_random_below(4) == 0 ? !is_growing : is_growing)
            CHECK_EQ(model_set(&m, check_random_below(limit)), 0);
        else if (m.length > 0 && check_random_below(3) > 0)
            model_delete_at(&m, check_random_below(m.length));
        else
            model_delete(&m, check_random_below(limit));
        if (i % (rounds / 16 + 1) == 0) {
            model_check(&m, limit);
            CHECK_EQ(dh_sorted_check(heap, m.sorted), 0);
            containers_verify(heap);
        }
    }
    model_check(&m, limit);
    while (m.length > 0)
        model_delete_at(&m, check_random_below(3) == 0 ? 0 : check_random_below(m.length));
    model_check(&m, limit);
    CHECK_EQ(containers_allocated(heap), before);
    model_close(&m);
}

typedef enum { RISING, FALLING, INWARDS } direction;

/* In order, and out again from one end. */
static void test_in_order(dh_heap *heap, key_kind kind, uint64_t count, direction way)
{
    model m;
    model_open(&m, heap, kind);
    uint64_t before = containers_allocated(heap);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t k = way == RISING    ? i
                     : way == FALLING ? count - 1 - i
                                      : (i % 2 == 0 ? i : 2 * count - i);
        CHECK_EQ(model_set(&m, k), 0);
    }
    model_check(&m, 2 * count);
    containers_verify(heap);
    while (m.length > count / 3)
        model_delete_at(&m, way == FALLING ? m.length - 1 : 0);
    model_check(&m, 2 * count);
    containers_verify(heap);
    CHECK_EQ(dh_sorted_clear(heap, m.sorted), 0);
    CHECK_EQ(containers_allocated(heap), before);
    m.length = 0;
    CHECK_EQ(model_set(&m, 7), 0);
    model_check(&m, 2 * count);
    model_close(&m);
}

static int load(model *m, uint64_t count)
{
    dh_word *pairs = malloc((2 * count + 1) * sizeof *pairs);
    CHECK(pairs != NULL);
    for (uint64_t k = 0; k < count; k++) {
        CHECK_EQ(key_word(m->heap, m->kind, k, &pairs[2 * k]), 0);
        CHECK_EQ(value_word(m->heap, k, &pairs[2 * k + 1]), 0);
        m->numbers[k] = k;
    }
    int rc = dh_sorted_load(m->heap, m->sorted, pairs, count);
    if (rc == 0)
        m->length = count;
    for (uint64_t i = 0; rc != 0 && i < 2 * count; i++)
        dh_value_drop(m->heap, pairs[i]);
    free(pairs);
    return rc;
}

static void test_load(dh_heap *heap, key_kind kind, uint64_t count)
{
    model m;
    model_open(&m, heap, kind);
    CHECK_EQ(load(&m, count), 0);
    model_check(&m, count + 10);
    containers_verify(heap);
    for (unsigned i = 0; i < 300; i++) {
        CHECK_EQ(model_set(&m, check_random_below(count + 100)), 0);
        model_delete(&m, check_random_below(count + 100));
    }
    model_check(&m, count + 10);
    containers_verify(heap);
    model_close(&m);
}

static void test_load_refuses(dh_heap *heap)
{
    model m;
    model_open(&m, heap, INTS);
    uint64_t before = containers_allocated(heap);
    dh_word falling[4] = {dh_int(2), DH_NONE, dh_int(1), DH_NONE};
    dh_word twice[4] = {dh_int(1), DH_NONE, DH_TRUE, DH_NONE};
    dh_word mixed[4] = {dh_int(1), DH_NONE, dh_short((const uint8_t *)"a", 1, false), DH_NONE};
    CHECK_EQ(dh_sorted_load(heap, m.sorted, falling, 2), DH_E_UNORDERED);
    CHECK_EQ(dh_sorted_load(heap, m.sorted, twice, 2), DH_E_UNORDERED);
    CHECK_EQ(dh_sorted_load(heap, m.sorted, mixed, 2), DH_E_UNORDERED);
    CHECK_EQ(containers_allocated(heap), before);
    CHECK_EQ(dh_sorted_load(heap, m.sorted, falling + 2, 1), 0);
    CHECK(dh_sorted_load(heap, m.sorted, falling, 1) != 0);
    model_close(&m);
}

static void check_refused(model *m, dh_word word)
{
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer;
    dh_word value;
    uint64_t rank, length;
    bool flag;
    dh_key key;
    CHECK_EQ(dh_key_from_word(m->heap, word, scratch, &key, &buffer), 0);
    CHECK_EQ(dh_sorted_set(m->heap, m->sorted, &key, word, DH_NONE, &flag), DH_E_UNORDERED);
    CHECK_EQ(dh_sorted_get(m->heap, m->sorted, &key, &value), DH_E_UNORDERED);
    CHECK_EQ(dh_sorted_delete(m->heap, m->sorted, &key, NULL), DH_E_UNORDERED);
    CHECK_EQ(dh_sorted_rank(m->heap, m->sorted, &key, true, &rank, &flag), DH_E_UNORDERED);
    CHECK_EQ(dh_sorted_length(m->heap, m->sorted, &length), 0);
    CHECK_EQ(length, m->length);
    free(buffer);
}

/* A key that cannot be compared is refused wherever it would stand. */
static void test_unordered(dh_heap *heap, uint64_t count)
{
    static const key_kind kinds[] = {INTS, TEXTS, BYTES};
    for (size_t i = 0; i < 3; i++) {
        model m;
        model_open(&m, heap, kinds[i]);
        for (uint64_t k = 0; k < count; k++)
            CHECK_EQ(model_set(&m, k), 0);
        for (size_t j = 0; j < 3; j++) {
            dh_word word;
            CHECK_EQ(key_word(heap, kinds[j], check_random_below(count), &word), 0);
            if (i != j)
                check_refused(&m, word);
            dh_value_drop(heap, word);
        }
        check_refused(&m, DH_NONE);
        model_close(&m);
    }
}

/* Tuples (0, 0) .. (0, n), (1, "a"), (2, 0) ..: (1, 5) has no place, wherever leaves begin, while
 * (1, "a") is there, and one afterwards. */
static void test_unordered_tuples(dh_heap *heap, uint64_t before_count)
{
    model m;
    dh_word words[2], word, text;
    model_open(&m, heap, TUPLES);
    for (uint64_t k = 0; k < before_count + 300; k++) {
        bool was_new;
        held_key held;
        words[0] = dh_int(k < before_count ? 0 : k == before_count ? 1 : 2);
        words[1] =
            k == before_count ? dh_short((const uint8_t *)"a", 1, false) : dh_int((int64_t)k);
        CHECK_EQ(dh_tuple_new(heap, words, 2, &held.word), 0);
        CHECK_EQ(dh_key_from_word(heap, held.word, held.scratch, &held.key, &held.buffer), 0);
        CHECK_EQ(dh_sorted_set(heap, m.sorted, &held.key, held.word, DH_NONE, &was_new), 0);
        free(held.buffer);
    }
    m.length = before_count + 300;
    words[0] = dh_int(1);
    words[1] = dh_int(5);
    CHECK_EQ(dh_tuple_new(heap, words, 2, &word), 0);
    check_refused(&m, word);
    words[1] = dh_short((const uint8_t *)"a", 1, true);
    CHECK_EQ(dh_tuple_new(heap, words, 2, &text), 0);
    check_refused(&m, text);
    dh_value_drop(heap, text);
    CHECK_EQ(dh_sorted_delete_at(heap, m.sorted, before_count), 0);
    held_key held = {.word = word};
    bool was_new;
    CHECK_EQ(dh_key_from_word(heap, word, held.scratch, &held.key, &held.buffer), 0);
    CHECK_EQ(dh_sorted_set(heap, m.sorted, &held.key, word, DH_NONE, &was_new), 0);
    free(held.buffer);
    CHECK_EQ(dh_sorted_check(heap, m.sorted), 0);
    model_close(&m);
}

/* Every allocation of an operation fails once: nothing changes. */
static void test_no_memory(dh_heap *heap, key_kind kind, uint64_t count, uint64_t k)
{
    for (uint64_t n = 0;; n++) {
        model m;
        model_open(&m, heap, kind);
        for (uint64_t i = 0; i < count; i++)
            CHECK_EQ(model_set(&m, 2 * i), 0);
        CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
        int rc = model_set(&m, k);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        model_check(&m, 2 * count + 1);
        containers_verify(heap);
        /* Deleting works without memory. */
        CHECK_EQ(dh_fault_set("alloc.cell", 0, DH_E_FULL), 0);
        while (m.length > 0)
            model_delete_at(&m, m.length / 2);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        containers_verify(heap);
        model_close(&m);
        if (rc == 0)
            return;
        CHECK_EQ(rc, DH_E_FULL);
    }
}

static void test_load_no_memory(dh_heap *heap, uint64_t count)
{
    model m;
    model_open(&m, heap, INTS);
    uint64_t before = containers_allocated(heap);
    dh_word *pairs = malloc(2 * count * sizeof *pairs);
    CHECK(pairs != NULL);
    for (uint64_t k = 0; k < count; k++) {
        CHECK_EQ(key_word(heap, INTS, k, &pairs[2 * k]), 0);
        pairs[2 * k + 1] = DH_NONE;
    }
    for (uint64_t n = 0, rc = 1; rc != 0; n++) {
        CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
        rc = (uint64_t)dh_sorted_load(heap, m.sorted, pairs, count);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        if (rc != 0)
            CHECK_EQ(containers_allocated(heap), before);
        containers_verify(heap);
    }
    free(pairs);
    model_close(&m);
}

/* --- damage ----------------------------------------------------------------------------------- */

static void damage_words(dh_heap *heap, unsigned count)
{
    uint64_t words = heap->arena.hwm_pages * DH_PAGE_WORDS;
    dh_word *arena = (dh_word *)(void *)heap->arena.base;
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = check_random_below(words), target = check_random_below(words * 8);
        switch (check_random_below(4)) {
        case 0:
            arena[at] ^= (uint64_t)1 << check_random_below(64);
            break;
        case 1:
            arena[at] = dh_ref(check_random_below(2) == 0 ? DH_T_SORTED_LEAF : DH_T_SORTED_NODE,
                               target & ~(uint64_t)15);
            break;
        case 2:
            arena[at] = dh_ref(check_random_below(2) == 0 ? DH_T_SORTED_LEAF : DH_T_SORTED_NODE,
                               target & ~(uint64_t)(DH_PAGE_BYTES - 1));
            break;
        default:
            arena[at] = dh_int((int64_t)check_random_below(300));
        }
    }
}

static void use_damaged(model *m, uint64_t limit)
{
    dh_heap *heap = m->heap;
    dh_sorted_span span;
    uint64_t number;
    bool flag;
    dh_word value;
    for (unsigned i = 0; i < 60; i++) {
        uint8_t text[32];
        dh_key key;
        uint64_t k = check_random_below(limit);
        if (m->kind == INTS) {
            dh_key_from_int(heap, (int64_t)k * 3 - 1000, &key);
        } else {
            size_t size = (size_t)snprintf((char *)text, sizeof text, "%06llx%s",
                                           (unsigned long long)(k / 2), k % 2 ? " and a tail" : "");
            dh_key_from_str(heap, text, size, &key);
        }
        (void)!dh_sorted_get(heap, m->sorted, &key, &value);
        (void)!dh_sorted_rank(heap, m->sorted, &key, false, &number, &flag);
        (void)!dh_sorted_span_at(heap, m->sorted, k, &span);
        (void)!dh_sorted_set(heap, m->sorted, &key, key.word, dh_int(1), &flag);
        if (i % 2 == 0)
            (void)!dh_sorted_delete(heap, m->sorted, &key, NULL);
        else
            (void)!dh_sorted_delete_at(heap, m->sorted, k);
    }
    (void)!dh_sorted_length(heap, m->sorted, &number);
    (void)!dh_sorted_check(heap, m->sorted);
    (void)!dh_sorted_clear(heap, m->sorted);
}

static void test_damage(key_kind kind, uint64_t length, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        model m;
        dh_heap *heap = containers_heap(16u << 20);
        model_open(&m, heap, kind);
        for (uint64_t k = 0; k < length; k++)
            CHECK_EQ(model_set(&m, kind == INTS ? k * 7 % length : k), 0);
        dh_word *head = dh_deref(heap, m.sorted, DH_T_SORTED, DH_HEAD_BYTES);
        if (round % 2 == 0)
            head[check_random_below(4)] ^= (uint64_t)1 << check_random_below(64);
        else
            damage_words(heap, round % 3 == 0 ? 20 : 400);
        if (round % 4 < 2)
            containers_fence(heap);
        use_damaged(&m, length);
        containers_unfence();
        free(m.numbers);
        dh_heap_close(heap);
    }
}

/* What a bit flip in the tree makes wrong is found. */
static void test_check_looks_inside(key_kind kind, uint64_t length)
{
    model m;
    dh_heap *heap = containers_heap(16u << 20);
    model_open(&m, heap, kind);
    for (uint64_t k = 0; k < length; k++)
        CHECK_EQ(model_set(&m, k), 0);
    CHECK_EQ(dh_sorted_check(heap, m.sorted), 0);
    for (unsigned i = 0; i < 200; i++) {
        dh_sorted_span span;
        uint64_t at = check_random_below(length), cells, problems;
        CHECK_EQ(dh_sorted_span_at(heap, m.sorted, at, &span), 0);
        dh_word *slot = (dh_word *)(uintptr_t)&span.keys[at - span.first], was = *slot;
        static const dh_word wrong[] = {DH_EMPTY, DH_DELETED, DH_CONST(9), DH_NONE, 14 /* meta */};
        *slot = i % 6 < 5 ? wrong[i % 6] : dh_ref(DH_T_SORTED, 4096);
        CHECK_EQ(dh_sorted_check(heap, m.sorted), DH_E_CORRUPT);
        CHECK_EQ(dh_check(heap, &cells, &problems), 0);
        CHECK(problems >= 1);
        *slot = was;
        if (at > 0 && at > span.first) { /* two keys in the wrong order */
            slot[0] = slot[-1];
            slot[-1] = was;
            CHECK_EQ(dh_sorted_check(heap, m.sorted), DH_E_CORRUPT);
            slot[-1] = slot[0];
            slot[0] = was;
        }
        CHECK_EQ(dh_sorted_check(heap, m.sorted), 0);
    }
    dh_word *head = dh_deref(heap, m.sorted, DH_T_SORTED, DH_HEAD_BYTES), was;
    dh_word *node = dh_deref(heap, head[2], DH_T_SORTED_NODE, DH_PAGE_BYTES);
    CHECK(node != NULL);
    for (unsigned at = 0; at < DH_PAGE_WORDS; at++) {
        was = node[at];
        node[at] = was == dh_int(3) ? dh_int(5) : dh_int(3);
        CHECK_EQ(dh_sorted_check(heap, m.sorted), DH_E_CORRUPT);
        node[at] = was;
    }
    CHECK_EQ(dh_sorted_check(heap, m.sorted), 0);
    for (unsigned at = 1; at < 3; at++) { /* length and root */
        was = head[at];
        head[at] = was + 2;
        CHECK_EQ(dh_sorted_check(heap, m.sorted), DH_E_CORRUPT);
        head[at] = was;
    }
    free(m.numbers);
    dh_heap_close(heap);
}

/* A node that leads to itself is walked to no end. */
static void test_ring(uint64_t length)
{
    model m;
    dh_heap *heap = containers_heap(16u << 20);
    model_open(&m, heap, INTS);
    for (uint64_t k = 0; k < length; k++)
        CHECK_EQ(model_set(&m, k), 0);
    dh_word *head = dh_deref(heap, m.sorted, DH_T_SORTED, DH_HEAD_BYTES);
    head[0] = dh_meta(dh_meta_serial(head[0]), 16);
    dh_word *node = dh_deref(heap, head[2], DH_T_SORTED_NODE, DH_PAGE_BYTES);
    CHECK(node != NULL);
    for (unsigned i = 0; i < 2; i++)
        node[2 + i] = head[2];
    CHECK_EQ(dh_sorted_check(heap, m.sorted), DH_E_CORRUPT);
    use_damaged(&m, length);
    free(m.numbers);
    dh_heap_close(heap);
}

#ifndef SORTED_TINY /* tiny nodes are spread over many pages */
/* --- pages ------------------------------------------------------------------------------------ */

/* Pages of the arena that an operation wrote, by comparing with a copy. */
static uint64_t pages_written(const dh_heap *heap, uint8_t *copy, uint64_t pages_count)
{
    uint64_t count = 0;
    for (uint64_t p = 0; p < pages_count; p++) {
        const uint8_t *page = dh_arena_page(&heap->arena, (dh_pgno)p);
        if (memcmp(page, copy + p * DH_PAGE_BYTES, DH_PAGE_BYTES) != 0) {
            memcpy(copy + p * DH_PAGE_BYTES, page, DH_PAGE_BYTES);
            count++;
        }
    }
    return count;
}

static void test_few_pages(dh_heap *heap)
{
    model m;
    uint64_t worst = 0, total = 0, counted = 0;
    model_open(&m, heap, INTS);
    CHECK_EQ(load(&m, 100000), 0);
    uint64_t pages_count = heap->arena.hwm_pages + 1000;
    uint8_t *copy = calloc(pages_count, DH_PAGE_BYTES);
    CHECK(copy != NULL);
    (void)pages_written(heap, copy, pages_count);
    for (unsigned i = 0; i < 2000 / SCALE; i++, counted++) {
        if (i % 2 == 0)
            CHECK_EQ(model_set(&m, 200000 + check_random_below(1000000)), 0);
        else
            model_delete_at(&m, check_random_below(m.length));
        uint64_t written = pages_written(heap, copy, pages_count);
        worst = written > worst ? written : worst;
        total += written;
    }
    CHECK(heap->arena.hwm_pages < pages_count);
    CHECK(worst <= 12);
    CHECK(total <= counted * 5);
    free(copy);
    model_close(&m);
}

#endif

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap((uint64_t)1 << 29);
    for (key_kind kind = 0; kind < KINDS_COUNT; kind++) {
        test_random(heap, kind, 20, 2000 / SCALE);
        test_random(heap, kind, 600, 6000 / SCALE);
        test_random(heap, kind, 200000, 40000 / SCALE);
        test_in_order(heap, kind, 3000 / SCALE, RISING);
        test_in_order(heap, kind, 3000 / SCALE, FALLING);
        test_in_order(heap, kind, 3000 / SCALE, INWARDS);
        test_load(heap, kind, 1);
        test_load(heap, kind, 255);
        test_load(heap, kind, 256);
        test_load(heap, kind, 60000 / SCALE);
        test_no_memory(heap, kind, 0, 5);
        test_no_memory(heap, kind, 4, 5);
        test_no_memory(heap, kind, 256, 255);
        test_no_memory(heap, kind, 2000 / SCALE, 701);
    }
    test_load_refuses(heap);
    test_load_no_memory(heap, 3000);
    test_unordered(heap, 3);
    test_unordered(heap, 2000);
    for (uint64_t n = 250; n < 260; n++)
        test_unordered_tuples(heap, n);
#ifndef SORTED_TINY
    test_few_pages(heap);
#endif
    dh_heap_close(heap);
    test_check_looks_inside(INTS, 3000);
    test_check_looks_inside(TEXTS, 3000);
    test_ring(3000);
    test_damage(INTS, 5, 100 / SCALE);
    test_damage(INTS, 3000, 300 / SCALE);
    test_damage(TEXTS, 3000, 300 / SCALE);
    return 0;
}
