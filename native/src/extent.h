/* extent.h -- the trailer of base files, between extent.c and those who change a file under way. */
#ifndef DH_EXTENT_H
#define DH_EXTENT_H

#include "capture.h"
#include "extent_trailer.h"

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
