/* convert.h -- one conversion of Python values to words: what its files share.
 *
 * convert_in.c begins and ends conversions and is what the rest of the binding calls;
 * convert_scalar.c makes words of values without parts, convert_copy.c copies plain containers, and
 * convert_fail.c says why a value cannot be stored. The functions return 0, or -1 with the reason in
 * the conversion, unless they say otherwise; only dhp_raise_failure makes it an exception.
 */
#ifndef DHP_CONVERT_H
#define DHP_CONVERT_H

#include "state.h"

/* Why a conversion stopped, to be turned into an exception once the arena is at rest. */
typedef enum {
    DHP_FAIL_NONE = 0,
    DHP_FAIL_RAISED,   /* a Python exception is set already */
    DHP_FAIL_CODE,     /* code of the core                  */
    DHP_FAIL_TYPE,     /* no heap can hold this value       */
    DHP_FAIL_KEY,      /* ... this key                      */
    DHP_FAIL_ELEMENT,  /* ... this element of a set         */
    DHP_FAIL_UNPACKED, /* not in the table of packed forms  */
    DHP_FAIL_FOREIGN,  /* a container of another heap       */
    DHP_FAIL_DEAD      /* a stale container                 */
} dhp_fail_kind;

/* One conversion, of one value or of many. */
typedef struct {
    dhp_core *core;
    const dhp_packing *packing; /* or NULL */
    dhp_memo memo;              /* address of a plain container -> word of its copy */
    int shared_tuples;          /* on the way here: inside one, everything may be met twice */
    int gc_was_enabled;
    dhp_fail_kind fail;
    int rc;
    PyObject *culprit; /* owned */
    PyObject *path;    /* list of keys and indexes, innermost first; or NULL */
} dhp_conversion;

/* --- convert_fail.c --------------------------------------------------------------------------- */
/* Stop for this object or code; both return -1. */
int dhp_stop_with(dhp_conversion *c, dhp_fail_kind fail, PyObject *culprit);
int dhp_stop_with_code(dhp_conversion *c, int rc);
/* An exception is set: it is the reason. Returns -1. */
static inline int dhp_stop_raised(dhp_conversion *c)
{
    c->fail = DHP_FAIL_RAISED;
    return -1;
}
/* Add where we are to the place of a failure below. Loses the place rather than the failure. */
void dhp_note_place(dhp_conversion *c, PyObject *key);
void dhp_note_index(dhp_conversion *c, Py_ssize_t index);
/* Make the exception, when the arena is at rest: it calls the repr of a user's keys. */
void dhp_raise_failure(dhp_conversion *c);

/* --- convert_scalar.c ------------------------------------------------------------------------- */
/* 1: done, 0: a plain dict, list, set, frozenset, tuple or deque, -1: stopped. */
int dhp_convert_scalar(dhp_conversion *c, PyObject *obj, dh_word *word_out);

/* --- convert_copy.c --------------------------------------------------------------------------- */
/* Any value; plain containers are copied. */
int dhp_convert_any(dhp_conversion *c, PyObject *obj, dh_word *word_out);
/* The values of a plain dict, which come in its order. */
int dhp_convert_values(dhp_conversion *c, PyObject *dict, PyObject *const *values, dh_word *words);

#endif
