/* value.h -- values without identity: strings, bytes, big ints, boxed floats, tuples, frozensets.
 * Packed values of richer types: ext.h.
 *
 * A cell of such a value belongs to exactly one slot: whoever overwrites or removes the word frees
 * it (dh_value_drop). Copying a word into a second slot needs dh_value_clone. Containers are
 * linked, not owned: drop and clone leave them alone.
 */
#ifndef DH_VALUE_H
#define DH_VALUE_H

#include "heap.h"

/* Bytes of an out-of-line string inside the arena; valid until the next store. */
typedef struct {
    const uint8_t *data;
    size_t size;
} dh_bytes_view;

int dh_str_new(dh_heap *heap, const uint8_t *utf8, size_t size, dh_word *word_out) DH_MUST_USE;
int dh_bytes_new(dh_heap *heap, const uint8_t *data, size_t size, dh_word *word_out) DH_MUST_USE;
int dh_float_new(dh_heap *heap, double d, dh_word *word_out) DH_MUST_USE;
/* magnitude: little-endian, no leading zero bytes; inline when it fits 63 bits. */
int dh_bigint_new(dh_heap *heap, bool is_negative, const uint8_t *magnitude, size_t size,
                  dh_word *word_out) DH_MUST_USE;
/* Takes the words as they are (they now belong to the tuple). */
int dh_tuple_new(dh_heap *heap, const dh_word *words, size_t count, dh_word *word_out) DH_MUST_USE;
/* The same; no two of the words are equal as keys, and all can be keys. */
int dh_frozenset_new(dh_heap *heap, const dh_word *words, size_t count, dh_word *word_out)
    DH_MUST_USE;

/* From now on several slots may hold the tuple or frozenset: dh_value_drop leaves it to the collector
 * and dh_value_clone links it. Without this a graph of tuples would be copied once for each path. */
void dh_tuple_share(dh_heap *heap, dh_word w);
bool dh_tuple_is_shared(const dh_heap *heap, dh_word w);

/* Readers check everything they follow: DH_E_CORRUPT for what cannot be. */
/* STR or BYTES ref (not a short). */
int dh_bytes_read(const dh_heap *heap, dh_word w, dh_bytes_view *view_out) DH_MUST_USE;
/* Any float word, inline or boxed. */
int dh_float_read(const dh_heap *heap, dh_word w, double *d_out) DH_MUST_USE;
int dh_bigint_read(const dh_heap *heap, dh_word w, bool *is_negative_out,
                   dh_bytes_view *magnitude_out) DH_MUST_USE;
/* Words of a tuple or frozenset, inside the arena. */
int dh_tuple_read(const dh_heap *heap, dh_word w, const dh_word **words_out, size_t *count_out)
    DH_MUST_USE;

void dh_value_drop(dh_heap *heap, dh_word w);
int dh_value_clone(dh_heap *heap, dh_word w, dh_word *word_out) DH_MUST_USE;

/* --- keys --------------------------------------------------------------------------------------
 * Every key has a canonical form: numbers that are equal have the same one (1 == 1.0 == True),
 * str and bytes differ. A NaN key equals itself (its object identity is lost in the heap). */

typedef struct {
    uint64_t hash;       /* SipHash-1-3 of the canonical form, key per heap                     */
    dh_word word;        /* != 0: a stored key that is this word is equal (int, short, None)    */
    uint8_t tag;         /* 'i' int in 64 bits, 'I' larger, 'f' float, 's' str, 'b' bytes,
                            'n' None, 't' tuple, 'z' frozenset, 'r' record; of packed values
                            also 'q' a rational number that is none of the others, 'x' any
                            other                                                               */
    int64_t number;      /* for 'i', and for 'r' the serial                                     */
    const uint8_t *data; /* canonical bytes for the other tags; borrowed from the caller        */
    size_t size;
} dh_key;

void dh_key_from_int(const dh_heap *heap, int64_t v, dh_key *key_out);
void dh_key_from_none(const dh_heap *heap, dh_key *key_out);
/* A record is a key by identity. DH_E_CORRUPT when it has no head. */
int dh_key_from_record(const dh_heap *heap, dh_word record, dh_key *key_out) DH_MUST_USE;
void dh_key_from_str(const dh_heap *heap, const uint8_t *utf8, size_t size, dh_key *key_out);
void dh_key_from_bytes(const dh_heap *heap, const uint8_t *data, size_t size, dh_key *key_out);
/* scratch: 8 bytes that must live as long as the key (used when d is not integral). An integral d
 * beyond 63 bits needs big scratch: give DH_KEY_SCRATCH_BYTES. */
#define DH_KEY_SCRATCH_BYTES 160u
void dh_key_from_float(const dh_heap *heap, double d, uint8_t *scratch, dh_key *key_out);
/* data: sign byte (0 or 1) then the minimal little-endian magnitude. What fits 64 bits is 'i'. */
void dh_key_from_bigint(const dh_heap *heap, const uint8_t *data, size_t size, dh_key *key_out);
/* data: canonical bytes of a tuple: concatenation of elements made by dh_key_encode. */
void dh_key_from_tuple(const dh_heap *heap, const uint8_t *data, size_t size, dh_key *key_out);
/* data: the same, sorted by dh_key_sort_elements. */
void dh_key_from_frozenset(const dh_heap *heap, const uint8_t *data, size_t size, dh_key *key_out);
/* Put elements that dh_key_encode made into the order that stands for all orders. 0 or ENOMEM. */
int dh_key_sort_elements(uint8_t *data, size_t size) DH_MUST_USE;
/* The canonical form of a packed value, as its packer made it: checked, and made minimal where a
 * number has several. DH_E_UNHASHABLE for tag 0, DH_E_CORRUPT for what no packer makes. scratch: as
 * for big floats; data must live as long as the key. */
int dh_key_from_canonical(const dh_heap *heap, uint8_t tag, const uint8_t *data, size_t size,
                          uint8_t scratch[DH_KEY_SCRATCH_BYTES], dh_key *key_out) DH_MUST_USE;
/* Append one key as tuple element: tag, u32 size, canonical bytes (8 bytes for 'i').
 * Returns bytes needed; writes only when they fit. */
size_t dh_key_encode(const dh_key *key, uint8_t *out, size_t room);

/* The key of a stored word. *buffer: NULL or malloc'd scratch that the caller frees after use.
 * DH_E_UNHASHABLE for containers and for tuples that hold one. */
int dh_key_from_word(const dh_heap *heap, dh_word w, uint8_t scratch[DH_KEY_SCRATCH_BYTES],
                     dh_key *key_out, uint8_t **buffer_out) DH_MUST_USE;
/* Does the stored word equal the key? 1, 0, or a negative code. */
int dh_key_matches(const dh_heap *heap, const dh_key *key, dh_word stored) DH_MUST_USE;

#endif
