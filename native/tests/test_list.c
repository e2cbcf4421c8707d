/* test_list.c -- List against an array of numbers: splices everywhere, ends, memory, damage. */
#include "containers.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCALE 4u
#else
#define SCALE 1u
#endif
#define ROOM_MAX 400000u

typedef struct {
    dh_heap *heap;
    dh_word list;
    int64_t *numbers;
    uint64_t length;
    dh_list_run run; /* kept across changes */
} model;

static void model_open(model *m, dh_heap *heap)
{
    m->heap = heap;
    m->length = 0;
    m->run = (dh_list_run){.count = 0};
    m->numbers = malloc(ROOM_MAX * sizeof *m->numbers);
    CHECK(m->numbers != NULL);
    CHECK_EQ(dh_list_new(heap, &m->list), 0);
    containers_root(heap, m->list);
}

static void model_close(model *m)
{
    CHECK_EQ(dh_list_clear(m->heap, m->list), 0);
    free(m->numbers);
}

/* Every third number is kept as a string, so that lost and doubled cells show. */
static int number_word(dh_heap *heap, int64_t n, dh_word *word_out)
{
    char text[32];
    if (n % 3 != 0) {
        *word_out = dh_int(n);
        return 0;
    }
    int size = snprintf(text, sizeof text, "number %lld", (long long)n);
    return dh_str_new(heap, (const uint8_t *)text, (size_t)size, word_out);
}

static void check_word(const dh_heap *heap, dh_word word, int64_t n)
{
    char text[32];
    dh_bytes_view view;
    if (n % 3 != 0) {
        CHECK_EQ(word, dh_int(n));
        return;
    }
    int size = snprintf(text, sizeof text, "number %lld", (long long)n);
    CHECK_EQ(dh_bytes_read(heap, word, &view), 0);
    CHECK_EQ(view.size, size);
    CHECK(memcmp(view.data, text, view.size) == 0);
}

static int model_splice(model *m, uint64_t start, uint64_t removed, uint64_t inserted)
{
    dh_word *words = malloc((inserted + 1) * sizeof *words);
    int64_t *numbers = malloc((inserted + 1) * sizeof *numbers);
    int rc = 0;
    uint64_t made = 0;
    CHECK(words != NULL && numbers != NULL && m->length - removed + inserted <= ROOM_MAX);
    for (; made < inserted && rc == 0; made += rc == 0) {
        numbers[made] = (int64_t)check_random_below((uint64_t)1 << 40);
        rc = number_word(m->heap, numbers[made], &words[made]);
    }
    if (rc == 0)
        rc = dh_list_splice(m->heap, m->list, start, removed, words, inserted);
    if (rc == 0) {
        memmove(m->numbers + start + inserted, m->numbers + start + removed,
                (m->length - start - removed) * sizeof *m->numbers);
        memcpy(m->numbers + start, numbers, inserted * sizeof *numbers);
        m->length += inserted - removed;
    } else {
        for (uint64_t i = 0; i < made; i++)
            dh_value_drop(m->heap, words[i]);
    }
    free(words);
    free(numbers);
    return rc;
}

/* A run kept from before a change tells what stands there now, or nothing. */
static void run_check(model *m)
{
    dh_list_run *run = &m->run;
    for (uint64_t i = run->first; i < run->first + run->count; i++) {
        const dh_word *slot = dh_list_run_slot(m->heap, run, i);
        CHECK(slot == NULL || i < m->length);
        if (slot != NULL)
            check_word(m->heap, *slot, m->numbers[i]);
    }
    CHECK(dh_list_run_slot(m->heap, run, run->first + run->count) == NULL);
    CHECK(dh_list_run_slot(m->heap, run, run->first - 1) == NULL);
    CHECK_EQ(dh_list_run_at(m->heap, m->list, m->length, run), DH_E_ABSENT);
    CHECK_EQ(run->count, 0);
    if (m->length == 0)
        return;
    uint64_t at = check_random_below(m->length);
    CHECK_EQ(dh_list_run_at(m->heap, m->list, at, run), 0);
    CHECK(run->first <= at && at - run->first < run->count && run->first + run->count <= m->length);
    check_word(m->heap, *dh_list_run_slot(m->heap, run, at), m->numbers[at]);
}

/* What is appended leaves runs as they are, unless the only leaf is replaced. */
static void model_append(model *m)
{
    dh_word word;
    m->numbers[m->length] = (int64_t)check_random_below((uint64_t)1 << 40);
    CHECK_EQ(number_word(m->heap, m->numbers[m->length], &word), 0);
    CHECK_EQ(dh_list_append(m->heap, m->list, word), 0);
    m->length++;
}

static void model_check(model *m)
{
    uint64_t length, span;
    dh_word word;
    CHECK_EQ(dh_list_length(m->heap, m->list, &length), 0);
    CHECK_EQ(length, m->length);
    for (uint64_t i = 0; i < length; i += span) {
        const dh_word *words = dh_list_span(m->heap, m->list, i, &span);
        CHECK(words != NULL && span > 0 && i + span <= length);
        for (uint64_t j = 0; j < span; j++)
            check_word(m->heap, words[j], m->numbers[i + j]);
    }
    CHECK(dh_list_span(m->heap, m->list, length, &span) == NULL);
    CHECK_EQ(dh_list_get(m->heap, m->list, length, &word), DH_E_ABSENT);
    for (unsigned i = 0; i < 10 && length > 0; i++) {
        uint64_t at = check_random_below(length);
        CHECK_EQ(dh_list_get(m->heap, m->list, at, &word), 0);
        check_word(m->heap, word, m->numbers[at]);
    }
}

/* Splices of all shapes while the length swings around `around`. */
static void test_splices(dh_heap *heap, uint64_t around, unsigned rounds)
{
    model m;
    model_open(&m, heap);
    uint64_t before = containers_allocated(heap);
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t start = check_random_below(m.length + 1);
        if (check_random_below(3) == 0)
            start = 0;
        else if (check_random_below(3) == 0)
            start = m.length;
        uint64_t removed = check_random_below(m.length - start + 1);
        uint64_t most = around / (1u << check_random_below(12)) + 2;
        if (removed > most)
            removed = most;
        uint64_t inserted = check_random_below(most + (m.length < around ? 3 : 0));
        if (check_random_below(4) == 0)
            inserted = removed;
        if (m.length - removed + inserted > around + around / 4 + 8)
            inserted = 0;
        if (check_random_below(4) == 0)
            model_append(&m);
        else
            CHECK_EQ(model_splice(&m, start, removed, inserted), 0);
        run_check(&m);
        if (i % 16 == 0 || m.length < 600)
            model_check(&m);
        if (i % 256 == 0)
            containers_verify(heap);
    }
    model_check(&m);
    CHECK_EQ(dh_list_reverse(heap, m.list), 0);
    for (uint64_t i = 0, j = m.length; i + 1 < j; i++) {
        int64_t kept = m.numbers[i];
        m.numbers[i] = m.numbers[--j];
        m.numbers[j] = kept;
    }
    model_check(&m);
    containers_verify(heap);
    while (m.length > 0) {
        uint64_t removed = m.length < 300 ? 1 : check_random_below(m.length / 2) + 1;
        CHECK_EQ(model_splice(&m, check_random_below(m.length - removed + 1), removed, 0), 0);
    }
    model_check(&m);
    CHECK_EQ(containers_allocated(heap), before);
    model_close(&m);
}

static void test_set_and_append(dh_heap *heap)
{
    model m;
    dh_word word;
    model_open(&m, heap);
    uint64_t before = containers_allocated(heap);
    for (uint64_t i = 0; i < 3000; i++) {
        m.numbers[m.length++] = (int64_t)i;
        CHECK_EQ(number_word(heap, (int64_t)i, &word), 0);
        CHECK_EQ(dh_list_append(heap, m.list, word), 0);
        uint64_t at = check_random_below(m.length);
        m.numbers[at] = (int64_t)(i * 5);
        CHECK_EQ(number_word(heap, (int64_t)(i * 5), &word), 0);
        CHECK_EQ(dh_list_set(heap, m.list, at, word), 0);
    }
    CHECK_EQ(dh_list_set(heap, m.list, m.length, DH_NONE), DH_E_ABSENT);
    CHECK_EQ(dh_list_splice(heap, m.list, m.length + 1, 0, NULL, 0), DH_E_ABSENT);
    CHECK_EQ(dh_list_splice(heap, m.list, 1, m.length, NULL, 0), DH_E_ABSENT);
    model_check(&m);
    containers_verify(heap);
    CHECK_EQ(dh_list_clear(heap, m.list), 0);
    CHECK_EQ(containers_allocated(heap), before);
    model_close(&m);
}

/* One element at a time at the front or the end of a long list touches few pages: counted by
 * comparing the arena with a copy. */
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

static void test_ends_touch_few_pages(dh_heap *heap)
{
    dh_word list, word = dh_int(7);
    uint64_t pages_count = heap->arena.hwm_pages + 2000, worst = 0, total = 0;
    uint8_t *copy = calloc(pages_count, DH_PAGE_BYTES);
    CHECK(copy != NULL);
    CHECK_EQ(dh_list_new(heap, &list), 0);
    containers_root(heap, list);
    for (unsigned i = 0; i < 300000; i++)
        CHECK_EQ(dh_list_append(heap, list, dh_int((int64_t)i)), 0);
    CHECK(heap->arena.hwm_pages < pages_count);
    (void)pages_written(heap, copy, pages_count);
    for (unsigned i = 0; i < 4000; i++) {
        bool is_front = i % 2 == 0, is_removal = (i / 1000) % 2 == 1;
        uint64_t length;
        CHECK_EQ(dh_list_length(heap, list, &length), 0);
        uint64_t at = is_front ? 0 : length - is_removal;
        CHECK_EQ(dh_list_splice(heap, list, at, is_removal, &word, !is_removal), 0);
        if (i % 50 < 4) {
            uint64_t written = pages_written(heap, copy, pages_count);
            worst = written > worst ? written : worst;
            total += written;
        } else if (i % 50 == 49) {
            (void)pages_written(heap, copy, pages_count);
        }
    }
    CHECK(worst <= 24);
    CHECK(total <= 320 * 4);
    free(copy);
    CHECK_EQ(dh_list_clear(heap, list), 0);
}

/* A queue keeps its size however long it runs. */
static void test_queue(dh_heap *heap, uint64_t length, uint64_t rounds)
{
    dh_word list, word;
    CHECK_EQ(dh_list_new(heap, &list), 0);
    containers_root(heap, list);
    uint64_t before = containers_allocated(heap), most = 0;
    for (uint64_t i = 0; i < length + rounds; i++) {
        CHECK_EQ(dh_list_append(heap, list, dh_int((int64_t)i)), 0);
        if (i < length)
            continue;
        CHECK_EQ(dh_list_get(heap, list, 0, &word), 0);
        CHECK_EQ(word, dh_int((int64_t)(i - length)));
        CHECK_EQ(dh_list_splice(heap, list, 0, 1, NULL, 0), 0);
        if (containers_allocated(heap) - before > most)
            most = containers_allocated(heap) - before;
    }
    CHECK(most <= length * 8 + length / 8 + 65536 * 2);
    CHECK_EQ(dh_list_clear(heap, list), 0);
    CHECK_EQ(containers_allocated(heap), before);
}

static void test_no_memory(dh_heap *heap, uint64_t length, uint64_t start, uint64_t removed,
                           uint64_t inserted)
{
    for (uint64_t n = 0;; n++) {
        model m;
        model_open(&m, heap);
        CHECK_EQ(model_splice(&m, 0, 0, length), 0);
        CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
        int rc = model_splice(&m, start, removed, inserted);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        model_check(&m);
        containers_verify(heap);
        model_close(&m);
        if (rc == 0)
            return;
        CHECK_EQ(rc, DH_E_FULL);
    }
}

static void damage_words(dh_heap *heap, unsigned count)
{
    uint64_t words = heap->arena.hwm_pages * DH_PAGE_WORDS;
    dh_word *arena = (dh_word *)(void *)heap->arena.base;
    for (unsigned i = 0; i < count; i++) {
        uint64_t at = check_random_below(words);
        if (check_random_below(2) == 0)
            arena[at] ^= (uint64_t)1 << check_random_below(64);
        else
            arena[at] = dh_ref(check_random_below(2) == 0 ? DH_T_LEAF : DH_T_NODE,
                               check_random_below(words * 8) & ~(uint64_t)15);
    }
}

static void test_damage(uint64_t length, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        model m;
        dh_word word, few[3] = {dh_int(1), dh_int(2), dh_int(3)};
        uint64_t span, now;
        dh_heap *heap = containers_heap(16u << 20);
        model_open(&m, heap);
        CHECK_EQ(model_splice(&m, 0, 0, length), 0);
        if (length > 700)
            CHECK_EQ(model_splice(&m, 0, 10, 0), 0);
        dh_word *head = dh_deref(heap, m.list, DH_T_LIST, DH_HEAD_BYTES);
        if (round % 2 == 0)
            head[check_random_below(4)] ^= (uint64_t)1 << check_random_below(64);
        else
            damage_words(heap, 200);
        if (round % 4 < 2)
            containers_fence(heap);
        for (unsigned i = 0; i < 100; i++) {
            uint64_t at = check_random_below(length);
            (void)!dh_list_get(heap, m.list, at, &word);
            (void)dh_list_span(heap, m.list, at, &span);
            (void)!dh_list_set(heap, m.list, at, dh_int(1));
            (void)!dh_list_append(heap, m.list, dh_int(1));
            (void)!dh_list_splice(heap, m.list, i % 2 == 0 ? 0 : at, i % 3, few, i % 4);
        }
        (void)!dh_list_length(heap, m.list, &now);
        (void)!dh_list_reverse(heap, m.list);
        (void)!dh_list_clear(heap, m.list);
        containers_unfence();
        free(m.numbers);
        dh_heap_close(heap);
    }
}

/* Each kind of damage to one slot is found; nothing else is. */
static void test_check_looks_inside(void)
{
    static const dh_word wrong[] = {DH_EMPTY, DH_DELETED, DH_CONST(9), 14 /* meta */,
                                    (dh_word)DH_T_LEAF << 3 | 256};
    model m;
    dh_heap *heap = containers_heap(16u << 20);
    model_open(&m, heap);
    CHECK_EQ(model_splice(&m, 0, 0, 5000), 0);
    CHECK_EQ(model_splice(&m, 0, 10, 0), 0); /* a gap before the first */
    CHECK_EQ(dh_list_check(heap, m.list), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint64_t span, cells, problems;
        dh_word *slot = dh_list_slots(heap, m.list, check_random_below(4990), &span), was = *slot;
        *slot = wrong[i];
        CHECK_EQ(dh_list_check(heap, m.list), DH_E_CORRUPT);
        heap->root = m.list;
        CHECK_EQ(dh_check(heap, &cells, &problems), 0);
        CHECK(problems >= 1);
        *slot = was;
        CHECK_EQ(dh_list_check(heap, m.list), 0);
    }
    const dh_word *vec = (dh_word *)dh_deref(heap, m.list, DH_T_LIST, DH_HEAD_BYTES) + 1;
    dh_word *node = dh_deref(heap, vec[DH_VEC_ROOT], DH_T_NODE, DH_PAGE_BYTES), was = node[3];
    node[3] = DH_EMPTY; /* a leaf in the middle is gone */
    CHECK_EQ(dh_list_check(heap, m.list), DH_E_CORRUPT);
    node[3] = was;
    free(m.numbers);
    dh_heap_close(heap);
}

/* A node that leads to itself and a length to match: nothing walks it to the end. */
static void test_ring(uint64_t length, bool is_cleared_first)
{
    model m;
    dh_heap *heap = containers_heap(16u << 20);
    model_open(&m, heap);
    CHECK_EQ(model_splice(&m, 0, 0, length), 0);
    dh_word word, *head = dh_deref(heap, m.list, DH_T_LIST, DH_HEAD_BYTES);
    dh_word *vec = head + 1, *node = dh_deref(heap, vec[DH_VEC_ROOT], DH_T_NODE, DH_PAGE_BYTES);
    CHECK(node != NULL);
    for (unsigned i = 0; i < DH_PAGE_WORDS; i++)
        node[i] = i % 2 == 0 ? vec[DH_VEC_ROOT] : node[1];
    vec[DH_VEC_DEPTH] = dh_int(DH_VEC_DEPTH_MAX);
    vec[DH_VEC_LENGTH] = dh_int((int64_t)1 << 50);
    CHECK_EQ(dh_list_get(heap, m.list, 0, &word), DH_E_CORRUPT);
    CHECK_EQ(dh_list_reverse(heap, m.list), DH_E_CORRUPT);
    CHECK_EQ(dh_list_clear(heap, m.list), DH_E_CORRUPT);
    vec[DH_VEC_LENGTH] = dh_int(100);
    if (!is_cleared_first) {
        (void)!dh_list_reverse(heap, m.list);
        (void)!dh_list_splice(heap, m.list, 0, 60, NULL, 0);
    }
    (void)!dh_list_clear(heap, m.list);
    free(m.numbers);
    dh_heap_close(heap);
}

/* Taken from the front until a few are left, a long list is a short one. */
static void test_front_gives_back(dh_heap *heap)
{
    model m;
    model_open(&m, heap);
    uint64_t before = containers_allocated(heap);
    for (uint64_t i = 0; i < 20000; i++) {
        m.numbers[m.length++] = (int64_t)i * 3 + 1;
        CHECK_EQ(dh_list_append(heap, m.list, dh_int((int64_t)i * 3 + 1)), 0);
    }
    while (m.length > 50)
        CHECK_EQ(model_splice(&m, 0, 1, 0), 0);
    CHECK(containers_allocated(heap) - before < 2048);
    model_check(&m);
    model_close(&m);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap((uint64_t)1 << 29);
    test_splices(heap, 4, 3000 / SCALE);
    test_splices(heap, 100, 3000 / SCALE);
    test_splices(heap, 600, 3000 / SCALE);
    test_splices(heap, 5000, 2000 / SCALE);
    test_splices(heap, 40000, 800 / SCALE);
    test_splices(heap, 270000, 120 / SCALE);
    test_set_and_append(heap);
    test_front_gives_back(heap);
    test_ends_touch_few_pages(heap);
    test_queue(heap, 3, 10000);
    test_queue(heap, 600, 10000);
    test_queue(heap, 2000, 100000 / SCALE);
    test_queue(heap, 300000, 200000 / SCALE);
    test_no_memory(heap, 0, 0, 0, 3);
    test_no_memory(heap, 10, 5, 2, 30);
    test_no_memory(heap, 500, 500, 0, 20);
    test_no_memory(heap, 2000, 0, 0, 5);
    test_no_memory(heap, 2000, 1000, 3, 1500);
    test_no_memory(heap, 5000, 10, 0, 4000);
    test_no_memory(heap, 5000, 10, 4000, 3);
    dh_heap_close(heap);
    test_check_looks_inside();
    test_ring(3000, false);
    test_ring(3000, true);
    test_damage(20, 400 / SCALE);
    test_damage(3000, 300 / SCALE);
    return 0;
}
