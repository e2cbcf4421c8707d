/* word.h -- the 8-byte tagged value that every slot of every container holds.
 *
 *   ...1  int       value << 1 | 1                      63 bits signed
 *   .010  short     bits 3-5 length 0..7, bit 6 set = bytes else str, bytes 1..7 content, rest 0
 *   .100  float     self-tagged: exponent bits 62..59 are 0111 or 1000 (2^-255 .. 2^257)
 *   0110  constant  None, False, True, +0.0, DELETED
 *   1110  meta      first word of a container's head, never a value
 *   .000  ref       bits 3..7 type, bits 8..63 offset / 8
 *   0     EMPTY
 *
 * Invariants: equal short strings have equal words (they are always inline); an integer that fits
 * 63 bits is always inline; the type of a ref's target stands in the ref. EVERY 8-byte slot of a
 * cell with content DH_REFS holds a valid word, bookkeeping included (counts are stored as ints):
 * the collector scans such cells without knowing what they are.
 */
#ifndef DH_WORD_H
#define DH_WORD_H

#include "base.h"

/* 1-5 and 14-15: values without identity; 6-13: containers, which have it; 16-31: inner structure,
 * never a value that a user sees. */
typedef enum {
    DH_T_STR = 1,    /* raw: u32 size, UTF-8 bytes (lone surrogates as surrogatepass), > 7 bytes */
    DH_T_BYTES = 2,  /* raw: u32 size, bytes, > 7                                                */
    DH_T_FLOAT = 3,  /* raw: 8 bytes IEEE double that does not fit inline                        */
    DH_T_BIGINT = 4, /* raw: u32 size << 1 | sign, magnitude bytes little-endian, minimal        */
    DH_T_TUPLE = 5,  /* refs: [depth << 32 | count as int][words...]                              */
    DH_T_DICT = 6,   /* refs: container head, 4 words                                            */
    DH_T_LIST = 7,
    DH_T_BUFFER = 8,
    DH_T_SET = 9,    /* head and entries as those of a dict, without values                  */
    DH_T_DEQUE = 10, /* refs: container head, 6 words                                            */
    DH_T_SORTED = 11,
    DH_T_ARRAY = 12,  /* refs: container head, 4 words                                            */
    DH_T_RECORD = 13, /* refs: head and fields                                               */
    DH_T_CONTAINERS_LAST = 13,
    DH_T_FROZENSET = 14, /* a cell like a tuple's: elements in any order, none twice      */
    DH_T_EXT = 15, /* raw: a value of a richer type, packed (ext.h)                              */
    DH_T_VALUES_LAST = 15,
    DH_T_ENTRIES = 16, /* refs: (key, value) pairs of a dict                                     */
    DH_T_BUCKET = 17,  /* raw: groups of 8 hash slots                                            */
    DH_T_DIR = 18,     /* refs: directory of buckets or directories                              */
    DH_T_BIG = 19,     /* refs: state of a large dict                                            */
    DH_T_LEAF = 20,    /* refs: words of a vector                                                */
    DH_T_NODE = 21,    /* refs: inner node of a vector                                           */
    DH_T_DATA = 22,    /* raw: bytes of a Buffer                                                 */
    DH_T_RNODE = 23,   /* refs: relaxed inner node of a vector                                   */
    DH_T_SORTED_LEAF = 24, /* refs: keys and values of a sorted dict                             */
    DH_T_SORTED_NODE = 25, /* refs: inner node of a sorted dict                                  */
    DH_T_SHAPE = 26,   /* refs: keys that several dicts share, see dict_shape.h                  */
    DH_T_VALUES = 27,  /* refs: values of a dict that has a shape                                */
    DH_T_CLASS = 28,   /* refs: description of a class of records                                */
    DH_T_SHAPES = 29,  /* refs: the shapes made last                                             */
    DH_T_FIELDS = 30,  /* refs: fields of a record that does not have them in its head           */
    DH_T_CLASSES = 31, /* refs: the classes of records that have a number                        */
    DH_TYPES_COUNT = 32
} dh_type;

#define DH_EMPTY ((dh_word)0)
#define DH_CONST(n) (((dh_word)(n) << 4) | 6u)
#define DH_NONE DH_CONST(0)
#define DH_FALSE DH_CONST(1)
#define DH_TRUE DH_CONST(2)
#define DH_ZERO_FLOAT DH_CONST(3) /* +0.0 */
#define DH_DELETED DH_CONST(4)

static inline bool dh_is_int(dh_word w) { return (w & 1u) != 0; }
static inline bool dh_is_short(dh_word w) { return (w & 7u) == 2u; }
static inline bool dh_is_float(dh_word w) { return (w & 7u) == 4u || w == DH_ZERO_FLOAT; }
static inline bool dh_is_ref(dh_word w) { return (w & 7u) == 0 && w != 0; }

#define DH_INT_MAX (((int64_t)1 << 62) - 1)
#define DH_INT_MIN (-((int64_t)1 << 62))
static inline bool dh_int_fits(int64_t v) { return v >= DH_INT_MIN && v <= DH_INT_MAX; }
static inline dh_word dh_int(int64_t v) { return ((dh_word)v << 1) | 1u; }
static inline int64_t dh_int_value(dh_word w) { return (int64_t)w >> 1; }

static inline dh_word dh_ref(dh_type type, dh_off off)
{
    return (dh_word)((off >> 3) << 8) | ((dh_word)type << 3);
}
static inline dh_type dh_ref_type(dh_word w) { return (dh_type)((w >> 3) & 31u); }
static inline dh_off dh_ref_off(dh_word w) { return (w >> 8) << 3; }
static inline bool dh_is_ref_to(dh_word w, dh_type type)
{
    return (w & 0xffu) == ((dh_word)type << 3);
}
/* Tuples and frozensets: values made of values, in cells of one layout. */
static inline bool dh_is_items(dh_word w)
{
    return dh_is_ref_to(w, DH_T_TUPLE) || dh_is_ref_to(w, DH_T_FROZENSET);
}
/* Containers have identity: they are linked, never copied, never freed with the slot. */
static inline bool dh_is_container(dh_word w)
{
    return dh_is_ref(w) && dh_ref_type(w) >= DH_T_DICT && dh_ref_type(w) <= DH_T_CONTAINERS_LAST;
}

/* A form that a slot of a container may hold; what a ref leads to is another question. */
static inline bool dh_is_value(dh_word w)
{
    if (dh_is_ref(w))
        return dh_ref_type(w) >= DH_T_STR && dh_ref_type(w) <= DH_T_VALUES_LAST;
    return dh_is_int(w) || dh_is_short(w) || dh_is_float(w) || w == DH_NONE || w == DH_FALSE ||
           w == DH_TRUE;
}

#define DH_SHORT_BYTES_MAX 7u
static inline dh_word dh_short(const uint8_t *data, size_t size, bool is_bytes)
{
    dh_word w = 0;
    memcpy((uint8_t *)&w + 1, data, size);
    return w | 2u | ((dh_word)size << 3) | ((dh_word)is_bytes << 6);
}
static inline size_t dh_short_size(dh_word w) { return (size_t)((w >> 3) & 7u); }
static inline bool dh_short_is_bytes(dh_word w) { return ((w >> 6) & 1u) != 0; }
static inline void dh_short_copy(dh_word w, uint8_t out[8])
{
    dh_word content = w >> 8;
    memcpy(out, &content, 8);
}

/* True when d can be a word of its own; -0.0, inf, nan and extreme exponents cannot. */
static inline bool dh_float_fits(double d, dh_word *w_out)
{
    uint64_t u;
    memcpy(&u, &d, 8);
    if (u == 0) {
        *w_out = DH_ZERO_FLOAT;
        return true;
    }
    unsigned high = (unsigned)(u >> 59) & 15u;
    if (high != 7u && high != 8u)
        return false;
    *w_out = ((u & (((uint64_t)1 << 59) - 1)) << 5) | ((u >> 63) << 4) |
             ((dh_word)(high == 8u) << 3) | 4u;
    return true;
}
static inline double dh_float_value(dh_word w)
{
    uint64_t u = 0;
    double d;
    if (w != DH_ZERO_FLOAT)
        u = (w >> 5) | (((w >> 4) & 1u) << 63) | ((uint64_t)(((w >> 3) & 1u) ? 8u : 7u) << 59);
    memcpy(&d, &u, 8);
    return d;
}

/* Element access that a concurrent marker may share: plain moves on x86. */
static inline dh_word dh_load(const dh_word *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void dh_store(dh_word *p, dh_word w) { __atomic_store_n(p, w, __ATOMIC_RELEASE); }
/* By the marker: whoever sees the ref sees the cell as it was when the ref was stored (T5 in
 * docs/design.md section 10). */
static inline dh_word dhi_load_published(const dh_word *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

/* --- container heads: 4 words, one 32-byte cell ------------------------------------------------
 * word 0, "meta": serial << 19 | flags << 4 | 1110.  The serial is unique in the heap's life and
 * tells a handle whether the cell still is the container it was made for (and the table of shapes
 * whether it still is the shape). No value has this form:
 * a number that a user stored can never be taken for the serial (invariant W4). */
#define DH_HEAD_BYTES 32u
#define DH_META_FLAGS_BITS 15u
#define DH_META_TAG_BITS 4u
#define DH_META_TAG 14u
static inline dh_word dh_meta(uint64_t serial, unsigned flags)
{
    return (((dh_word)serial << DH_META_FLAGS_BITS | flags) << DH_META_TAG_BITS) | DH_META_TAG;
}
static inline bool dh_is_meta(dh_word w) { return (w & 15u) == DH_META_TAG; }
static inline uint64_t dh_meta_serial(dh_word meta)
{
    return meta >> (DH_META_FLAGS_BITS + DH_META_TAG_BITS);
}
static inline unsigned dh_meta_flags(dh_word meta)
{
    return (unsigned)(meta >> DH_META_TAG_BITS) & ((1u << DH_META_FLAGS_BITS) - 1u);
}

#endif
