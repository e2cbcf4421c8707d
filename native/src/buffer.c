/* buffer.c -- Buffer heads, and the count of views that others hold on arena memory.
 *
 * Must never let memory that a view may write to be unmapped or given to somebody else.
 */
#include "buffer.h"

int dh_buffer_new(dh_heap *heap, uint64_t size, dh_word *buffer_out)
{
    dh_off head_off, data_off = 0;
    int rc;

    if (size > (uint64_t)DH_INT_MAX)
        return dhi_fail(heap, DH_E_LIMIT, "a buffer of %llu bytes is too large",
                        (unsigned long long)size);
    rc = dh_cell_new(heap, DH_HEAD_BYTES, DH_REFS, &head_off);
    if (rc != 0)
        return rc;
    if (size > 0) {
        rc = dh_run_new_exportable(heap, size, &data_off);
        if (rc != 0) {
            dh_cell_free(heap, head_off);
            return rc;
        }
    }
    dh_word *head = dh_at(heap, head_off);
    dh_store(&head[1], dh_int((int64_t)size));
    dh_store(&head[2], size > 0 ? dh_ref(DH_T_DATA, data_off) : DH_EMPTY);
    dh_store(&head[0], dh_meta(dhi_serial_next(heap), 0));
    *buffer_out = dh_ref(DH_T_BUFFER, head_off);
    return 0;
}

int dh_buffer_read(const dh_heap *heap, dh_word buffer, uint8_t **data_out, uint64_t *size_out)
{
    const dh_word *head = dh_deref(heap, buffer, DH_T_BUFFER, DH_HEAD_BYTES);
    if (head == NULL || !dh_is_meta(head[0]) || !dh_is_int(head[1]) || dh_int_value(head[1]) < 0)
        return dhi_fail(heap, DH_E_CORRUPT, "a damaged buffer head");
    uint64_t size = (uint64_t)dh_int_value(head[1]);
    uint8_t *data = NULL;
    if (size > 0) {
        data = dh_deref(heap, head[2], DH_T_DATA, 1);
        if (data == NULL || dh_cell_bytes(heap, dh_ref_off(head[2])) < size ||
            heap->alloc.kind[dh_ref_off(head[2]) >> DH_PAGE_SHIFT] != DH_KIND_RUN_RAW)
            return dhi_fail(heap, DH_E_CORRUPT, "a buffer of %llu bytes without its memory",
                            (unsigned long long)size);
    }
    *data_out = data;
    *size_out = size;
    return 0;
}

int dh_export_begin(dh_heap *heap, dh_off off, uint64_t size)
{
    if (size > 0) {
        uint64_t pages = (size + DH_PAGE_BYTES - 1) >> DH_PAGE_SHIFT;
        int rc = dh_pin_add(&heap->alloc, (dh_pgno)(off >> DH_PAGE_SHIFT), (uint32_t)pages);
        if (rc != 0)
            return rc;
    }
    heap->exports_count++;
    return 0;
}

void dh_export_end(dh_heap *heap, dh_off off, uint64_t size)
{
    DH_ASSERT(heap->exports_count > 0);
    if (size > 0)
        dh_pin_remove(&heap->alloc, (dh_pgno)(off >> DH_PAGE_SHIFT));
    heap->exports_count--;
    if (heap->phase == DH_CLOSED && heap->exports_count == 0) {
        dh_alloc_finish(&heap->alloc);
        dhi_heap_free_arena(heap);
    }
}
