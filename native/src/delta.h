/* delta.h -- the coding of what one commit changed. Every byte: docs/format.md.
 *
 * A delta is one or more chunks. A chunk: header (48 bytes), entries (12 bytes each), payloads.
 * An entry names a page, how its payload is to be read, and the checksum of the RESULTING page, so
 * that a payload that meets the wrong image is found when it is applied (never a silent mixture).
 * A payload of form DIFF or FRESH is a sequence of runs: u16 = first word | (words - 1) << 9, then
 * the words. Decoding trusts nothing.
 */
#ifndef DH_DELTA_H
#define DH_DELTA_H

#include "image.h"

#define DH_CHUNK_HEADER_BYTES 48u
#define DH_ENTRY_BYTES 12u
#define DH_DIFF_RUN_WORDS_MAX 128u
/* A diff larger than this is stored as a whole page: it saves too little. */
#define DH_DIFF_BYTES_MAX 3072u

typedef struct {
    uint64_t parent_id; /* the image that DIFF payloads apply to    */
    uint64_t commit_id; /* the image that results                   */
    uint32_t chunk_index;
    uint32_t entries_count;
    uint32_t payload_bytes;
} dh_chunk_header;

typedef struct {
    dh_pgno pgno;
    uint32_t checksum; /* of the resulting page; 0 for FREED */
    uint16_t size;     /* payload bytes */
    uint8_t form;      /* dh_page_form  */
} dh_delta_entry;

void dh_chunk_header_encode(uint8_t *out, const dh_chunk_header *header, const uint8_t *body,
                            size_t body_bytes);
/* Checks magic, version, sizes and the checksum of the whole chunk. 0 or DH_E_FORMAT. */
int dh_chunk_header_decode(const uint8_t *bytes, size_t size, dh_chunk_header *header_out);
void dh_entry_encode(uint8_t *out, const dh_delta_entry *entry);
/* 0 or DH_E_FORMAT (a form or size that cannot be). */
int dh_entry_decode(const uint8_t *at, dh_delta_entry *entry_out);

/* Runs of words in `to` that differ from `from` (NULL: zeros). Returns the bytes used, or
 * DH_DIFF_TOO_LARGE when more than room. *words_out counts differing words in either case. */
#define DH_DIFF_TOO_LARGE ((size_t)-1)
size_t dh_diff_encode(const uint8_t *from, const uint8_t *to, uint8_t *out, size_t room,
                      uint32_t *words_out);
/* One diff that has the effect of `first` and then `second`. Both well-formed. Returns the bytes
 * used, or DH_DIFF_TOO_LARGE when more than room. */
size_t dh_diff_merge(const uint8_t *first, size_t first_size, const uint8_t *second,
                     size_t second_size, uint8_t *out, size_t room);
/* 0 or DH_E_FORMAT; then the page is in an undefined state. */
int dh_diff_apply(uint8_t *page, const uint8_t *diff, size_t size);

#endif
