/* extent.h -- the trailer of base files, between extent.c and those who change a file under way. */
#ifndef DH_EXTENT_H
#define DH_EXTENT_H

#include "capture.h"
#include "extent_trailer.h"

/* Whose pages a base file gets. */
typedef struct {
    /* As dh_image_read. */
    const uint8_t *(*read)(const void *context, dh_pgno pgno, uint8_t *scratch);
    const void *context;
    const dh_extent *base; /* the file that they come from if nobody changed them, or NULL */
    const dh_state *state;
} dh_page_source;

/* Write one extent's pages and trailer. */
int dhi_extent_write(dh_heap *heap, const dh_page_source *source, uint32_t extent_no,
                     uint64_t version, int fd, uint64_t *file_bytes_out, uint32_t *checksum_out);
/* Everything but the checksums of the pages, which stand behind the head already. */
void dhi_trailer_head(uint8_t *trailer, uint64_t version, uint32_t extent_no, uint32_t pages);
/* The checksum of the trailer itself, put behind it and returned. */
uint32_t dhi_trailer_seal(uint8_t *trailer, uint32_t pages);
/* Read and check the trailer. The caller frees *trailer_out. */
int dhi_trailer_read(dh_heap *heap, uint32_t extent_no, uint64_t version, int fd,
                     uint64_t file_bytes, uint32_t expected, uint8_t **trailer_out,
                     uint32_t *pages_out);
/* All of it, at that place; an errno. */
int dhi_write_at(int fd, const uint8_t *bytes, size_t size, uint64_t place);

#endif
