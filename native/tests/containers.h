/* containers.h -- a running heap under the script tracker, keys of every kind, and a full check,
 * for the tests of values, vectors, lists and dicts.
 */
#ifndef DH_TEST_CONTAINERS_H
#define DH_TEST_CONTAINERS_H

#include "check.h"
#include "dict.h"
#include "list.h"

#include <stdlib.h>
#include <sys/mman.h>

static inline dh_heap *containers_heap(uint64_t capacity_bytes)
{
    dh_options options = {capacity_bytes, DH_TRACKER_SCRIPT, {check_random(), check_random()}};
    dh_heap *heap = NULL;
    CHECK_EQ(dh_heap_open(&options, &heap), 0);
    CHECK_EQ(dh_load_finish(heap, NULL), 0);
    return heap;
}

static inline uint64_t containers_allocated(dh_heap *heap)
{
    dh_heap_stats stats;
    dh_heap_stats_read(heap, &stats);
    return stats.allocated_bytes;
}

/* From here on a step behind the last page is a fault, and nothing can be allocated. */
static inline void containers_fence(dh_heap *heap)
{
    uint64_t used = heap->arena.hwm_pages, all = heap->arena.capacity_pages;
    CHECK_EQ(mprotect(dh_arena_page(&heap->arena, (dh_pgno)used), (all - used) * DH_PAGE_BYTES,
                      PROT_NONE),
             0);
    CHECK_EQ(dh_fault_set("alloc.cell", 0, DH_E_FULL), 0);
}

static inline void containers_unfence(void) { CHECK_EQ(dh_fault_set(NULL, 0, 0), 0); }

/* Text for number k: short, medium or long, never the same for two numbers. */
static inline size_t containers_text(uint64_t k, uint8_t text[64])
{
    static const char *const forms[] = {"%llx", "name-%06llu", "a key of some length, number %llu"};
    return (size_t)snprintf((char *)text, 64, forms[k % 3], (unsigned long long)k);
}

/* Storage that a key borrows. */
typedef struct {
    dh_key key;
    uint8_t scratch[DH_KEY_SCRATCH_BYTES];
} containers_key;

/* Number k as key: ints, floats, strings and bytes take turns. */
static inline const dh_key *containers_key_of(const dh_heap *heap, uint64_t k, containers_key *key)
{
    switch (k % 5) {
    case 0:
        dh_key_from_int(heap, (int64_t)(k * 977), &key->key);
        break;
    case 1:
        dh_key_from_float(heap, (double)k + 0.5, key->scratch, &key->key);
        break;
    case 2:
        dh_key_from_bytes(heap, key->scratch, containers_text(k, key->scratch), &key->key);
        break;
    default:
        dh_key_from_str(heap, key->scratch, containers_text(k, key->scratch), &key->key);
        break;
    }
    return &key->key;
}

static inline int containers_key_word(dh_heap *heap, uint64_t k, dh_word *word_out)
{
    uint8_t text[64];
    switch (k % 5) {
    case 0:
        *word_out = dh_int((int64_t)(k * 977));
        return 0;
    case 1:
        return dh_float_new(heap, (double)k + 0.5, word_out);
    case 2:
        return dh_bytes_new(heap, text, containers_text(k, text), word_out);
    default:
        return dh_str_new(heap, text, containers_text(k, text), word_out);
    }
}

/* The container hangs on the root, so that dh_check walks it and dh_collect leaves it alone; what
 * hung there before is collected. */
static inline void containers_root(dh_heap *heap, dh_word container)
{
    dh_collect_stats stats;
    dh_key key;
    bool was_new;
    dh_key_from_int(heap, 0, &key);
    CHECK_EQ(dh_dict_set(heap, heap->root, &key, dh_int(0), container, &was_new), 0);
    CHECK_EQ(dh_collect(heap, &stats), 0);
}

/* Everything reachable is sound and everything allocated is reachable. */
static inline void containers_verify(dh_heap *heap)
{
    uint64_t cells, problems;
    dh_collect_stats stats;
    CHECK_EQ(dh_check(heap, &cells, &problems), 0);
    if (problems != 0)
        fprintf(stderr, "%s\n", dh_heap_error_text(heap));
    CHECK_EQ(problems, 0);
    CHECK_EQ(dh_collect(heap, &stats), 0);
    CHECK_EQ(stats.freed_cells_count, 0);
}

#endif
