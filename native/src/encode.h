/* encode.h -- from a capture to delta chunks; and what differs, counted. */
#ifndef DH_ENCODE_H
#define DH_ENCODE_H

#include "capture.h"

/* 8-byte words in which the bytes differ from the page's committed image. */
uint32_t dh_page_changed_words(const dh_heap *heap, dh_pgno pgno, const uint8_t *bytes);
/* Whether so many changed bytes are better written as a new base file than as a delta and once more
 * by the next fold. */
bool dh_rebase_is_cheaper(const dh_capture *capture, uint32_t extent_no, uint64_t changed_bytes);

#endif
