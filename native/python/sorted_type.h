/* sorted_type.h -- what the files of SortedDict's binding share, and what they give to the others. */
#ifndef DHP_SORTED_TYPE_H
#define DHP_SORTED_TYPE_H

#include "../src/sorted.h"
#include "state.h"

/* No codes of the core. RAISED: an exception is set. TAKE_AGAIN: what was looked at has changed. */
enum { DHP_RAISED = -1000, DHP_TAKE_AGAIN = -1001 };
/* What is taken out may change while it is unpacked, but only this often. */
#define DHP_TAKES_MAX 16

/* --- sorted_key.c -------------------------------------------------------------------------------
 * Keys are compared, not hashed: the usual ones are made without a hash. */
typedef enum {
    DHP_KEY_TO_STORE, /* exact types only; others, and what has no order, are refused        */
    DHP_KEY_TO_FIND,  /* equal values of other types too; DHP_KEY_NONE: it cannot be there   */
    DHP_KEY_TO_PLACE  /* the same, but a key that has no place in an order is refused        */
} dhp_key_use;
int dhp_sorted_key_slow(dhp_core *core, PyObject *obj, dhp_key_use use, dhp_key *out);

static inline bool dhp_sorted_key_fast(dhp_core *core, PyObject *obj, dhp_key *out)
{
    out->text = NULL;
    out->buffer = NULL;
    out->packing = NULL;
    out->is_packed = false;
    out->key.word = 0;
    if (PyLong_CheckExact(obj)) {
        int overflow;
        long long v = PyLong_AsLongLongAndOverflow(obj, &overflow);
        if (DH_UNLIKELY(overflow != 0 || !dh_int_fits(v)))
            return false;
        out->key.tag = 'i';
        out->key.word = dh_int(v);
        out->key.number = v;
        out->key.size = 8;
        return core->heap != NULL;
    }
    if (PyUnicode_CheckExact(obj)) {
        Py_ssize_t size;
        const char *utf8 = PyUnicode_AsUTF8AndSize(obj, &size);
        out->key.tag = 's';
        out->key.data = (const uint8_t *)utf8;
        out->key.size = (size_t)size;
        return utf8 != NULL && core->heap != NULL;
    }
    return false;
}
/* DHP_KEY_READY, DHP_KEY_NONE (TO_FIND only), or -1. Python code may have run; READY: the heap is
 * open, and dhp_key_finish is needed. */
static inline int dhp_sorted_key(dhp_core *core, PyObject *obj, dhp_key_use use, dhp_key *out)
{
    return DH_LIKELY(dhp_sorted_key_fast(core, obj, out))
               ? DHP_KEY_READY
               : dhp_sorted_key_slow(core, obj, use, out);
}
/* 0; DHP_RETRY: packing lacks a form that it needs; -1: this object has no place in an order. Runs no
 * Python code unless it raises. */
int dhp_sorted_check_key(dhp_core *core, PyObject *obj, const dhp_packing *packing);
/* 0, or -1 when a function was given where entries are expected. */
int dhp_sorted_refuse_function(PyObject *initial);

/* --- sorted_type.c ------------------------------------------------------------------------------ */
extern PyType_Spec dhp_sorted_spec;
Py_ssize_t dhp_sorted_length(PyObject *self);
int dhp_sorted_contains(PyObject *self, PyObject *key);
/* As dhp_dict_lookup. */
PyObject *dhp_sorted_lookup(dhp_proxy *self, PyObject *key, int *found_out);

int dhp_sorted_raise_restless(void);

/* --- sorted_range.c ----------------------------------------------------------------------------- */
/* Position of the key: 0, DH_E_ABSENT or DHP_RAISED. */
int dhp_sorted_position(dhp_proxy *self, PyObject *key, uint64_t *index_out);
/* The entry at a position, negative ones from the end; part of it, or a pair. IndexError. */
PyObject *dhp_sorted_at(dhp_proxy *self, Py_ssize_t index, dhp_dict_part part);
/* Bounds of index(value, start, stop) of a sequence; arguments from args[1] on. */
int dhp_sorted_index_bounds(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t *start_out,
                            Py_ssize_t *stop_out);
PyObject *dhp_sorted_bisect_left(PyObject *self, PyObject *key);
PyObject *dhp_sorted_bisect_right(PyObject *self, PyObject *key);
PyObject *dhp_sorted_index(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *dhp_sorted_irange(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *dhp_sorted_islice(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *dhp_sorted_peekitem(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *dhp_sorted_popitem(PyObject *self, PyObject *args, PyObject *kwargs);
extern const char dhp_sorted_bisect_left_doc[], dhp_sorted_bisect_right_doc[],
    dhp_sorted_bisect_doc[], dhp_sorted_index_doc[], dhp_sorted_irange_doc[],
    dhp_sorted_islice_doc[], dhp_sorted_peekitem_doc[], dhp_sorted_popitem_doc[];

/* --- sorted_iter.c ------------------------------------------------------------------------------ */
extern PyType_Spec dhp_sorted_iter_spec;
/* Over positions [start, stop), stop UINT64_MAX: to the end; backwards from stop. */
PyObject *dhp_sorted_iter_new(dhp_proxy *sorted, dhp_dict_part part, uint64_t start, uint64_t stop,
                              int is_reversed);
/* Plain dict, in order; raw: with placeholders, and without running Python code. */
PyObject *dhp_sorted_copy(dhp_proxy *self);
PyObject *dhp_sorted_copy_raw(dhp_proxy *self);
/* Plain list of count parts from position start on, each step further. */
PyObject *dhp_sorted_list(dhp_proxy *self, dhp_dict_part part, Py_ssize_t start, Py_ssize_t step,
                          Py_ssize_t count);

/* --- sorted_update.c ---------------------------------------------------------------------------- */
int dhp_sorted_update(dhp_proxy *self, PyObject *other, PyObject *kwargs);
PyObject *dhp_sorted_update_method(PyObject *self, PyObject *args, PyObject *kwargs);
extern const char dhp_sorted_update_doc[];

/* --- sorted_views.c ----------------------------------------------------------------------------- */
extern PyType_Spec dhp_sorted_keys_spec;
extern PyType_Spec dhp_sorted_values_spec;
extern PyType_Spec dhp_sorted_items_spec;
PyObject *dhp_sorted_view_new(dhp_proxy *sorted, dhp_dict_part part);
PyObject *dhp_sorted_richcompare(PyObject *self, PyObject *other, int op);

#endif
