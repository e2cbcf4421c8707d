/* buffer.h -- Buffer: mutable bytes on whole pages of their own, to be written by anybody.
 *
 *   head  [0] meta   [1] size in bytes, int   [2] ref DATA or EMPTY (size 0)   [3] EMPTY
 *
 * The run comes from dh_run_new_exportable. While a view is exported its pages are pinned: neither
 * reused nor released, whatever a rollback says about the buffer that owned them.
 */
#ifndef DH_BUFFER_H
#define DH_BUFFER_H

#include "heap.h"

int dh_buffer_new(dh_heap *heap, uint64_t size, dh_word *buffer_out) DH_MUST_USE;
int dh_buffer_read(const dh_heap *heap, dh_word buffer, uint8_t **data_out, uint64_t *size_out)
    DH_MUST_USE;
/* Count an exported view of this buffer's run in and out. off: start of the run. */
int dh_export_begin(dh_heap *heap, dh_off off, uint64_t size) DH_MUST_USE;
/* Also legal after dh_heap_close: the last one out unmaps the arena and frees the heap. */
void dh_export_end(dh_heap *heap, dh_off off, uint64_t size);

#endif
