/* collect_plain.c -- see collect_plain.h. */
#include "collect_plain.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "collect_world.h"

#define MARKED ((uint64_t)1 << 63)

static void *memory_new(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        fail("mmap", strerror(errno));
    madvise(memory, bytes, MADV_NOHUGEPAGE); /* as the arena */
    return memory;
}

static bool holds_refs(const dh_heap *heap, uint64_t pgno)
{
    unsigned kind = heap->alloc.kind[pgno];

    if (kind == DH_KIND_CONT)
        kind = heap->alloc.kind[pgno - heap->alloc.run[pgno]];
    return kind == DH_KIND_RUN_REFS || (kind >= DH_KIND_CELLS && (kind & 1u) == DH_REFS);
}

static uintptr_t address_of(const plain_graph *plain, const dh_heap *heap, dh_word word)
{
    dh_off off = dh_ref_off(word);
    uintptr_t leaf = holds_refs(heap, off >> DH_PAGE_SHIFT) ? 0 : PLAIN_LEAF;

    return (uintptr_t)(plain->memory + off) | leaf;
}

static void copy_page(plain_graph *plain, const dh_heap *heap, uint64_t pgno)
{
    dh_word *words = (void *)(plain->memory + (pgno << DH_PAGE_SHIFT));

    memcpy(words, dh_at(heap, pgno << DH_PAGE_SHIFT), DH_PAGE_BYTES);
    if (!holds_refs(heap, pgno))
        return;
    for (size_t i = 0; i < DH_PAGE_WORDS; i++) {
        if (dh_is_ref(words[i]) && dh_ref_off(words[i]) < plain->bytes)
            words[i] = address_of(plain, heap, words[i]);
        else if (dh_is_int(words[i]))
            words[i] = (dh_word)dh_int_value(words[i]);
    }
}

void plain_copy(plain_graph *plain, const dh_heap *heap, dh_word root)
{
    memset(plain, 0, sizeof(*plain));
    plain->bytes = heap->arena.hwm_pages << DH_PAGE_SHIFT;
    plain->memory = memory_new(plain->bytes);
    plain->bits = memory_new(plain->bytes / DH_GRANULE_BYTES / 8);
    for (uint64_t p = 1; p < heap->arena.hwm_pages; p++)
        copy_page(plain, heap, p);
    plain->root = (void *)(plain->memory + dh_ref_off(root));
}

void plain_free(plain_graph *plain)
{
    munmap(plain->memory, plain->bytes);
    munmap(plain->bits, plain->bytes / DH_GRANULE_BYTES / 8);
    free(plain->stack);
}

static void push(plain_graph *plain, size_t *count, plain_object *object)
{
    if (*count == plain->stack_room) {
        plain->stack_room = plain->stack_room * 2 + 1024;
        plain->stack = realloc(plain->stack, plain->stack_room * sizeof(*plain->stack));
        if (plain->stack == NULL)
            fail("realloc", "out of memory");
    }
    plain->stack[(*count)++] = object;
}

static inline bool mark_beside(plain_graph *plain, uintptr_t address)
{
    uint64_t granule = (address - (uintptr_t)plain->memory) / DH_GRANULE_BYTES;
    uint64_t bit = (uint64_t)1 << granule % 64, *word = &plain->bits[granule / 64];
    bool is_new = (*word & bit) == 0;

    *word |= bit;
    return is_new;
}

static inline bool mark_inside(uintptr_t address)
{
    plain_object *object = (void *)(address & ~(uintptr_t)PLAIN_LEAF);
    bool is_new = (object->refs_count & MARKED) == 0;

    object->refs_count |= MARKED;
    return is_new;
}

static inline uint64_t trace(plain_graph *plain, bool is_beside)
{
    uint64_t marked = 1;
    size_t count = 0;

    (void)(is_beside ? mark_beside(plain, (uintptr_t)plain->root)
                     : mark_inside((uintptr_t)plain->root));
    push(plain, &count, plain->root);
    while (count > 0) {
        const plain_object *object = plain->stack[--count];
        uint64_t refs_count = object->refs_count & ~MARKED;

        for (uint64_t i = 0; i < refs_count; i++) {
            uintptr_t address = object->refs[i];

            if (address == 0 || !(is_beside ? mark_beside(plain, address) : mark_inside(address)))
                continue;
            marked++;
            if (!(address & PLAIN_LEAF))
                push(plain, &count, (void *)address);
        }
    }
    return marked;
}

uint64_t plain_mark_beside(plain_graph *plain) { return trace(plain, true); }
uint64_t plain_mark_inside(plain_graph *plain) { return trace(plain, false); }
