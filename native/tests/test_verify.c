/* test_verify.c -- verify finds what is damaged and nothing else, and no damage breaks it.
 *
 * A heap with every kind of inner cell; words written over one at a time, in a heap that is loaded
 * from its pages again and again (the fuzzer's target does that); base files and deltas checked and
 * played back without a heap.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "../fuzz/fuzz_heap.c"
#include "capture.h"
#include "containers.h"
#include "crc32c.h"
#include "deque.h"
#include "set.h"
#include "sorted.h"

#define FILES_MAX 8u

static void put(dh_heap *heap, dh_word dict, uint64_t k, dh_word value)
{
    containers_key storage;
    const dh_key *key = containers_key_of(heap, k, &storage);
    dh_word word;
    bool was_new;

    CHECK_EQ(containers_key_word(heap, k, &word), 0);
    CHECK_EQ(dh_dict_set(heap, dict, key, word, value, &was_new), 0);
}

static dh_word text(dh_heap *heap, uint64_t k)
{
    uint8_t bytes[64];
    dh_word word;
    CHECK_EQ(dh_str_new(heap, bytes, containers_text(k * 3 + 2, bytes), &word), 0);
    return word;
}

/* Dicts of three sizes, a set, lists plain and relaxed, a deque, a sorted dict, nested tuples. */
static void fill(dh_heap *heap, uint64_t scale)
{
    dh_word dict, list, deque, sorted, set, tuple;
    bool was_new;

    for (uint64_t size = 6, n = 0; n < 3; size *= 6 * scale, n++) {
        CHECK_EQ(dh_dict_new(heap, &dict), 0);
        put(heap, heap->root, n, dict);
        for (uint64_t i = 0; i < size; i++)
            put(heap, dict, i, text(heap, i));
    }
    CHECK_EQ(dh_list_new(heap, &list), 0);
    put(heap, heap->root, 10, list);
    for (uint64_t i = 0; i < 900 * scale; i++)
        CHECK_EQ(dh_list_append(heap, list, i % 7 == 0 ? text(heap, i) : dh_int((int64_t)i)), 0);
    for (uint64_t i = 0; i < 20; i++) {
        dh_word word = text(heap, i);
        CHECK_EQ(dh_list_splice(heap, list, 100 + i * 9, i % 2, &word, 1), 0);
    }
    CHECK_EQ(dh_deque_new(heap, 50, &deque), 0);
    put(heap, heap->root, 11, deque);
    CHECK_EQ(dh_list_append(heap, deque, text(heap, 1)), 0);
    CHECK_EQ(dh_sorted_new(heap, &sorted), 0);
    put(heap, heap->root, 12, sorted);
    for (uint64_t i = 0; i < 400 * scale; i++) {
        dh_key key;
        dh_key_from_int(heap, (int64_t)(i * 7 % 400), &key);
        CHECK_EQ(dh_sorted_set(heap, sorted, &key, dh_int((int64_t)(i * 7 % 400)), text(heap, i),
                               &was_new),
                 0);
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
}

/* --- one heap ---------------------------------------------------------------------------------- */

static uint64_t problems_of(dh_heap *heap, dh_verify_stats *stats_out)
{
    dh_verify *verify;
    int is_done = 0;

    CHECK_EQ(dh_verify_new(heap, &verify), 0);
    while (!is_done) /* in steps of a few cells: the result is the same */
        CHECK_EQ(dh_verify_run(verify, 1 + check_random_below(50), &is_done), 0);
    dh_verify_stats_read(verify, stats_out);
    dh_verify_free(verify);
    return stats_out->problems_count;
}

static void test_sound(void)
{
    dh_heap *heap = containers_heap(16u << 20);
    dh_verify_stats stats;
    uint64_t cells, problems;
    dh_collect_stats collected;
    dh_word garbage;

    fill(heap, 1);
    containers_verify(heap);
    CHECK_EQ(dh_list_new(heap, &garbage), 0);
    CHECK_EQ(dh_list_append(heap, garbage, text(heap, 1)), 0);
    CHECK_EQ(problems_of(heap, &stats), 0);
    CHECK_EQ(dh_check(heap, &cells, &problems), 0);
    CHECK_EQ(stats.cells_count, cells);
    CHECK_EQ(stats.allocated_cells_count, stats.cells_count + stats.unreachable_cells_count);
    CHECK_EQ(stats.unreachable_cells_count, 3); /* head, leaf, text */
    CHECK_EQ(dh_collect(heap, &collected), 0);
    CHECK_EQ(collected.freed_cells_count, 3);
    CHECK_EQ(collected.freed_bytes, stats.unreachable_bytes);
    CHECK_EQ(collected.live_cells_count, stats.cells_count);
    dh_heap_close(heap);
}

/* The allocator's own state, which no file holds. */
static void test_allocator(void)
{
    dh_heap *heap = containers_heap(16u << 20);
    dh_verify_stats stats;

    fill(heap, 1);
    CHECK_EQ(problems_of(heap, &stats), 0);
    heap->alloc.free_pages_count++;
    CHECK_EQ(problems_of(heap, &stats), 1);
    heap->alloc.free_pages_count--;
    heap->alloc.allocated_bytes -= 16;
    CHECK_EQ(problems_of(heap, &stats), 1);
    heap->alloc.allocated_bytes += 16;
    uint64_t page = dh_ref_off(heap->root) >> DH_PAGE_SHIFT;
    heap->alloc.free_cells[page]++;
    CHECK(problems_of(heap, &stats) >= 1);
    heap->alloc.free_cells[page]--;
    heap->alloc.fresh[page].bits[3] ^= (uint64_t)1 << 63;
    CHECK(problems_of(heap, &stats) >= 1);
    heap->alloc.fresh[page].bits[3] ^= (uint64_t)1 << 63;
    CHECK_EQ(problems_of(heap, &stats), 0);
    dh_heap_close(heap);
}

/* --- damage ------------------------------------------------------------------------------------ */

/* The heap as the fuzzer's target reads it. */
static size_t take_image(dh_heap *heap, uint8_t **image_out)
{
    uint64_t pages = heap->arena.hwm_pages, table_pages = dh_table_pages_for(pages);
    size_t size = HEAD_BYTES + (size_t)(table_pages + pages - 1) * DH_PAGE_BYTES;
    uint8_t *image = calloc(1, size), *table = image + HEAD_BYTES;
    uint64_t head[] = {pages - 1, heap->root, heap->serial_next};

    CHECK(image != NULL && pages < PAGES_MAX);
    memcpy(image, head, sizeof head);
    for (uint64_t p = 0; p < pages; p++) {
        dh_table_entry entry;
        dh_table_entry_now(heap, (dh_pgno)p, &entry);
        dh_table_encode(table + dh_table_page_of((dh_pgno)p) * (size_t)DH_PAGE_BYTES,
                        (uint32_t)(p % DH_TABLE_ENTRIES_PER_PAGE), &entry);
    }
    memcpy(table + table_pages * DH_PAGE_BYTES, dh_arena_page(&heap->arena, 1),
           (size_t)(pages - 1) * DH_PAGE_BYTES);
    *image_out = image;
    return size;
}

static void damage(uint8_t *image, size_t size)
{
    static const uint64_t numbers[] = {0, 1, 3, 8, 511, 4096, 1u << 20, UINT64_MAX, 1ull << 62};
    uint64_t word, other;

    for (uint64_t left = 1 + check_random_below(3); left > 0; left--) {
        size_t at = 8 + 8 * check_random_below(size / 8 - 2);
        size_t from = HEAD_BYTES + 8 * check_random_below((size - HEAD_BYTES) / 8 - 1);
        memcpy(&word, image + at, 8);
        memcpy(&other, image + from, 8);
        switch (check_random_below(5)) {
        case 0:
            word ^= (uint64_t)1 << check_random_below(64);
            break;
        case 1:
            word = numbers[check_random_below(sizeof numbers / sizeof numbers[0])] << 1 | 1;
            break;
        case 2:
            word = check_random();
            break;
        case 3:
            word = (word & 0xff) | (other & ~(uint64_t)0xff);
            break;
        default:
            word = other;
        }
        memcpy(image + at, &word, 8);
    }
}

static void test_damage(void)
{
    dh_options options = {1u << 20, DH_TRACKER_SCRIPT, {0, 0}}; /* the key of the fuzzer's heaps */
    dh_heap *heap;
    uint8_t *image, *copy;

    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    fill(heap, 1);
    size_t size = take_image(heap, &image);
    dh_heap_close(heap);
    CHECK_EQ(LLVMFuzzerTestOneInput(image, size), 0);
    CHECK_EQ(fuzz_met.sound, 1);
    copy = malloc(size);
    CHECK(copy != NULL);
    for (unsigned round = 0; round < 1500; round++) {
        memcpy(copy, image, size);
        damage(copy, size);
        CHECK_EQ(LLVMFuzzerTestOneInput(copy, size), 0);
    }
    printf("%llu refused, %llu unsound, %llu sound\n", (unsigned long long)fuzz_met.refused,
           (unsigned long long)fuzz_met.unsound, (unsigned long long)fuzz_met.sound);
    CHECK(fuzz_met.refused > 1 && fuzz_met.unsound > 300); /* the rest met no word in use */
    free(copy);
    free(image);
}

/* --- files ------------------------------------------------------------------------------------- */

typedef struct {
    int fd;
    uint32_t extent_no, checksum;
    uint64_t version, file_bytes;
} base_file;

typedef struct {
    base_file files[FILES_MAX];
    size_t files_count;
    uint8_t *chunks[64];
    size_t sizes[64];
    uint64_t commits[64];
    size_t chunks_count;
    dh_state state;
} storage;

static void write_bases(dh_heap *heap, uint64_t version, storage *stored)
{
    uint32_t numbers[FILES_MAX];
    size_t count = dh_extents_unfolded(heap, numbers, FILES_MAX);

    CHECK(count > 0 && count <= FILES_MAX);
    for (size_t i = 0; i < count; i++) {
        base_file *file = &stored->files[stored->files_count++];
        *file = (base_file){memfd_create("base", 0), numbers[i], 0, version, 0};
        CHECK(file->fd >= 0);
        CHECK_EQ(dh_extent_write(heap, NULL, numbers[i], version, file->fd, &file->file_bytes,
                                 &file->checksum),
                 0);
        CHECK_EQ(
            dh_extent_switch(heap, numbers[i], version, file->fd, file->file_bytes, file->checksum),
            0);
    }
}

static void commit(dh_heap *heap, uint64_t id, storage *stored)
{
    dh_capture *capture;

    CHECK_EQ(dh_commit_capture(heap, &capture), 0);
    CHECK_EQ(dh_commit_encode(heap, capture, id - 1, id, 1u << 20), 0);
    for (size_t i = 0; i < dh_commit_chunks_count(capture); i++) {
        size_t n = stored->chunks_count++;
        const uint8_t *bytes = dh_commit_chunk(capture, i, &stored->sizes[n]);
        stored->chunks[n] = malloc(stored->sizes[n]);
        CHECK(stored->chunks[n] != NULL);
        memcpy(stored->chunks[n], bytes, stored->sizes[n]);
        stored->commits[n] = id;
    }
    dh_commit_state(capture, &stored->state);
    CHECK_EQ(dh_commit_done(heap, &capture), 0);
}

static void check_bases(const storage *stored, size_t damaged, uint32_t bad_page)
{
    for (size_t i = 0; i < stored->files_count; i++) {
        const base_file *file = &stored->files[i];
        uint32_t bad[4];
        size_t bad_count;
        char why[128];
        CHECK_EQ(dh_base_check(file->fd, file->file_bytes, file->extent_no, file->version,
                               file->checksum, bad, 4, &bad_count, why, sizeof why),
                 0);
        CHECK_EQ(bad_count, i == damaged);
        CHECK(i != damaged || bad[0] == bad_page);
        CHECK_EQ(dh_base_check(file->fd, file->file_bytes, file->extent_no, file->version + 1,
                               file->checksum, bad, 4, &bad_count, why, sizeof why),
                 DH_E_CORRUPT);
        CHECK_EQ(dh_base_check(file->fd, file->file_bytes - 4, file->extent_no, file->version,
                               file->checksum, bad, 4, &bad_count, why, sizeof why),
                 DH_E_CORRUPT);
    }
}

static dh_replay *play_back(const storage *stored)
{
    dh_replay *replay;
    char why[128];

    CHECK_EQ(dh_replay_new(&replay), 0);
    for (size_t i = 0; i < stored->files_count; i++) {
        const base_file *file = &stored->files[i];
        CHECK_EQ(dh_replay_base(replay, file->extent_no, file->version, file->fd,
                                (uint32_t)(file->file_bytes / (DH_PAGE_BYTES + 4))),
                 0);
    }
    for (size_t i = 0; i < stored->chunks_count; i++)
        CHECK_EQ(dh_replay_chunk(replay, stored->commits[i], 0, stored->chunks[i], stored->sizes[i],
                                 why, sizeof why),
                 0);
    CHECK_EQ(dh_replay_chunk(replay, stored->commits[0] + 1, 0, stored->chunks[0], stored->sizes[0],
                             why, sizeof why),
             DH_E_CORRUPT);
    return replay;
}

/* What was played back is the heap that was stored. */
static void check_shown(dh_replay *replay, const storage *stored, const dh_heap *original)
{
    dh_options options = {16u << 20, DH_TRACKER_COMPARE, {1, 2}};
    dh_heap *heap;
    uint64_t cells, problems;

    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    CHECK_EQ(dh_replay_show(replay, heap), 0);
    CHECK_EQ(dh_load_finish(heap, &stored->state), 0);
    CHECK_EQ(dh_check(heap, &cells, &problems), 0);
    CHECK_EQ(problems, 0);
    CHECK_EQ(heap->alloc.allocated_bytes, original->alloc.allocated_bytes);
    for (uint64_t p = 1; p < original->arena.hwm_pages; p++)
        if (original->alloc.kind[p] != DH_KIND_FREE)
            CHECK_EQ(memcmp(dh_arena_page(&heap->arena, (dh_pgno)p),
                            dh_arena_page(&original->arena, (dh_pgno)p), DH_PAGE_BYTES),
                     0);
    dh_heap_close(heap);
}

static void flip(const base_file *file, uint64_t at)
{
    uint8_t byte;
    CHECK_EQ(pread(file->fd, &byte, 1, (off_t)at), 1);
    byte ^= 4;
    CHECK_EQ(pwrite(file->fd, &byte, 1, (off_t)at), 1);
}

static void test_files(void)
{
    dh_options options = {16u << 20, DH_TRACKER_COMPARE, {1, 2}};
    static storage stored;
    dh_heap *heap;
    uint32_t pgno;
    uint64_t commit_id;

    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    fill(heap, 2);
    commit(heap, 1, &stored);
    for (; stored.chunks_count > 0; stored.chunks_count--)
        free(stored.chunks[stored.chunks_count - 1]);
    write_bases(heap, 1, &stored);
    for (uint64_t id = 2; id < 8; id++) {
        put(heap, heap->root, 100 + id, text(heap, id));
        commit(heap, id, &stored);
    }
    check_bases(&stored, SIZE_MAX, 0);
    dh_replay *replay = play_back(&stored);
    CHECK_EQ(dh_replay_bad_count(replay), 0);
    CHECK(dh_replay_pages_count(replay) > 0);
    check_shown(replay, &stored, heap);
    dh_replay_free(replay);

    uint64_t root_page = dh_ref_off(heap->root) >> DH_PAGE_SHIFT;
    flip(&stored.files[0], root_page << DH_PAGE_SHIFT | 0xff0);
    check_bases(&stored, 0, (uint32_t)root_page);
    replay = play_back(&stored); /* deltas over the page that is damaged */
    CHECK_EQ(dh_replay_bad_count(replay), 1);
    CHECK_EQ(dh_replay_bad_read(replay, 0, &pgno, &commit_id), 0);
    CHECK_EQ(pgno, root_page);
    CHECK_EQ(commit_id, 2);
    CHECK_EQ(dh_replay_bad_read(replay, 1, &pgno, &commit_id), DH_E_ABSENT);
    dh_replay_fold(replay);
    CHECK_EQ(dh_replay_bad_count(replay) + dh_replay_pages_count(replay), 0);
    dh_replay_free(replay);
    dh_heap_close(heap);
    for (size_t i = 0; i < stored.chunks_count; i++)
        free(stored.chunks[i]);
    for (size_t i = 0; i < stored.files_count; i++)
        close(stored.files[i].fd);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv);
    test_sound();
    test_allocator();
    test_damage();
    test_files();
    return 0;
}
