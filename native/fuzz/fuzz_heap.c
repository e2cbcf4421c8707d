/* fuzz_heap.c -- hostile pages: the allocation table, and everything that hangs on the root.
 *
 *   input: u64 pages of the arena, u64 root, u64 next serial, the table's pages, the arena's from 1 on
 *
 * What was loaded is verified, collected and verified again: the checks of every structure meet what
 * mutations make of real heaps. The heap has the hash key zero, as the seeds' heaps do.
 */
#include <stdlib.h>

#include "../src/dict.h"
#include "../src/heap.h"
#include "../tests/check.h"
#include "fuzzer.h"

#define HEAD_BYTES 24u
#define PAGES_MAX 200u

/* How deep the inputs went. */
static struct {
    uint64_t refused, sound, unsound;
} fuzz_met;

static size_t take(const uint8_t *bytes, size_t size, uint8_t *to, size_t room)
{
    size_t count = size < room ? size : room;
    memcpy(to, bytes, count);
    return count;
}

static void put_pages(dh_heap *heap, const dh_state *state, const uint8_t *bytes, size_t size)
{
    size_t table_bytes = (size_t)dh_table_pages_for(state->hwm_pages) * DH_PAGE_BYTES;
    size_t used = take(bytes, size, dh_table_page(&heap->table, 0), table_bytes);
    take(bytes + used, size - used, dh_arena_page(&heap->arena, 1),
         (size_t)(state->hwm_pages - 1) * DH_PAGE_BYTES);
}

/* The first entries, in both directions. */
static void read_root(const dh_heap *heap)
{
    dh_dict_pos forth = {0}, back = {0};
    dh_word key, value;

    for (unsigned i = 0; i < 100; i++)
        if (dh_dict_next(heap, heap->root, &forth, &key, &value) != 1)
            break;
    for (unsigned i = 0; i < 100; i++)
        if (dh_dict_prev(heap, heap->root, &back, &key, &value) != 1)
            break;
}

/* Counting and naming follow what they have judged, and nothing else. */
static void survey(dh_heap *heap)
{
    dh_census *stacked, *lined;
    dh_growth *growth;
    dh_path *path;

    int rc = dh_census_take(heap, 0, &stacked);
    CHECK(rc == 0 || rc == DH_E_CORRUPT);
    if (rc != 0)
        return;
    CHECK_EQ(dh_census_take(heap, DH_CENSUS_CONTAINERS, &lined), 0);
    CHECK_EQ(dh_growth_new(lined, lined, 3, &growth), 0);
    dh_growth_free(growth);
    dh_dict_pos pos = {0};
    dh_word key, value;
    for (unsigned i = 0; i < 4 && dh_dict_next(heap, heap->root, &pos, &key, &value) == 1; i++) {
        rc = dh_why(heap, value, &path);
        CHECK(rc == 0 || rc == DH_E_ABSENT);
        if (rc == 0)
            dh_path_free(path);
    }
    dh_census_free(stacked);
    dh_census_free(lined);
}

static void use(dh_heap *heap)
{
    uint64_t cells, problems;
    dh_collect_stats stats;

    CHECK_EQ(dh_check(heap, &cells, &problems), 0);
    if (problems == 0)
        fuzz_met.sound++;
    else
        fuzz_met.unsound++;
    read_root(heap);
    survey(heap);
    int rc = dh_collect(heap, &stats); /* refused only where a page of the table is unusable */
    CHECK(rc == 0 || (rc == DH_E_CORRUPT && problems > 0));
    CHECK_EQ(dh_check(heap, &cells, &problems), 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    dh_options options = {.capacity_bytes = 1u << 20, .tracker = DH_TRACKER_COMPARE};
    dh_state state;
    dh_heap *heap;

    if (size < HEAD_BYTES)
        return 0;
    memcpy(&state.hwm_pages, bytes, 8);
    memcpy(&state.root, bytes + 8, 8);
    memcpy(&state.serial_next, bytes + 16, 8);
    state.hwm_pages = state.hwm_pages % PAGES_MAX + 1;
    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    put_pages(heap, &state, bytes + HEAD_BYTES, size - HEAD_BYTES);
    int rc = dh_load_finish(heap, &state);
    CHECK(rc == 0 || rc == DH_E_CORRUPT || rc == DH_E_FULL);
    if (rc == 0)
        use(heap);
    else
        fuzz_met.refused++;
    dh_heap_close(heap);
    return 0;
}
