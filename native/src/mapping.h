/* mapping.h -- which memory shows which base file: the arena's pages, and the second view of them.
 *
 * The arena (and the memory of the allocation table) shows a base file through a private mapping:
 * pages that nobody writes are the page cache's. The committed image needs what the file holds even
 * where the arena was written: a second, read-only mapping, the *view*, which also has the file's
 * trailer. Views of the arena's extents are made when the heap is first stored to.
 */
#ifndef DH_MAPPING_H
#define DH_MAPPING_H

#include "image.h"

/* The view of every extent that has none yet. */
int dh_views_map(dh_heap *heap) DH_MUST_USE;
/* The checksum that its trailer gives a page of a base file whose view is mapped. */
uint32_t dh_view_checksum(const dh_extent *extent, uint32_t index);
/* Check a file just written and map its view; nothing rests on it yet. */
int dhi_view_open(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd, uint64_t file_bytes,
                  uint32_t checksum, dh_extent *fresh_out) DH_MUST_USE;
/* Let the extent rest on that view, whose overlay the caller has put in order. */
void dhi_view_take(dh_heap *heap, dh_extent *extent, const dh_extent *fresh);
void dhi_view_unmap(dh_extent *extent);
/* Is what the arena shows there, where nobody wrote, the content of a file? */
bool dh_is_file_backed(const dh_heap *heap, dh_pgno pgno);

#endif
