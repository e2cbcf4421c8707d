/* show.c -- the one verb behind rollback, savepoints and restore: make the arena show state S.
 *
 * S is the last commit, a savepoint laid over it, or an older commit, which another heap object was
 * loaded at. Order: scan (so that every cursor hears of
 * every page touched until now), allocation entries, page bytes, then handles. Pages are compared
 * before they are stored to, and stay in the cursors: a thread without the world lock may have
 * written meanwhile, and a page reported twice costs a comparison while one not reported costs data.
 *
 * The high-water mark and the serial counter never go back: what lies below the mark may be dirty,
 * and an identity number that was handed out must not come again.
 */
#include "array.h"
#include "buffer.h"
#include "capture.h"
#include "cycle.h"
#include "gate.h"
#include "lazy.h"

/* Where state S is found: in the savepoint what it holds, else in the committed state of `image`. */
typedef struct {
    const dh_capture *savepoint; /* NULL: none                                                */
    const dh_heap *image;        /* the heap itself, or a snapshot of the same store          */
} target;

static void target_entry(const target *to, dh_pgno pgno, dh_table_entry *entry_out)
{
    const dh_captured_entry *captured =
        to->savepoint ? dh_capture_entry(to->savepoint, pgno) : NULL;

    if (captured != NULL)
        *entry_out = captured->entry;
    else if (pgno < to->image->arena.hwm_pages)
        dh_table_read(&to->image->table, pgno, entry_out);
    else /* not handed out yet, in the older state */
        *entry_out = (dh_table_entry){.kind = DH_KIND_FREE};
}

static const uint8_t *target_bytes(const target *to, dh_pgno pgno, uint8_t *scratch)
{
    const uint8_t *bytes = to->savepoint ? dh_capture_page(to->savepoint, pgno) : NULL;
    return bytes != NULL ? bytes : dh_image_read(to->image, pgno, scratch);
}

static void show_entry(dh_heap *heap, const target *to, dh_pgno pgno)
{
    dh_table_entry entry;

    target_entry(to, pgno, &entry);
    dh_alloc_count_page(heap, pgno, false);
    dh_table_entry_show(heap, pgno, &entry);
    if (entry.kind == DH_KIND_FREE && dh_page_is_pinned(&heap->alloc, pgno))
        heap->alloc.kind[pgno] = DH_KIND_PINNED;
    dh_alloc_count_page(heap, pgno, true);
}

static void show_entries(dh_heap *heap, const target *to)
{
    dh_alloc *alloc = &heap->alloc;
    uint64_t limit = heap->arena.hwm_pages;

    dh_alloc_drop_cursors(heap); /* their pages have changed entries */
    memset(alloc->run_floor, 0, sizeof alloc->run_floor);
    for (uint64_t p = dh_bits_next(&alloc->changed, 1, limit); p < limit;
         p = dh_bits_next(&alloc->changed, p + 1, limit)) {
        show_entry(heap, to, (dh_pgno)p);
        dh_alloc_list_page(heap, (dh_pgno)p);
    }
    if (to->savepoint == NULL && to->image == heap)
        dh_bits_clear_all(&alloc->changed, limit);
}

static uint64_t show_pages(dh_heap *heap, const target *to, const dh_bits *written)
{
    uint8_t scratch[DH_PAGE_BYTES];
    uint64_t limit = heap->arena.hwm_pages, stored = 0;

    for (uint64_t p = dh_bits_next(written, 1, limit); p < limit;
         p = dh_bits_next(written, p + 1, limit)) {
        unsigned kind = heap->alloc.kind[p];
        if (kind == DH_KIND_FREE || kind == DH_KIND_PINNED)
            continue; /* bytes of a free page are undefined */
        const uint8_t *bytes = target_bytes(to, (dh_pgno)p, scratch);
        uint8_t *page = dh_arena_page(&heap->arena, (dh_pgno)p);
        if (memcmp(page, bytes, DH_PAGE_BYTES) != 0) {
            memcpy(page, bytes, DH_PAGE_BYTES);
            stored++;
        }
    }
    return stored;
}

static bool handle_is_valid(const dh_heap *heap, const dh_handle *handle)
{
    const dh_word *head;
    if (!dh_cell_is_allocated(heap, dh_ref_off(handle->word)))
        return false;
    head = dh_deref(heap, handle->word, dh_ref_type(handle->word), DH_HEAD_BYTES);
    return head != NULL && dh_is_meta(head[0]) && dh_meta_serial(head[0]) == handle->serial;
}

static void revalidate_handles(dh_heap *heap)
{
    size_t index = 0;
    dh_handle *handle;
    while ((handle = dh_handles_next(&heap->handles, &index)) != NULL) {
        if (!handle_is_valid(heap, handle)) {
            dh_handles_remove(&heap->handles, handle);
            handle->word = 0;
        }
    }
}

/* With the world stopped: the pages to look at are in `written`, beside those the scan finds. */
static uint64_t show(dh_heap *heap, const target *to, dh_bits *written)
{
    dhi_cycle_leave(heap);
    /* A scan that fails has entered its pages into the cursor, which is all that is needed here. */
    (void)dh_watch_scan(heap->watch, heap->arena.hwm_pages, NULL);
    dh_watch_copy(heap->watch, heap->commit_cursor, written, heap->arena.hwm_pages);
    show_entries(heap, to);
    heap->frees_count++;
    uint64_t pages = show_pages(heap, to, written);
    revalidate_handles(heap);
    heap->shows_count++;
    return pages;
}

int dh_show_state(dh_heap *heap, dh_capture *savepoint, uint64_t *pages_out, uint64_t *stop_ns_out)
{
    dh_bits own, *written = &own;
    *pages_out = *stop_ns_out = 0;
    if (heap->lazy != NULL && !heap->is_read_only && !heap->is_forked)
        return 0; /* nothing was stored */
    int rc = dhi_verb_gate(heap);

    if (rc != 0)
        return rc;
    if (savepoint == NULL)
        savepoint = heap->empty; /* NULL after the first commit */
    if (savepoint != NULL)
        written = &savepoint->changed; /* made when it was taken: going back needs no memory */
    else
        rc = dh_bits_init(&own, heap->arena.capacity_pages);
    if (rc != 0)
        return rc;
    dhi_world_stop(heap);
    uint64_t stop_began_ns = dhi_clock_ns();
    *pages_out = show(heap, &(target){savepoint, heap}, written);
    *stop_ns_out = dhi_clock_ns() - stop_began_ns;
    dhi_world_resume(heap);
    if (savepoint == NULL)
        dh_bits_finish(&own);
    else
        dh_bits_clear_all(written, heap->arena.hwm_pages);
    return 0;
}

/* --- an older commit ---------------------------------------------------------------------------- */

static bool entries_equal(const dh_table_entry *a, const dh_table_entry *b)
{
    return a->kind == b->kind && memcmp(a->value, b->value, sizeof a->value) == 0;
}

/* Whether a container is in the older state, with the same words in its head. */
static bool container_is_in(const dh_heap *heap, const dh_heap *source, dh_word word)
{
    uint8_t scratch[DH_PAGE_BYTES];
    dh_off off = dh_ref_off(word);
    const void *now = dh_deref(heap, word, dh_ref_type(word), DH_HEAD_BYTES);

    if (now == NULL || !dh_cell_is_allocated(source, off))
        return false;
    const uint8_t *then = dh_image_read(source, (dh_pgno)(off >> DH_PAGE_SHIFT), scratch);
    return memcmp(then + off % DH_PAGE_BYTES, now, DH_HEAD_BYTES) == 0;
}

/* The Buffer that a handle leads to, of itself or of an Array, when its memory begins at this page;
 * else 0. */
static dh_word handle_buffer_at(const dh_heap *heap, const dh_handle *handle, dh_pgno first)
{
    dh_word buffer = handle->word;
    uint8_t *data;
    uint64_t size;

    if (dh_is_ref_to(buffer, DH_T_ARRAY) && dh_array_buffer(heap, buffer, &buffer) != 0)
        return 0;
    if (!dh_is_ref_to(buffer, DH_T_BUFFER) || dh_buffer_read(heap, buffer, &data, &size) != 0)
        return 0;
    return size > 0 && data == dh_arena_page(&heap->arena, first) ? buffer : 0;
}

/* The Buffer that owns a pinned run, if a live handle leads to it; else 0. */
static dh_word pin_owner(const dh_heap *heap, const dh_pin *pin)
{
    size_t index = 0;
    const dh_handle *handle;

    while ((handle = dh_handles_next(&heap->handles, &index)) != NULL) {
        dh_word buffer = handle_buffer_at(heap, handle, pin->first);
        if (buffer != 0)
            return buffer;
    }
    return 0;
}

/* R3: what views may write to is free in the older state, or the same Buffer's. */
static bool pin_allows(const dh_heap *heap, const dh_heap *source, const dh_pin *pin)
{
    const target to = {NULL, source};
    bool is_free = true, is_same = true;

    for (uint32_t i = 0; i < pin->pages_count; i++) {
        dh_table_entry now, then;
        dh_table_entry_now(heap, pin->first + i, &now);
        target_entry(&to, pin->first + i, &then);
        is_free = is_free && then.kind == DH_KIND_FREE;
        is_same = is_same && entries_equal(&now, &then);
    }
    if (is_free || !is_same)
        return is_free;
    dh_word owner = pin_owner(heap, pin);
    return owner != 0 && container_is_in(heap, source, owner);
}

static int check_source(dh_heap *heap, const dh_heap *source)
{
    if (source->root != heap->root || source->arena.hwm_pages > heap->arena.hwm_pages)
        return dhi_fail(heap, DH_E_CORRUPT, "the older state is not one of this heap");
    for (size_t i = 0; i < heap->alloc.pins_count; i++) {
        if (!pin_allows(heap, source, &heap->alloc.pins[i]))
            return dhi_fail(heap, EBUSY,
                            "a view of a buffer is alive whose memory holds something else in "
                            "that state: release it (memoryview, ndarray) and try again");
    }
    return 0;
}

/* Entries that differ count as changed; pages whose committed bytes may differ, as written, and so
 * do those whose entry was changed: what a free page holds nobody knows. */
static void enter_differences(dh_heap *heap, const dh_heap *source, dh_bits *written)
{
    const target to = {NULL, source};
    uint64_t limit = heap->arena.hwm_pages;

    for (uint64_t p = 1; p < limit; p++) {
        dh_table_entry now, then;
        dh_table_entry_now(heap, (dh_pgno)p, &now);
        target_entry(&to, (dh_pgno)p, &then);
        if (!entries_equal(&now, &then))
            dh_bits_set(&heap->alloc.changed, p);
        if (!dh_images_share(heap, source, dh_extent_of((dh_pgno)p)))
            dh_bits_set(written, p);
    }
    dh_bits_or(written, &heap->alloc.changed, limit);
}

int dh_show_heap(dh_heap *heap, const dh_heap *source, uint64_t *pages_out, uint64_t *stop_ns_out)
{
    dh_bits written;
    int rc;

    rc = dhi_verb_gate(heap);
    if (rc == 0 && (rc = dhi_lazy_settle(source)) != 0)
        (void)dhi_fail(heap, rc, "%s", source->error_text);
    if (rc == 0)
        rc = dh_bits_init(&written, heap->arena.capacity_pages);
    if (rc != 0)
        return rc;
    dhi_world_stop(heap);
    uint64_t stop_began_ns = dhi_clock_ns();
    rc = check_source(heap, source);
    if (rc == 0) {
        enter_differences(heap, source, &written);
        *pages_out = show(heap, &(target){NULL, source}, &written);
    }
    *stop_ns_out = dhi_clock_ns() - stop_began_ns;
    dhi_world_resume(heap);
    dh_bits_finish(&written);
    return rc;
}
