/* ext.h -- values of richer types: bytes that only the language above can read.
 *
 * An EXT value is a msgpack extension value (a code and its data, together the payload) and the
 * canonical form that it has as a key. Both are made when the value is packed; here nothing looks
 * into the payload but for its code. A raw cell:
 *
 *   u32 payload size << 2 | form     form 0: cannot be a key; 1: the key is 'x' and the payload;
 *   u32 key size                     2: it stands here. Only form 2 has this and the next line.
 *   key: tag, canonical bytes        as in dh_key (value.h)
 *   payload: code, data
 */
#ifndef DH_EXT_H
#define DH_EXT_H

#include "value.h"

/* Codes below this one are types whose equality is that of their keys; what a value of a higher
 * one is equal to only its own type knows. */
#define DH_EXT_OPAQUE_FIRST 64u

typedef struct {
    uint8_t key_tag;    /* 0: cannot be a key                       */
    const uint8_t *key; /* canonical bytes behind the tag           */
    size_t key_size;
    const uint8_t *payload; /* code, data                           */
    size_t payload_size;    /* > 0                                  */
} dh_ext_view;

int dh_ext_new(dh_heap *heap, const dh_ext_view *ext, dh_word *word_out) DH_MUST_USE;
/* Pointers into the arena, valid until the next store. The key's bytes are not looked at. */
int dh_ext_read(const dh_heap *heap, dh_word w, dh_ext_view *view_out) DH_MUST_USE;
/* Can w equal a value that has another key? False for words that are no EXT. */
bool dh_ext_is_opaque(const dh_heap *heap, dh_word w);
/* Is the cell one that dh_ext_new could have made? */
int dh_ext_check(const dh_heap *heap, dh_word w) DH_MUST_USE;

#endif
