/* test_record.c -- records against an array of numbers: stores, moves between classes, keys by
 * identity, memory, damage.
 */
#include "containers.h"
#include "record.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCALE 4u
#else
#define SCALE 1u
#endif
#define FIELDS_MAX 300u

typedef struct {
    dh_heap *heap;
    dh_word class_word;
    dh_word record;
    size_t count;
    int64_t numbers[FIELDS_MAX]; /* -1: EMPTY */
} model;

/* Fields of any class here that hold bools and nothing else. */
static bool is_bool(size_t index) { return index % 5 == 2; }

static int64_t random_number(size_t index)
{
    return (int64_t)check_random_below(is_bool(index) ? 2 : 1000);
}

/* Every third number is a string, so that lost and doubled cells show; those of bool fields are
 * bools. */
static dh_word number_word(dh_heap *heap, size_t index, int64_t n)
{
    char text[32];
    dh_word word;
    if (n < 0)
        return DH_EMPTY;
    if (is_bool(index))
        return n != 0 ? DH_TRUE : DH_FALSE;
    if (n % 3 != 0)
        return dh_int(n);
    int size = snprintf(text, sizeof text, "number %lld", (long long)n);
    CHECK_EQ(dh_str_new(heap, (const uint8_t *)text, (size_t)size, &word), 0);
    return word;
}

static void check_number(const dh_heap *heap, size_t index, dh_word word, int64_t n)
{
    char text[32];
    uint8_t scratch[8];
    dh_bytes_view view;
    if (n >= 0 && is_bool(index)) {
        CHECK_EQ(word, n != 0 ? DH_TRUE : DH_FALSE);
        return;
    }
    if (n < 0 || n % 3 != 0) {
        CHECK_EQ(word, n < 0 ? DH_EMPTY : dh_int(n));
        return;
    }
    int size = snprintf(text, sizeof text, "number %lld", (long long)n);
    CHECK_EQ(dh_text_read(heap, word, scratch, &view), 0);
    CHECK_EQ(view.size, size);
    CHECK(memcmp(view.data, text, view.size) == 0);
}

static size_t field_name(size_t index, uint8_t name[32])
{
    return (size_t)snprintf((char *)name, 32, "%s%zu", index % 2 == 0 ? "f" : "a long name ",
                            index);
}

static dh_word text_word(dh_heap *heap, const char *text)
{
    dh_word word;
    CHECK_EQ(dh_str_new(heap, (const uint8_t *)text, strlen(text), &word), 0);
    return word;
}

/* Fields first .. first + count - 1, of ints and strings, or bools. */
static dh_word class_of(dh_heap *heap, size_t first, size_t count)
{
    dh_word words[3 * FIELDS_MAX], name = text_word(heap, "a class of the test"), class_word;
    for (size_t i = 0; i < count; i++) {
        uint8_t text[32];
        size_t size = field_name(first + i, text);
        dh_word other = text_word(heap, "module.other");
        CHECK_EQ(dh_str_new(heap, text, size, &words[3 * i]), 0);
        words[3 * i + 1] = dh_int(is_bool(i) ? DH_KINDS_BOOL : DH_KINDS_INT | DH_KINDS_STR);
        words[3 * i + 2] = DH_NONE;
        if (i % 4 == 0)
            CHECK_EQ(dh_tuple_new(heap, &other, 1, &words[3 * i + 2]), 0);
        else
            dh_value_drop(heap, other);
    }
    CHECK_EQ(dh_class_new(heap, name, words, count, &class_word), 0);
    return class_word;
}

static void model_open(model *m, dh_heap *heap, size_t count)
{
    dh_word words[FIELDS_MAX];
    m->heap = heap;
    m->count = count;
    m->class_word = class_of(heap, 0, count);
    for (size_t i = 0; i < count; i++) {
        m->numbers[i] = random_number(i);
        words[i] = number_word(heap, i, m->numbers[i]);
    }
    CHECK_EQ(dh_record_new(heap, m->class_word, words, count, &m->record), 0);
    containers_root(heap, m->record);
}

static void model_check(const model *m)
{
    dh_record_view view;
    dh_class_view class;
    dh_word word;
    CHECK_EQ(dh_record_open(m->heap, m->record, &view), 0);
    CHECK_EQ(view.class_word, m->class_word);
    CHECK_EQ(dh_class_read(m->heap, view.class_word, &class), 0);
    for (size_t i = 0; i < m->count; i++) {
        CHECK(dh_record_load(&view, dh_record_place(&view, &class, i), &word));
        check_number(m->heap, i, word, m->numbers[i]);
    }
    CHECK_EQ(dh_record_check(m->heap, m->record), 0);
}

static void model_set(model *m, size_t index)
{
    int64_t n = random_number(index);
    dh_word word = number_word(m->heap, index, n);
    CHECK_EQ(dh_record_set(m->heap, m->record, index, word), 0);
    m->numbers[index] = n;
}

/* To a class of other size whose fields are a random choice of these. */
static int model_move(model *m, size_t count)
{
    int16_t from[FIELDS_MAX];
    int64_t numbers[FIELDS_MAX];
    size_t next = 0;
    dh_word class_word = class_of(m->heap, 1000, count);
    for (size_t i = 0; i < count; i++) {
        bool is_kept = next < m->count && check_random_below(3) != 0;
        next += is_kept ? check_random_below(2) : 0;
        is_kept = is_kept && next < m->count && is_bool(i) == is_bool(next);
        from[i] = is_kept ? (int16_t)next : -1;
        numbers[i] = is_kept ? m->numbers[next] : -1;
        next += is_kept;
    }
    int rc = dh_record_move(m->heap, m->record, class_word, from, count);
    if (rc == 0) {
        m->class_word = class_word;
        m->count = count;
        memcpy(m->numbers, numbers, sizeof numbers);
    }
    return rc;
}

static void collect(dh_heap *heap)
{
    dh_collect_stats stats;
    CHECK_EQ(dh_collect(heap, &stats), 0);
}

/* Sizes from nothing to several pages, for the head and for the second cell. */
static void test_moves(dh_heap *heap, unsigned rounds)
{
    static const size_t sizes[] = {0, 1, 2, 3, 6, 30, 253, 254, 255, 256, 280};
    for (unsigned round = 0; round < rounds; round++) {
        model m;
        model_open(&m, heap, sizes[check_random_below(11)]);
        for (unsigned i = 0; i < 40; i++) {
            if (m.count > 0)
                model_set(&m, check_random_below(m.count));
            if (check_random_below(6) == 0)
                CHECK_EQ(model_move(&m, sizes[check_random_below(11)]), 0);
            model_check(&m);
        }
        collect(heap); /* the classes it had before */
        containers_verify(heap);
        CHECK_EQ(dh_record_set(heap, m.record, m.count, DH_NONE), DH_E_ABSENT);
        uint64_t with_values = containers_allocated(heap);
        for (size_t i = 0; i < m.count; i++)
            CHECK_EQ(dh_record_set(heap, m.record, i, is_bool(i) ? DH_TRUE : dh_int(1)), 0);
        CHECK(containers_allocated(heap) <= with_values);
        containers_verify(heap); /* strings went with their slots, nothing is left to collect */
    }
}

static void test_classes(dh_heap *heap)
{
    uint8_t name[32];
    dh_class_view view;
    dh_word class_word = class_of(heap, 0, 100), words[3] = {DH_NONE, DH_NONE, DH_NONE};
    CHECK_EQ(dh_class_read(heap, class_word, &view), 0);
    CHECK_EQ(view.count, 100);
    CHECK(dh_class_is(heap, class_word, view.serial));
    CHECK(!dh_class_is(heap, class_word, view.serial + 1));
    CHECK(!dh_class_is(heap, 0, 0));
    for (size_t i = 0; i < 102; i++) {
        int found = dh_class_find(heap, &view, name, field_name(i, name));
        CHECK_EQ(found, i < 100 ? (int)i : DH_E_ABSENT);
    }
    CHECK_EQ(dh_class_kinds(&view, 5), DH_KINDS_INT | DH_KINDS_STR);
    CHECK_EQ(dh_class_kinds(&view, 7), DH_KINDS_BOOL);
    CHECK_EQ(dh_class_new(heap, DH_NONE, words, DH_RECORD_FIELDS_MAX + 1, &class_word), DH_E_LIMIT);
}

/* --- numbers ---------------------------------------------------------------------------------- */

static dh_word bare_record(dh_heap *heap, dh_word class_word, size_t count)
{
    dh_word words[FIELDS_MAX], record;
    for (size_t i = 0; i < count; i++)
        words[i] = is_bool(i) ? DH_TRUE : dh_int((int64_t)i);
    CHECK_EQ(dh_record_new(heap, class_word, words, count, &record), 0);
    return record;
}

static uint64_t class_serial(const dh_heap *heap, dh_word class_word)
{
    dh_class_view view;
    CHECK_EQ(dh_class_read(heap, class_word, &view), 0);
    return view.serial;
}

/* 255 classes keep their numbers whatever is collected; later ones do without, and may go. */
static void test_numbers_run_out(void)
{
    dh_heap *heap = containers_heap(4u << 20);
    dh_record_view view;
    dh_word classes[DH_RECORD_NUMBER_MAX + 1];
    CHECK_EQ(dh_class_numbers_count(heap), 0);
    for (unsigned i = 0; i <= DH_RECORD_NUMBER_MAX; i++) {
        classes[i] = class_of(heap, i, 6);
        CHECK_EQ(dh_record_open(heap, bare_record(heap, classes[i], 6), &view), 0);
        CHECK_EQ(view.class_word, classes[i]);
        CHECK_EQ(view.number, i < DH_RECORD_NUMBER_MAX ? i + 1 : 0);
        CHECK_EQ(view.head[1], view.number != 0 ? dh_int(0) : classes[i]);
    }
    uint64_t last_serial = class_serial(heap, classes[DH_RECORD_NUMBER_MAX]);
    collect(heap);
    CHECK_EQ(dh_class_numbers_count(heap), DH_RECORD_NUMBER_MAX);
    for (unsigned i = 0; i < DH_RECORD_NUMBER_MAX; i++) {
        CHECK_EQ(dh_class_numbered(heap, i + 1), classes[i]);
        CHECK_EQ(dh_class_check(heap, classes[i]), 0);
    }
    CHECK_EQ(dh_class_numbered(heap, 0), DH_EMPTY);
    CHECK_EQ(dh_class_numbered(heap, DH_RECORD_NUMBER_MAX + 1), DH_EMPTY);
    CHECK(!dh_class_is(heap, classes[DH_RECORD_NUMBER_MAX], last_serial));
    containers_verify(heap);
    dh_heap_close(heap);
}

/* A heap whose root has no room for the table, and one that has no memory for it. */
static void test_no_numbers(void)
{
    dh_heap *heap = containers_heap(4u << 20);
    dh_record_view view;
    CHECK_EQ(dh_fault_set("alloc.cell", 0, DH_E_FULL), 0);
    dh_word class_word, name = dh_short((const uint8_t *)"a", 1, false);
    int rc = dh_class_new(heap, name, NULL, 0, &class_word);
    containers_unfence();
    CHECK_EQ(rc, DH_E_FULL);
    CHECK_EQ(dh_fault_set("alloc.cell", 1, DH_E_FULL), 0);
    rc = dh_class_new(heap, name, NULL, 0, &class_word);
    containers_unfence();
    CHECK_EQ(rc, 0);
    CHECK_EQ(dh_class_numbers_count(heap), 0);
    CHECK_EQ(dh_class_check(heap, class_word), 0);
    CHECK_EQ(dh_dict_new(heap, &heap->root), 0);
    class_word = class_of(heap, 0, 9);
    dh_word record = bare_record(heap, class_word, 9);
    containers_root(heap, record);
    CHECK_EQ(dh_record_open(heap, record, &view), 0);
    CHECK_EQ(view.number, 0);
    CHECK_EQ(view.class_word, class_word);
    CHECK_EQ(dh_record_check(heap, record), 0);
    containers_verify(heap);
    dh_heap_close(heap);
}

/* Bits beside each other, more bools than bits, and a bool that was never stored. */
static void test_bits(dh_heap *heap)
{
    enum { COUNT = 60 };
    dh_record_view view;
    dh_class_view class;
    dh_word words[COUNT], word, record, class_word = class_of(heap, 0, COUNT);
    bool flags[COUNT];
    CHECK_EQ(dh_class_read(heap, class_word, &class), 0);
    CHECK(class.number != 0);
    record = bare_record(heap, class_word, COUNT);
    containers_root(heap, record);
    CHECK_EQ(dh_record_open(heap, record, &view), 0);
    CHECK_EQ(view.number, class.number);
    CHECK_EQ(dh_cell_bytes(heap, dh_ref_off(record)),
             dh_cell_round((1 + COUNT - DH_RECORD_BITS_MAX) * sizeof *words));
    uint64_t serial = dh_meta_serial(view.head[0]);
    memset(flags, true, sizeof flags);
    for (unsigned round = 0; round < 2000; round++) {
        size_t index = 5 * check_random_below(COUNT / 5) + 2;
        flags[index] = check_random_below(2) != 0;
        CHECK_EQ(dh_record_set(heap, record, index, flags[index] ? DH_TRUE : DH_FALSE), 0);
        CHECK_EQ(dh_record_check(heap, record), 0);
        CHECK_EQ(dh_meta_serial(view.head[0]), serial);
        for (size_t i = 2; i < COUNT; i += 5) {
            CHECK(dh_record_load(&view, dh_class_place(&class, i), &word));
            CHECK_EQ(word, flags[i] ? DH_TRUE : DH_FALSE);
        }
    }
    dh_word meta = view.head[0];
    CHECK_EQ(dh_record_set(heap, record, 2, DH_EMPTY), DH_E_CORRUPT);
    CHECK_EQ(dh_record_set(heap, record, 2, dh_int(1)), DH_E_CORRUPT);
    CHECK_EQ(view.head[0], meta);
    for (size_t i = 0; i < COUNT; i++)
        words[i] = DH_EMPTY;
    CHECK_EQ(dh_record_new(heap, class_word, words, COUNT, &record), 0);
    containers_root(heap, record);
    CHECK_EQ(dh_record_open(heap, record, &view), 0);
    CHECK_EQ(view.number, 0);
    CHECK_EQ(view.class_word, class_word);
    CHECK_EQ(dh_record_check(heap, record), 0);
    containers_verify(heap);
}

static void test_kinds(dh_heap *heap)
{
    dh_word word;
    CHECK_EQ(dh_kind_of(dh_int(5)), DH_KINDS_INT);
    CHECK_EQ(dh_kind_of(DH_NONE), DH_KINDS_NONE);
    CHECK_EQ(dh_kind_of(DH_TRUE), DH_KINDS_BOOL);
    CHECK_EQ(dh_kind_of(DH_ZERO_FLOAT), DH_KINDS_FLOAT);
    CHECK_EQ(dh_kind_of(dh_short((const uint8_t *)"ab", 2, true)), DH_KINDS_BYTES);
    CHECK_EQ(dh_kind_of(dh_short((const uint8_t *)"ab", 2, false)), DH_KINDS_STR);
    CHECK_EQ(dh_kind_of(DH_EMPTY), 0);
    CHECK_EQ(dh_kind_of(DH_DELETED), 0);
    CHECK_EQ(dh_kind_of(dh_ref(DH_T_CLASS, 4096)), 0);
    CHECK_EQ(dh_float_new(heap, -0.0, &word), 0);
    CHECK_EQ(dh_kind_of(word), DH_KINDS_FLOAT);
    CHECK_EQ(dh_kinds_held(DH_KINDS_FLOAT), DH_KINDS_FLOAT | DH_KINDS_INT | DH_KINDS_BOOL);
    CHECK_EQ(dh_kinds_held(DH_KINDS_STR), DH_KINDS_STR);
    dh_value_drop(heap, word);
}

/* Two records with the same fields are two keys, in tuples too. */
static void test_keys(dh_heap *heap)
{
    enum { RECORDS = 500 };
    dh_word dict, records[RECORDS], class_word = class_of(heap, 0, 1), value = dh_int(1), found;
    bool was_new;
    dh_key key, copy;
    uint8_t scratch[DH_KEY_SCRATCH_BYTES], *buffer, element[32];
    CHECK_EQ(dh_dict_new(heap, &dict), 0);
    for (int i = 0; i < RECORDS; i++) {
        CHECK_EQ(dh_record_new(heap, class_word, &value, 1, &records[i]), 0);
        CHECK_EQ(dh_key_from_record(heap, records[i], &key), 0);
        CHECK_EQ(dh_dict_set(heap, dict, &key, records[i], dh_int(i), &was_new), 0);
        CHECK(was_new);
    }
    containers_root(heap, dict);
    for (int i = 0; i < RECORDS; i++) {
        CHECK_EQ(dh_key_from_word(heap, records[i], scratch, &key, &buffer), 0);
        CHECK(buffer == NULL);
        CHECK_EQ(dh_dict_get(heap, dict, &key, &found), 0);
        CHECK_EQ(found, dh_int(i));
        CHECK_EQ(dh_key_matches(heap, &key, records[(i + 1) % RECORDS]), 0);
        CHECK_EQ(dh_key_matches(heap, &key, dh_int(key.number)), 0);
    }
    dh_word tuple, other_tuple;
    CHECK_EQ(dh_tuple_new(heap, &records[3], 1, &tuple), 0);
    CHECK_EQ(dh_tuple_new(heap, &records[4], 1, &other_tuple), 0);
    CHECK_EQ(dh_key_from_record(heap, records[3], &key), 0);
    dh_key_from_tuple(heap, element, dh_key_encode(&key, element, sizeof element), &copy);
    CHECK_EQ(dh_key_matches(heap, &copy, tuple), 1);
    CHECK_EQ(dh_key_matches(heap, &copy, other_tuple), 0);
    CHECK_EQ(dh_key_from_word(heap, tuple, scratch, &key, &buffer), 0);
    CHECK_EQ(key.hash, copy.hash);
    free(buffer);
    dh_value_drop(heap, tuple);
    dh_value_drop(heap, other_tuple);
    containers_verify(heap);
}

static void test_no_memory(dh_heap *heap)
{
    model m;
    model_open(&m, heap, 20);
    for (unsigned n = 0;; n++) {
        int16_t from[5] = {3, 4, -1, 5, 19};
        dh_word class_word = class_of(heap, 0, 5);
        CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
        int rc = dh_record_move(heap, m.record, class_word, from, 5);
        containers_unfence();
        if (rc == 0)
            break;
        CHECK_EQ(rc, DH_E_FULL);
        model_check(&m);
    }
    collect(heap);
    containers_verify(heap);
    CHECK_EQ(dh_record_check(heap, m.record), 0);
}

/* --- damage ----------------------------------------------------------------------------------- */

static void damage_words(dh_heap *heap, unsigned count)
{
    static const dh_type types[] = {DH_T_CLASS, DH_T_FIELDS, DH_T_RECORD,
                                    DH_T_STR,   DH_T_TUPLE,  DH_T_CLASSES};
    uint64_t words = heap->arena.hwm_pages * DH_PAGE_WORDS;
    dh_word *arena = (dh_word *)(void *)heap->arena.base;
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = check_random_below(words);
        if (check_random_below(2) == 0)
            arena[at] ^= (uint64_t)1 << check_random_below(64);
        else
            arena[at] =
                dh_ref(types[check_random_below(6)], check_random_below(words * 8) & ~(uint64_t)15);
    }
}

/* Everything a program does with a record that it did not make. */
static void use(dh_heap *heap, dh_word record)
{
    dh_record_view view;
    dh_class_view class;
    dh_key key;
    uint8_t name[32], scratch[8];
    dh_bytes_view text;
    int16_t from[6] = {0, 1, 5, -1, 200, 2};
    (void)!dh_key_from_record(heap, record, &key);
    if (dh_record_open(heap, record, &view) != 0 ||
        dh_class_read(heap, view.class_word, &class) != 0)
        return;
    (void)!dh_text_read(heap, class.name, scratch, &text);
    (void)!dh_class_check(heap, view.class_word);
    for (size_t i = 0; i < 8; i++)
        (void)dh_class_find(heap, &class, name, field_name(i, name));
    for (size_t i = 0; i < class.count; i++)
        (void)dh_class_kinds(&class, i);
    for (size_t i = 0; i < view.room; i++)
        (void)dh_kind_of(view.fields[i]);
    for (size_t i = 0; i < class.count; i++) {
        dh_word word;
        int place = dh_record_place(&view, &class, i);
        if (dh_record_load(&view, place, &word) && !dh_is_ref(word))
            (void)!dh_record_store(&view, place, DH_FALSE);
    }
    for (unsigned i = 0; i < 4; i++)
        (void)dh_class_numbered(heap, (unsigned)check_random_below(300));
    (void)!dh_record_set(heap, record, check_random_below(300), dh_int(1));
    (void)!dh_record_move(heap, record, view.class_word, from, 6);
    (void)!dh_record_set(heap, record, check_random_below(6), dh_int(1));
}

static void test_damage(size_t count, bool is_moved, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        model m;
        uint64_t cells, problems;
        dh_heap *heap = containers_heap(4u << 20);
        model_open(&m, heap, count);
        if (is_moved)
            CHECK_EQ(model_move(&m, count), 0);
        dh_record_view view;
        CHECK_EQ(dh_record_open(heap, m.record, &view), 0);
        dh_word *class_cell = dh_at(heap, dh_ref_off(view.class_word));
        dh_word *classes = dh_at(heap, dh_ref_off(*dh_dict_root_word(heap, DH_ROOT_CLASSES)));
        if (round % 7 == 6)
            classes[check_random_below(3)] ^= (uint64_t)1 << check_random_below(64);
        else if (round % 3 == 0)
            view.head[check_random_below(4)] ^= (uint64_t)1 << check_random_below(64);
        else if (round % 3 == 1)
            class_cell[check_random_below(6)] ^= (uint64_t)1 << check_random_below(64);
        else
            damage_words(heap, 100);
        if (round % 4 < 2)
            containers_fence(heap);
        (void)!dh_record_check(heap, m.record);
        (void)!dh_check(heap, &cells, &problems);
        for (unsigned i = 0; i < 10; i++)
            use(heap, m.record);
        (void)!dh_check(heap, &cells, &problems);
        containers_unfence();
        dh_heap_close(heap);
    }
}

/* Each kind of damage to one word is found by the check. */
static void test_check_looks_inside(bool is_moved)
{
    static const dh_word wrong[] = {DH_DELETED, DH_CONST(9), 14 /* meta */, DH_TRUE,
                                    (dh_word)DH_T_LEAF << 3 | 256};
    model m;
    uint64_t cells, problems;
    dh_record_view view;
    dh_heap *heap = containers_heap(4u << 20);
    model_open(&m, heap, 7);
    if (is_moved)
        CHECK_EQ(model_move(&m, 7), 0);
    CHECK_EQ(dh_record_open(heap, m.record, &view), 0);
    dh_word *class_cell = dh_at(heap, dh_ref_off(view.class_word));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        size_t first = view.number != 0; /* a word for the head, a bit for the bool */
        dh_word *places[] = {&view.fields[first + i], &view.fields[7], &class_cell[3],
                             &class_cell[4],          &class_cell[5],  &view.head[3]};
        for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
            if (p == 5 && !is_moved)
                continue;
            dh_word was = *places[p];
            if (p == 1 && view.room == 7)
                continue;
            *places[p] = wrong[i];
            CHECK_EQ(dh_record_check(heap, m.record), DH_E_CORRUPT);
            CHECK_EQ(dh_check(heap, &cells, &problems), 0);
            CHECK(problems >= 1);
            *places[p] = was;
            CHECK_EQ(dh_record_check(heap, m.record), 0);
        }
    }
    dh_word count = class_cell[1];
    class_cell[1] = dh_int(20); /* more fields than the record has */
    CHECK_EQ(dh_record_check(heap, m.record), DH_E_CORRUPT);
    CHECK_EQ(dh_record_set(heap, m.record, 0, DH_NONE), DH_E_CORRUPT);
    class_cell[1] = count;
    dh_word meta = class_cell[0];
    class_cell[0] = dh_meta(heap->serial_next + 5, dh_meta_flags(meta));
    CHECK_EQ(dh_class_check(heap, m.class_word), DH_E_CORRUPT);
    class_cell[0] = meta;
    CHECK_EQ(dh_record_check(heap, m.record), 0);
    dh_heap_close(heap);
}

/* Numbers, bits and places that are wrong, one at a time. */
static void test_check_of_numbers(void)
{
    model m;
    uint64_t cells, problems;
    dh_record_view view;
    dh_heap *heap = containers_heap(4u << 20);
    model_open(&m, heap, 7);
    (void)class_of(heap, 0, 5);
    CHECK_EQ(dh_record_open(heap, m.record, &view), 0);
    CHECK_EQ(view.number, 1);
    dh_word *class_cell = dh_at(heap, dh_ref_off(view.class_word));
    dh_word *root_word = dh_dict_root_word(heap, DH_ROOT_CLASSES);
    dh_word *classes = dh_at(heap, dh_ref_off(*root_word));
    const dh_word number = (dh_word)1 << (DH_META_TAG_BITS + DH_RECORD_NUMBER_SHIFT);
    const dh_word bit = (dh_word)1 << (DH_META_TAG_BITS + DH_RECORD_BITS_SHIFT);
    struct {
        dh_word *at, word;
    } wrong[] = {
        {view.head, view.head[0] - number}, /* none: what follows is no class */
        {view.head, view.head[0] + number}, /* of another class */
        {view.head, view.head[0] + 2 * number},
        {view.head, view.head[0] + 254 * number},
        {view.head, view.head[0] ^ 2 * bit}, /* there is one bool */
        {view.head, view.head[0] | DH_RECORD_MOVED << DH_META_TAG_BITS},
        {root_word, DH_EMPTY},
        {root_word, view.class_word},
        {classes, dh_int(0)},
        {classes, dh_int(DH_RECORD_NUMBER_MAX + 1)},
        {classes, dh_int(-1)},
        {classes, DH_NONE},
        {&classes[1], classes[2]},
        {&classes[1], DH_EMPTY},
        {&classes[1], m.record},
        {class_cell, dh_meta(dh_meta_serial(class_cell[0]), 0)},
        {class_cell, dh_meta(dh_meta_serial(class_cell[0]), 2)},
        {&class_cell[4], dh_int(DH_KINDS_INT | DH_KINDS_STR)}, /* no place */
        {&class_cell[4], class_cell[7]},                       /* the next one's */
        {&class_cell[4], dh_int((int64_t)0x3fff << 20 | DH_KINDS_INT)},
        {&class_cell[4], dh_int((int64_t)0x4007 << 20 | DH_KINDS_INT)},
        {&class_cell[4], dh_int((int64_t)0xffff << 20 | DH_KINDS_INT)},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dh_word was = *wrong[i].at;
        *wrong[i].at = wrong[i].word;
        CHECK_EQ(dh_record_check(heap, m.record), DH_E_CORRUPT);
        CHECK_EQ(dh_check(heap, &cells, &problems), 0);
        CHECK(problems >= 1);
        *wrong[i].at = was;
        model_check(&m);
    }
    dh_word was = classes[5]; /* beyond the count */
    classes[5] = view.class_word;
    CHECK_EQ(dh_classes_check(heap, *root_word), DH_E_CORRUPT);
    classes[5] = was;
    containers_verify(heap);
    dh_heap_close(heap);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap((uint64_t)1 << 28);
    test_kinds(heap);
    test_bits(heap);
    test_classes(heap);
    test_moves(heap, 200 / SCALE);
    test_keys(heap);
    test_no_memory(heap);
    dh_heap_close(heap);
    test_numbers_run_out();
    test_no_numbers();
    test_check_of_numbers();
    test_check_looks_inside(false);
    test_check_looks_inside(true);
    test_damage(5, false, 400 / SCALE);
    test_damage(5, true, 400 / SCALE);
    test_damage(270, false, 200 / SCALE);
    test_damage(270, true, 200 / SCALE);
    return 0;
}
