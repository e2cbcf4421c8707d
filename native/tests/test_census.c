/* test_census.c -- census, why and growth against a verify run, a naive count and a known graph; what
 * damage does to them; a stack that is too small; chains too long for any recursion.
 */
#include <sys/mman.h>

#include "buffer.h"
#include "census.h"
#include "containers.h"
#include "deque.h"
#include "record.h"
#include "set.h"
#include "sorted.h"

static void put(dh_heap *heap, dh_word dict, uint64_t k, dh_word value)
{
    dh_key key;
    bool was_new;
    dh_key_from_int(heap, (int64_t)k, &key);
    CHECK_EQ(dh_dict_set(heap, dict, &key, dh_int((int64_t)k), value, &was_new), 0);
}

static dh_word text(dh_heap *heap, uint64_t k)
{
    uint8_t bytes[64];
    dh_word word;
    CHECK_EQ(dh_str_new(heap, bytes, containers_text(k * 3 + 2, bytes), &word), 0);
    return word;
}

static dh_word list_new(dh_heap *heap)
{
    dh_word list;
    CHECK_EQ(dh_list_new(heap, &list), 0);
    return list;
}

static void append(dh_heap *heap, dh_word list, dh_word value)
{
    CHECK_EQ(dh_list_append(heap, list, value), 0);
}

static dh_word record_new(dh_heap *heap)
{
    dh_word name, field, class_word, record, values[1];
    CHECK_EQ(dh_str_new(heap, (const uint8_t *)"Account", 7, &name), 0);
    CHECK_EQ(dh_str_new(heap, (const uint8_t *)"owner", 5, &field), 0);
    dh_word words[3] = {field, dh_int(DH_KINDS_ANY), DH_NONE};
    CHECK_EQ(dh_class_new(heap, name, words, 1, &class_word), 0);
    values[0] = text(heap, 1);
    CHECK_EQ(dh_record_new(heap, class_word, values, 1, &record), 0);
    return record;
}

/* Every kind of inner cell: dicts of three sizes, a set, lists plain and relaxed, a deque, a sorted
 * dict, a tuple, a record, a buffer. */
static void fill(dh_heap *heap, uint64_t scale)
{
    dh_word dict, deque, sorted, set, tuple, buffer, list = list_new(heap);
    bool was_new;

    for (uint64_t size = 6, n = 0; n < 3; size *= 6 * scale, n++) {
        CHECK_EQ(dh_dict_new(heap, &dict), 0);
        put(heap, heap->root, n, dict);
        for (uint64_t i = 0; i < size; i++)
            put(heap, dict, i, text(heap, i));
    }
    put(heap, heap->root, 10, list);
    for (uint64_t i = 0; i < 900 * scale; i++)
        append(heap, list, i % 7 == 0 ? text(heap, i) : dh_int((int64_t)i));
    for (uint64_t i = 0; i < 20; i++) {
        dh_word word = text(heap, i);
        CHECK_EQ(dh_list_splice(heap, list, 100 + i * 9, i % 2, &word, 1), 0);
    }
    CHECK_EQ(dh_deque_new(heap, 50, &deque), 0);
    put(heap, heap->root, 11, deque);
    append(heap, deque, text(heap, 1));
    CHECK_EQ(dh_sorted_new(heap, &sorted), 0);
    put(heap, heap->root, 12, sorted);
    for (uint64_t i = 0; i < 400 * scale; i++) {
        dh_key key;
        dh_key_from_int(heap, (int64_t)(i * 7 % 400), &key);
        dh_word word = dh_int((int64_t)(i * 7 % 400));
        CHECK_EQ(dh_sorted_set(heap, sorted, &key, word, text(heap, i), &was_new), 0);
    }
    CHECK_EQ(dh_set_new(heap, &set), 0);
    put(heap, heap->root, 13, set);
    for (uint64_t i = 0; i < 60; i++) {
        containers_key storage;
        dh_word word;
        CHECK_EQ(containers_key_word(heap, i, &word), 0);
        CHECK_EQ(dh_set_add(heap, set, containers_key_of(heap, i, &storage), word, &was_new), 0);
    }
    dh_word items[] = {text(heap, 1), dh_int(5), list};
    CHECK_EQ(dh_tuple_new(heap, items, 3, &tuple), 0);
    put(heap, heap->root, 14, tuple);
    put(heap, heap->root, 15, record_new(heap));
    CHECK_EQ(dh_buffer_new(heap, 3 * DH_PAGE_BYTES, &buffer), 0);
    put(heap, heap->root, 16, buffer);
}

static dh_census *take(dh_heap *heap, bool keeps_containers, size_t stack_room)
{
    dh_census *census;
    int flags = keeps_containers ? DH_CENSUS_CONTAINERS : 0;
    CHECK_EQ(dhi_census_take(heap, flags, stack_room, &census), 0);
    return census;
}

static dh_census_row row_of(const dh_census *census, const char *kind)
{
    dh_census_row row, sum = {.kind = kind};
    for (size_t i = 0; dh_census_row_read(census, i, &row) == 0; i++)
        if (strcmp(row.kind, kind) == 0) {
            sum.objects_count += row.objects_count;
            sum.cells_count += row.cells_count;
            sum.bytes += row.bytes;
            sum.name = row.name;
        }
    return sum;
}

/* --- census ------------------------------------------------------------------------------------ */

/* What it says of the arena adds up, and agrees with those who count otherwise. */
static void check_sums(dh_heap *heap, const dh_census *census)
{
    const dh_census_stats *s = &census->stats;
    dh_census_size size;
    dh_verify *verify;
    dh_verify_stats verified;
    int is_done;
    uint64_t free_cells = 0, rows_bytes = 0;
    dh_census_row row;

    CHECK_EQ(dh_verify_new(heap, &verify), 0);
    CHECK_EQ(dh_verify_run(verify, UINT64_MAX, &is_done), 0);
    dh_verify_stats_read(verify, &verified);
    dh_verify_free(verify);
    CHECK_EQ(verified.problems_count, 0);
    CHECK_EQ(s->cells_count, verified.cells_count);
    CHECK_EQ(s->bytes, verified.cells_bytes);
    CHECK_EQ(s->unreachable_cells_count, verified.unreachable_cells_count);
    CHECK_EQ(s->unreachable_bytes, verified.unreachable_bytes);
    CHECK_EQ(s->used_pages_count, verified.pages_count);
    CHECK_EQ(s->arena_pages, 1 + s->used_pages_count + s->free_pages_count + s->pinned_pages_count);
    CHECK_EQ(s->used_pages_count * DH_PAGE_BYTES,
             s->bytes + s->unreachable_bytes + s->free_cells_bytes + s->rest_bytes);
    CHECK_EQ(s->bytes + s->unreachable_bytes, containers_allocated(heap));
    CHECK(s->free_run_pages_max <= s->free_pages_count);
    CHECK_EQ(s->broken_count, 0);
    for (size_t i = 0; dh_census_size_read(census, i, &size) == 0; i++)
        free_cells += size.free_cells_count;
    CHECK_EQ(s->free_cells_count, free_cells);
    for (size_t i = 0; dh_census_row_read(census, i, &row) == 0; i++)
        rows_bytes += row.bytes;
    CHECK_EQ(s->bytes, rows_bytes);
}

static void test_counts(void)
{
    dh_heap *heap = containers_heap(32u << 20);
    dh_handle handle = {0};

    fill(heap, 2);
    dh_word held = list_new(heap), garbage = list_new(heap);
    append(heap, held, text(heap, 1));
    append(heap, garbage, text(heap, 1));
    handle = (dh_handle){held, dh_meta_serial(*(dh_word *)dh_at(heap, dh_ref_off(held)))};
    CHECK_EQ(dh_handles_add(&heap->handles, &handle), 0);
    for (int mode = 0; mode < 3; mode++) { /* a stack, one that is too small, a line */
        dh_census *census = take(heap, mode == 2, mode == 1 ? 2 : 1000);
        check_sums(heap, census);
        CHECK_EQ(row_of(census, "dict").objects_count, 4);
        CHECK_EQ(row_of(census, "list").objects_count, 2);
        CHECK_EQ(row_of(census, "set").objects_count, 1);
        CHECK_EQ(row_of(census, "deque").objects_count, 1);
        CHECK_EQ(row_of(census, "sorted_dict").objects_count, 1);
        CHECK_EQ(row_of(census, "tuple").objects_count, 1);
        CHECK_EQ(row_of(census, "record").objects_count, 1);
        CHECK_EQ(strcmp(row_of(census, "record").name, "Account"), 0);
        CHECK_EQ(row_of(census, "buffer").cells_count, 2);
        CHECK_EQ(row_of(census, "buffer").bytes, 3 * DH_PAGE_BYTES + DH_HEAD_BYTES);
        CHECK_EQ(row_of(census, "inner").objects_count, 0);
        CHECK_EQ(census->stats.held_cells_count, 3); /* head, leaf, text */
        CHECK_EQ(census->stats.unreachable_cells_count, 3);
        CHECK((census->stats.overflow_rounds_count > 0) == (mode == 1));
        CHECK_EQ(dh_census_row_read(census, 100, &(dh_census_row){0}), DH_E_ABSENT);
        dh_census_free(census);
    }
    dh_handles_drop_all(&heap->handles);
    dh_heap_close(heap);
}

/* Lists that hold one another at random, and a count of them by hand. */
static void test_random_graph(size_t stack_room)
{
    enum { LISTS = 3000 };
    static dh_word lists[LISTS];
    static size_t edges[LISTS][4], edges_count[LISTS], stack[LISTS * 4 + 1];
    static bool is_reached[LISTS];
    dh_heap *heap = containers_heap(32u << 20);
    size_t count = 0, reached = 0;

    memset(is_reached, 0, sizeof is_reached);
    for (size_t i = 0; i < LISTS; i++)
        lists[i] = list_new(heap);
    for (size_t i = 0; i < LISTS; i++) {
        edges_count[i] = check_random_below(4);
        for (size_t e = 0; e < edges_count[i]; e++) {
            edges[i][e] = check_random_below(LISTS);
            append(heap, lists[i], lists[edges[i][e]]);
        }
    }
    put(heap, heap->root, 0, lists[0]);
    stack[count++] = 0;
    while (count > 0) {
        size_t i = stack[--count];
        if (is_reached[i])
            continue;
        is_reached[i] = true;
        reached++;
        for (size_t e = 0; e < edges_count[i]; e++)
            stack[count++] = edges[i][e];
    }
    dh_census *census = take(heap, false, stack_room);
    check_sums(heap, census);
    CHECK_EQ(row_of(census, "list").objects_count, reached);
    dh_census_free(census);
    for (size_t i = 0; i < LISTS; i += 97) {
        dh_path_info info;
        dh_path *path;
        CHECK_EQ(dh_why(heap, lists[i], &path), 0);
        dh_path_read(path, &info);
        CHECK_EQ(info.is_from_root != 0, is_reached[i]);
        CHECK((info.steps_count > 0) == is_reached[i]);
        dh_path_free(path);
    }
    dh_heap_close(heap);
}

/* --- why --------------------------------------------------------------------------------------- */

static void check_path(dh_heap *heap, dh_word w, const char *origin, const char *expected)
{
    char found[512] = "";
    const char *step, *type;
    dh_path_info info;
    dh_path *path;

    CHECK_EQ(dh_why(heap, w, &path), 0);
    dh_path_read(path, &info);
    CHECK_EQ(strcmp(info.origin, origin), 0);
    for (size_t i = 0; dh_path_step(path, i, &step, &type) == 0; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s", step);
    if (strcmp(found, expected) != 0)
        fprintf(stderr, "%s, not %s\n", found, expected);
    CHECK_EQ(strcmp(found, expected), 0);
    dh_path_free(path);
}

static void test_paths(void)
{
    dh_heap *heap = containers_heap(16u << 20);
    dh_word outer = list_new(heap), inner = list_new(heap), tuple, sorted;
    dh_path *path;
    bool was_new;

    put(heap, heap->root, 1, outer);
    append(heap, outer, inner);
    check_path(heap, heap->root, "root", "");
    check_path(heap, inner, "root", "[1][0]");
    append(heap, inner, outer); /* a way back up is no way down */
    check_path(heap, inner, "root", "[1][0]");
    dh_word deep = list_new(heap);
    dh_word items[] = {dh_int(1), deep};
    CHECK_EQ(dh_tuple_new(heap, items, 2, &tuple), 0);
    append(heap, inner, tuple);
    check_path(heap, deep, "root", "[1][0][1][1]");
    CHECK_EQ(dh_sorted_new(heap, &sorted), 0);
    put(heap, heap->root, 2, sorted);
    for (int64_t i = 0; i < 2000; i++) {
        dh_key key;
        dh_key_from_int(heap, i, &key);
        CHECK_EQ(
            dh_sorted_set(heap, sorted, &key, dh_int(i), i == 1234 ? deep : dh_int(i), &was_new),
            0);
    }
    check_path(heap, deep, "root", "[2][1234]"); /* the shorter one of two */
    dh_word far = list_new(heap);
    for (int i = 0; i < 100000; i++)
        append(heap, inner, i == 77777 ? far : dh_int(i));
    check_path(heap, far, "root", "[1][0][77779]");
    dh_word loose = list_new(heap), holder = list_new(heap);
    check_path(heap, loose, "list", "");
    append(heap, holder, loose);
    check_path(heap, loose, "list", "");
    dh_handle handle = {holder, dh_meta_serial(*(dh_word *)dh_at(heap, dh_ref_off(holder)))};
    CHECK_EQ(dh_handles_add(&heap->handles, &handle), 0);
    check_path(heap, loose, "list", "[0]");
    dh_handles_drop_all(&heap->handles);
    CHECK_EQ(dh_why(heap, dh_int(5), &path), DH_E_ABSENT);
    CHECK_EQ(dh_why(heap, DH_EMPTY, &path), DH_E_ABSENT);
    CHECK_EQ(dh_why(heap, dh_ref(DH_T_LIST, dh_ref_off(loose) + DH_GRANULE_BYTES), &path),
             DH_E_ABSENT);
    CHECK_EQ(dh_why(heap, dh_ref(DH_T_LIST, (dh_off)1 << 50), &path), DH_E_ABSENT);
    dh_heap_close(heap);
}

/* Which element of each link of the chain the next one is. */
static uint64_t place_in_chain(uint64_t link) { return link % 7 * (link % 5); }

/* A list in a list in a list ...: the middle of the path is left out. */
static void test_long_chain(uint64_t links)
{
    dh_heap *heap = containers_heap(256u << 20);
    dh_word last = list_new(heap);
    const char *step, *type;
    dh_path_info info;
    dh_path *path;

    put(heap, heap->root, 0, last);
    for (uint64_t i = 0; i < links; i++) {
        dh_word next = list_new(heap);
        for (uint64_t k = 0; k < place_in_chain(i); k++)
            append(heap, last, DH_NONE);
        append(heap, last, next);
        last = next;
    }
    dh_census *census = take(heap, false, 4);
    CHECK_EQ(row_of(census, "list").objects_count, links + 1);
    dh_census_free(census);
    CHECK_EQ(dh_why(heap, last, &path), 0);
    dh_path_read(path, &info);
    CHECK_EQ(info.steps_count + info.omitted_count, links + 1);
    CHECK_EQ(info.steps_count, PATH_STEPS_MAX);
    for (size_t i = 0; i < PATH_STEPS_MAX; i++) {
        char expected[32] = "[0]"; /* in the root */
        uint64_t number = i < PATH_STEPS_MAX / 2 ? i : i + info.omitted_count;
        if (number > 0)
            snprintf(expected, sizeof expected, "[%llu]",
                     (unsigned long long)place_in_chain(number - 1));
        CHECK_EQ(dh_path_step(path, i, &step, &type), 0);
        CHECK_EQ(strcmp(step, expected), 0);
        CHECK_EQ(strcmp(type, "list"), 0);
    }
    CHECK_EQ(dh_path_step(path, PATH_STEPS_MAX, &step, &type), DH_E_ABSENT);
    dh_path_free(path);
    dh_heap_close(heap);
}

/* --- growth ------------------------------------------------------------------------------------ */

static void test_growth(void)
{
    dh_heap *heap = containers_heap(32u << 20);
    dh_word users = list_new(heap), log = list_new(heap), gone = list_new(heap);
    dh_growth_row row;
    dh_growth *growth;
    const char *type;
    const dh_path *path;
    dh_path_info info;

    put(heap, heap->root, 0, users);
    put(heap, heap->root, 1, log);
    put(heap, heap->root, 2, gone);
    for (uint64_t i = 0; i < 200; i++) {
        append(heap, users, list_new(heap));
        append(heap, gone, text(heap, i));
    }
    dh_census *before = take(heap, true, 0);
    CHECK_EQ(dh_growth_new(before, before, 10, &growth), 0);
    CHECK_EQ(dh_growth_read(growth, 0, &row, &path, &type), DH_E_ABSENT); /* nothing grew */
    dh_growth_free(growth);
    for (uint64_t i = 0; i < 500; i++) { /* new below log: 500 lists with a text each */
        dh_word one = list_new(heap);
        append(heap, one, text(heap, i));
        append(heap, log, one);
    }
    put(heap, heap->root, 2, DH_NONE); /* what is gone counts against the root */
    dh_census *after = take(heap, true, 0);
    CHECK_EQ(dh_growth_new(before, after, 10, &growth), 0);
    CHECK_EQ(dh_growth_read(growth, 0, &row, &path, &type), 0);
    dh_path_read(path, &info);
    CHECK_EQ(info.steps_count, 1);
    CHECK_EQ(strcmp(type, "list"), 0);
    CHECK_EQ(row.bytes, row.own_bytes);
    CHECK_EQ(row.objects, 500);
    CHECK((int64_t)(after->stats.bytes - before->stats.bytes) < row.bytes);
    dh_growth_free(growth);
    CHECK_EQ(dh_growth_new(before, after, 0, &growth), 0);
    CHECK_EQ(dh_growth_read(growth, 0, &row, &path, &type), DH_E_ABSENT);
    dh_growth_free(growth);
    dh_census_free(before);
    dh_census_free(after);
    dh_heap_close(heap);
}

/* Whatever happens: what each container grew by, nothing twice, is what the heap grew by; the greatest
 * come first, as many as are asked for. */
static void test_growth_sums(void)
{
    enum { LISTS = 30, TOLD = 7 };
    dh_heap *heap = containers_heap(32u << 20);
    dh_word lists[LISTS];
    dh_growth *growth, *all;
    dh_growth_row row, same;
    const dh_path *path;
    const char *type;

    for (size_t i = 0; i < LISTS; i++) {
        lists[i] = list_new(heap);
        put(heap, heap->root, i, lists[i]);
    }
    dh_census *before = take(heap, true, 0);
    for (size_t i = 0; i < LISTS * 40; i++) {
        size_t at = check_random_below(LISTS);
        append(heap, lists[at], i % 5 == 0 ? lists[check_random_below(LISTS)] : text(heap, i));
    }
    dh_census *after = take(heap, true, 0);
    CHECK_EQ(dh_growth_new(before, after, LISTS + 1, &all), 0);
    CHECK_EQ(dh_growth_new(before, after, TOLD, &growth), 0);
    int64_t last = INT64_MAX;
    for (size_t i = 0; dh_growth_read(all, i, &row, &path, &type) == 0; i++) {
        CHECK(row.bytes > 0 && row.bytes <= last);
        last = row.bytes;
        if (i == 0)
            CHECK_EQ(row.bytes, after->stats.bytes - before->stats.bytes); /* the root */
        if (i < TOLD) {
            CHECK_EQ(dh_growth_read(growth, i, &same, &path, &type), 0);
            CHECK_EQ(same.bytes, row.bytes);
        }
    }
    CHECK_EQ(dh_growth_read(all, TOLD, &row, &path, &type), 0); /* there were more */
    CHECK_EQ(dh_growth_read(growth, TOLD, &row, &path, &type), DH_E_ABSENT);
    dh_growth_free(growth);
    dh_growth_free(all);
    dh_census_free(before);
    dh_census_free(after);
    dh_heap_close(heap);
}

/* --- damage ------------------------------------------------------------------------------------ */

/* Words of cells are written over at random; whatever comes of it, all three end and leave the pages
 * behind the last one, which are a fault, alone. */
static void test_damage(void)
{
    enum { DAMAGED_MAX = 12, ROUNDS = 3000 };
    dh_heap *heap = containers_heap(16u << 20);
    dh_word odd_words[] = {DH_EMPTY, dh_int(-1), dh_int(1 << 20), DH_NONE, DH_DELETED, ~(dh_word)0};

    struct {
        dh_word *at, before;
    } damaged[DAMAGED_MAX];
    size_t damaged_count = 0;
    uint64_t broken = 0;

    fill(heap, 1);
    containers_fence(heap);
    dh_census *sound = take(heap, true, 0);
    for (int round = 0; round < ROUNDS; round++) {
        dh_off page = (1 + check_random_below(heap->arena.hwm_pages - 1)) << DH_PAGE_SHIFT;
        dh_word *word = (dh_word *)dh_at(heap, page) + check_random_below(DH_PAGE_WORDS);
        dh_census *census;
        dh_growth *growth;
        dh_path *path;

        damaged[damaged_count].at = word;
        damaged[damaged_count++].before = *word;
        if (check_random_below(2) == 0)
            *word = odd_words[check_random_below(6)];
        else
            *word = dh_ref((dh_type)check_random_below(32),
                           check_random_below(heap->arena.hwm_pages << DH_PAGE_SHIFT) & ~(dh_off)7);
        int rc = dhi_census_take(heap, round % 2 != 0 ? DH_CENSUS_CONTAINERS : 0, 3, &census);
        CHECK_EQ(rc, 0);
        if (round % 2 != 0) {
            CHECK_EQ(dh_growth_new(sound, census, 5, &growth), 0);
            dh_growth_free(growth);
        }
        broken += census->stats.broken_count;
        dh_census_free(census);
        if (round % 8 == 0) { /* somewhere in the middle, if it still can be reached */
            uint64_t number = check_random_below(sound->lineage.count);
            rc = dh_why(heap, sound->lineage.entries[number].word, &path);
            CHECK(rc == 0 || rc == DH_E_ABSENT);
            if (rc == 0)
                dh_path_free(path);
        }
        while (round % DAMAGED_MAX == DAMAGED_MAX - 1 && damaged_count > 0) {
            damaged_count--;
            *damaged[damaged_count].at = damaged[damaged_count].before;
        }
    }
    CHECK(broken > 100);
    dh_census *again = take(heap, false, 1000);
    CHECK_EQ(again->stats.bytes, sound->stats.bytes);
    dh_census_free(again);
    dh_census_free(sound);
    containers_unfence();
    dh_heap_close(heap);
}

static void test_no_memory(void)
{
    dh_heap *heap = containers_heap(16u << 20);
    dh_census *census;
    dh_path *path;

    fill(heap, 1);
    for (unsigned after = 0; after < 4; after++) {
        CHECK_EQ(dh_fault_set("arena.reserve", after, ENOMEM), 0);
        int rc = dh_census_take(heap, after % 2 != 0 ? DH_CENSUS_CONTAINERS : 0, &census);
        if (rc == 0)
            dh_census_free(census);
        else
            CHECK_EQ(rc, ENOMEM);
        CHECK(rc == ENOMEM || after >= 3);
        CHECK_EQ(dh_fault_set("arena.reserve", after, ENOMEM), 0);
        rc = dh_why(heap, heap->root, &path);
        if (rc == 0)
            dh_path_free(path);
        CHECK_EQ(rc, after < 3 ? ENOMEM : 0);
    }
    CHECK_EQ(dh_fault_set(NULL, 0, 0), 0);
    heap->is_forked = 1;
    CHECK_EQ(dh_census_take(heap, 0, &census), DH_E_FORKED);
    CHECK_EQ(dh_why(heap, heap->root, &path), DH_E_FORKED);
    heap->is_forked = 0;
    dh_heap_close(heap);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    test_counts();
    test_random_graph(100000);
    test_random_graph(3);
    test_paths();
    test_long_chain(20000);
    test_growth();
    test_growth_sums();
    test_damage();
    test_no_memory();
    return 0;
}
