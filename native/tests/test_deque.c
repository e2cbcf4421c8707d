/* test_deque.c -- Deque against an array: both ends, bounds, rotation, memory, damage, pages. */
#include "containers.h"
#include "deque.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCALE 4u
#else
#define SCALE 1u
#endif
#define ROOM_MAX 40000u

typedef struct {
    dh_heap *heap;
    dh_word deque;
    uint64_t maxlen;
    int64_t *numbers;
    uint64_t length;
    int64_t next;
} model;

static void model_open(model *m, dh_heap *heap, uint64_t maxlen)
{
    *m = (model){heap, 0, maxlen, malloc(ROOM_MAX * sizeof *m->numbers), 0, 1};
    CHECK(m->numbers != NULL);
    CHECK_EQ(dh_deque_new(heap, maxlen, &m->deque), 0);
    containers_root(heap, m->deque);
}

/* Every third is kept as a string, so that lost and doubled cells show. */
static int number_word(dh_heap *heap, int64_t n, dh_word *word_out)
{
    char text[32];
    *word_out = dh_int(n);
    if (n % 3 != 0)
        return 0;
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
    CHECK(view.size == (size_t)size && memcmp(view.data, text, view.size) == 0);
}

static void model_check(const model *m)
{
    dh_deque_state state;
    dh_word word;
    CHECK_EQ(dh_deque_check(m->heap, m->deque), 0);
    CHECK_EQ(dh_deque_read(m->heap, m->deque, &state), 0);
    CHECK_EQ(state.length, m->length);
    CHECK_EQ(state.maxlen, m->maxlen);
    for (uint64_t i = 0; i < m->length; i++) {
        CHECK_EQ(dh_list_get(m->heap, m->deque, i, &word), 0);
        check_word(m->heap, word, m->numbers[i]);
    }
}

/* What came in at one end pushes out at the other. */
static void model_put(model *m, const int64_t *numbers, uint64_t count, bool is_left)
{
    int64_t *all = malloc((m->length + count + 1) * sizeof *all);
    uint64_t total = m->length + count;
    CHECK(all != NULL);
    memcpy(all + (is_left ? count : 0), m->numbers, m->length * sizeof *all);
    memcpy(all + (is_left ? 0 : m->length), numbers, count * sizeof *all);
    m->length = total < m->maxlen ? total : m->maxlen;
    memcpy(m->numbers, is_left ? all : all + (total - m->length), m->length * sizeof *all);
    free(all);
}

static int model_extend(model *m, uint64_t count, bool is_left)
{
    dh_word *words = malloc((count + 1) * sizeof *words);
    int64_t *numbers = malloc((count + 1) * sizeof *numbers);
    uint64_t made = 0;
    int rc = 0;
    CHECK(words != NULL && numbers != NULL);
    for (; made < count && rc == 0; made += rc == 0) {
        numbers[made] = m->next++;
        rc = number_word(m->heap, numbers[made], &words[made]);
    }
    if (rc == 0)
        rc = is_left ? dh_deque_extend_left(m->heap, m->deque, words, count)
                     : dh_deque_extend(m->heap, m->deque, words, count);
    if (rc == 0)
        model_put(m, numbers, count, is_left);
    else
        for (uint64_t i = 0; i < made; i++)
            dh_value_drop(m->heap, words[i]);
    free(words);
    free(numbers);
    return rc;
}

static int model_rotate(model *m, int64_t steps)
{
    int rc = dh_deque_rotate(m->heap, m->deque, steps);
    if (rc != 0 || m->length == 0)
        return rc;
    int64_t length = (int64_t)m->length, right = ((steps % length) + length) % length;
    int64_t *turned = malloc(m->length * sizeof *turned);
    CHECK(turned != NULL);
    for (int64_t i = 0; i < length; i++)
        turned[(i + right) % length] = m->numbers[i];
    free(m->numbers);
    m->numbers = realloc(turned, ROOM_MAX * sizeof *turned);
    CHECK(m->numbers != NULL);
    return 0;
}

static void model_remove(model *m, uint64_t start, uint64_t count)
{
    CHECK_EQ(dh_list_splice(m->heap, m->deque, start, count, NULL, 0), 0);
    m->length -= count;
    memmove(m->numbers + start, m->numbers + start + count,
            (m->length - start) * sizeof *m->numbers);
}

static void test_random(dh_heap *heap, uint64_t maxlen, uint64_t around, unsigned rounds)
{
    model m;
    model_open(&m, heap, maxlen);
    uint64_t before = containers_allocated(heap);
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t few = check_random_below(4) == 0 ? check_random_below(around + 2) : 1;
        switch (check_random_below(6)) {
        case 0:
        case 1:
            if (m.length + few < 4 * around + 4)
                CHECK_EQ(model_extend(&m, few, check_random_below(2) == 0), 0);
            break;
        case 2:
        case 3:
            few = few < m.length ? few : m.length;
            model_remove(&m, check_random_below(2) == 0 ? 0 : m.length - few, few);
            break;
        case 4:
            CHECK_EQ(model_rotate(&m, (int64_t)check_random_below(2 * around + 3) -
                                          (int64_t)check_random_below(2 * around + 3)),
                     0);
            break;
        default:
            if (m.length > 0)
                model_remove(&m, check_random_below(m.length), 1);
        }
        if (i % 16 == 0)
            model_check(&m);
        if (i % 256 == 0)
            containers_verify(heap);
    }
    model_check(&m);
    containers_verify(heap);
    CHECK_EQ(dh_list_clear(heap, m.deque), 0);
    CHECK_EQ(containers_allocated(heap), before);
    free(m.numbers);
}

/* Each change of what stands where changes the number, replacing does not. */
static void test_changes(dh_heap *heap)
{
    model m;
    dh_deque_state was, now;
    model_open(&m, heap, 5);
    for (unsigned i = 0; i < 12; i++) {
        CHECK_EQ(dh_deque_read(heap, m.deque, &was), 0);
        if (i < 8)
            CHECK_EQ(model_extend(&m, 1, i % 2 == 0), 0);
        else if (i == 8)
            CHECK_EQ(model_rotate(&m, 1), 0);
        else if (i == 9)
            model_remove(&m, 2, 1);
        else if (i == 10)
            CHECK_EQ(dh_list_set(heap, m.deque, 1, dh_int(5)), 0);
        else
            CHECK_EQ(dh_list_clear(heap, m.deque), 0);
        CHECK_EQ(dh_deque_read(heap, m.deque, &now), 0);
        CHECK((now.changes == was.changes) == (i == 10));
    }
    free(m.numbers);
}

static void test_no_memory(dh_heap *heap, uint64_t length, uint64_t maxlen, uint64_t count,
                           bool is_left, int64_t steps)
{
    for (uint64_t n = 0;; n++) {
        model m;
        model_open(&m, heap, maxlen);
        CHECK_EQ(model_extend(&m, length, false), 0);
        CHECK_EQ(dh_fault_set("alloc.cell", n, DH_E_FULL), 0);
        int rc = steps != 0 ? model_rotate(&m, steps) : model_extend(&m, count, is_left);
        CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
        model_check(&m);
        containers_verify(heap);
        CHECK_EQ(dh_list_clear(heap, m.deque), 0);
        free(m.numbers);
        if (rc == 0)
            return;
        CHECK_EQ(rc, DH_E_FULL);
    }
}

/* Ends of a long deque, and of a long ring, write few pages each time. */
static void test_few_pages(dh_heap *heap, uint64_t maxlen)
{
    dh_word deque, word = dh_int(5);
    uint64_t worst = 0, total = 0;
    unsigned rounds = 3000 / SCALE;
    CHECK_EQ(dh_deque_new(heap, maxlen, &deque), 0);
    containers_root(heap, deque);
    for (unsigned i = 0; i < 300000; i++)
        CHECK_EQ(dh_deque_extend(heap, deque, &word, 1), 0);
    uint64_t pages_count = heap->arena.hwm_pages + 100;
    uint8_t *copy = calloc(pages_count, DH_PAGE_BYTES);
    CHECK(copy != NULL);
    for (unsigned i = 0; i <= rounds; i++) {
        uint64_t written = 0;
        CHECK(heap->arena.hwm_pages <= pages_count);
        for (uint64_t p = 0; p < heap->arena.hwm_pages; p++) {
            const uint8_t *page = dh_arena_page(&heap->arena, (dh_pgno)p);
            if (memcmp(page, copy + p * DH_PAGE_BYTES, DH_PAGE_BYTES) != 0) {
                memcpy(copy + p * DH_PAGE_BYTES, page, DH_PAGE_BYTES);
                written++;
            }
        }
        if (i > 0)
            total += written;
        worst = i > 0 && written > worst ? written : worst;
        word = dh_int((int64_t)i * 7 + 6);
        if (i / (rounds / 4) % 2 == 0)
            CHECK_EQ(dh_deque_extend(heap, deque, &word, 1), 0);
        else
            CHECK_EQ(dh_deque_extend_left(heap, deque, &word, 1), 0);
        if (maxlen == DH_DEQUE_UNBOUNDED && i / (rounds / 2) % 2 == 1)
            CHECK_EQ(dh_list_splice(heap, deque, i % 2 == 0 ? 0 : 299999, 1, NULL, 0), 0);
    }
    CHECK(worst <= 12);
    CHECK(total <= 4 * rounds);
    free(copy);
    CHECK_EQ(dh_list_clear(heap, deque), 0);
}

static void test_damage(uint64_t length, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        model m;
        dh_deque_state state;
        dh_heap *heap = containers_heap(16u << 20);
        model_open(&m, heap, round % 2 == 0 ? length : DH_DEQUE_UNBOUNDED);
        CHECK_EQ(model_extend(&m, length, false), 0);
        dh_word *head = dh_deref(heap, m.deque, DH_T_DEQUE, DH_HEAD_BYTES);
        for (unsigned i = 0; i < 2; i++)
            head[check_random_below(6)] ^= (uint64_t)1 << check_random_below(64);
        if (round % 4 < 2)
            containers_fence(heap);
        (void)!dh_deque_check(heap, m.deque);
        (void)!dh_deque_read(heap, m.deque, &state);
        for (unsigned i = 0; i < 40; i++) {
            dh_word words[2] = {dh_int(1), dh_int(2)};
            (void)!dh_deque_extend(heap, m.deque, words, 2);
            (void)!dh_deque_extend_left(heap, m.deque, words, 2);
            (void)!dh_deque_rotate(heap, m.deque, 3 - (int64_t)i);
        }
        containers_unfence();
        free(m.numbers);
        dh_heap_close(heap);
    }
}

static void test_check_finds(dh_heap *heap)
{
    model m;
    uint64_t cells, problems;
    model_open(&m, heap, 10);
    CHECK_EQ(model_extend(&m, 10, false), 0);
    dh_word *head = dh_deref(heap, m.deque, DH_T_DEQUE, 48);
    static const struct {
        unsigned at;
        dh_word word;
    } wrong[] = {{4, DH_TRUE}, {4, DH_EMPTY}, {4, 1 | 9 << 1}, {5, DH_NONE}, {1, 1 | 11 << 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dh_word was = head[wrong[i].at];
        head[wrong[i].at] = wrong[i].word;
        CHECK_EQ(dh_deque_check(heap, m.deque), DH_E_CORRUPT);
        CHECK_EQ(dh_check(heap, &cells, &problems), 0);
        CHECK(problems >= 1);
        head[wrong[i].at] = was;
        CHECK_EQ(dh_deque_check(heap, m.deque), 0);
    }
    free(m.numbers);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    dh_heap *heap = containers_heap((uint64_t)1 << 28);
    test_random(heap, DH_DEQUE_UNBOUNDED, 5, 3000 / SCALE);
    test_random(heap, DH_DEQUE_UNBOUNDED, 700, 2000 / SCALE);
    test_random(heap, DH_DEQUE_UNBOUNDED, 6000, 500 / SCALE);
    test_random(heap, 0, 5, 300);
    test_random(heap, 1, 5, 300);
    test_random(heap, 7, 5, 3000 / SCALE);
    test_random(heap, 1500, 700, 2000 / SCALE);
    test_random(heap, 9000, 4000, 500 / SCALE);
    test_changes(heap);
    static const uint64_t lengths[] = {3, 600, 6000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (unsigned is_left = 0; is_left < 2; is_left++) {
            test_no_memory(heap, lengths[i], DH_DEQUE_UNBOUNDED, 5, is_left, 0);
            test_no_memory(heap, lengths[i], lengths[i], 600, is_left, 0);
            test_no_memory(heap, lengths[i], lengths[i], 0, false, is_left ? 1 : -1);
            test_no_memory(heap, lengths[i], DH_DEQUE_UNBOUNDED, 0, false, is_left ? 600 : -600);
        }
    test_check_finds(heap);
    test_few_pages(heap, DH_DEQUE_UNBOUNDED);
    test_few_pages(heap, 200000);
    dh_heap_close(heap);
    test_damage(8, 200 / SCALE);
    test_damage(3000, 100 / SCALE);
    return 0;
}
