/* sorted_iter.c -- iterating over a SortedDict, and the plain copies that are made by iterating.
 *
 * An iterator is a range of positions and, as long as nothing was inserted or deleted, the entries
 * that stand together around the next one. Between two steps anything can happen, a rollback or a
 * close included: the version is asked for at every step, and after a rollback, which may bring
 * back an old version with other entries, the place is found again by its position.
 */
#include "sorted_type.h"

typedef struct {
    PyObject_HEAD dhp_proxy *sorted; /* owned; NULL: exhausted                               */
    const dh_word *version_at;       /* in the head, where it stays while the handle is good */
    dh_word version;
    uint64_t shows_count; /* of the heap when span was found */
    uint64_t start, stop; /* positions not yet visited       */
    dh_sorted_span span;
    dhp_dict_part part;
    int is_reversed;
} sorted_iter;

PyObject *dhp_sorted_iter_new(dhp_proxy *sorted, dhp_dict_part part, uint64_t start, uint64_t stop,
                              int is_reversed)
{
    const dh_word *version_at;
    uint64_t length;
    dh_word word = dhp_word(sorted);
    if (word == 0)
        return NULL;
    int rc = dh_sorted_length(sorted->core->heap, word, &length);
    if (rc == 0)
        rc = dh_sorted_version_at(sorted->core->heap, word, &version_at);
    if (rc != 0) {
        dhp_raise(sorted->core, rc);
        return NULL;
    }
    dh_word version = dh_load(version_at);
    sorted_iter *self = PyObject_New(sorted_iter, sorted->core->state->sorted_iter_type);
    if (self == NULL)
        return NULL;
    self->sorted = (dhp_proxy *)Py_NewRef((PyObject *)sorted);
    self->version_at = version_at;
    self->version = version;
    self->shows_count = 0;
    self->stop = stop < length ? stop : length;
    self->start = start < self->stop ? start : self->stop;
    self->span = (dh_sorted_span){NULL, NULL, 0, 0};
    self->part = part;
    self->is_reversed = is_reversed;
    return (PyObject *)self;
}

static void iter_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    Py_XDECREF((PyObject *)((sorted_iter *)obj)->sorted);
    PyObject_Free(obj);
    Py_DECREF(type);
}

/* Make the span hold the next position, which is unvisited. */
static int iter_find_span(sorted_iter *self, dh_word word, uint64_t next)
{
    dh_heap *heap = self->sorted->core->heap;
    int rc = dh_sorted_span_at(heap, word, next, &self->span);
    if (rc != 0) {
        self->span.count = 0;
        return dhp_raise(self->sorted->core, rc);
    }
    self->shows_count = heap->shows_count;
    return 0;
}

/* 1 and the place in the span, 0 at the end, -1 with an exception. */
static inline int iter_step(sorted_iter *self, uint64_t *slot_out)
{
    const dhp_core *core = self->sorted->core;
    dh_word word = dhp_word(self->sorted);
    if (DH_UNLIKELY(word == 0))
        return -1;
    if (DH_UNLIKELY(dh_load(self->version_at) != self->version)) {
        PyErr_SetString(PyExc_RuntimeError, "sorted dict changed size during iteration");
        return -1;
    }
    if (self->start == self->stop)
        return 0;
    uint64_t next = self->is_reversed ? self->stop - 1 : self->start;
    if (DH_UNLIKELY(next - self->span.first >= self->span.count ||
                    self->shows_count != core->heap->shows_count) &&
        iter_find_span(self, word, next) < 0)
        return -1;
    if (self->is_reversed)
        self->stop--;
    else
        self->start++;
    *slot_out = next - self->span.first;
    return 1;
}

/* Objects of these are made without starting Python's collector. */
static inline bool is_collected(dh_word w) { return dh_is_ref(w) && !dh_is_ref_to(w, DH_T_STR); }

static int pair_objects(dhp_core *core, dh_word key_word, dh_word value_word, PyObject **key_out,
                        PyObject **value_out)
{
    if (DH_UNLIKELY(is_collected(key_word) || is_collected(value_word)))
        return dhp_objects_from_pair(core, key_word, value_word, key_out, value_out);
    *key_out = dhp_raw_from(core, key_word);
    *value_out = *key_out != NULL ? dhp_raw_from(core, value_word) : NULL;
    if (*value_out != NULL)
        return 0;
    Py_XDECREF(*key_out);
    return -1;
}

static PyObject *pair_object(dhp_core *core, dh_word key_word, dh_word value_word)
{
    PyObject *key, *value;
    if (pair_objects(core, key_word, value_word, &key, &value) < 0)
        return NULL;
    return dhp_pair_object(key, value);
}

static PyObject *iter_next(PyObject *obj)
{
    sorted_iter *self = (sorted_iter *)obj;
    uint64_t slot = 0;
    if (self->sorted == NULL)
        return NULL;
    int rc = iter_step(self, &slot);
    if (DH_LIKELY(rc == 1)) {
        dhp_core *core = self->sorted->core;
        if (self->part == DHP_ITEMS)
            return pair_object(core, dh_load(&self->span.keys[slot]),
                               dh_load(&self->span.values[slot]));
        return dhp_object_from(core, dh_load(self->part == DHP_KEYS ? &self->span.keys[slot]
                                                                    : &self->span.values[slot]));
    }
    if (rc == 0)
        Py_CLEAR(self->sorted);
    return NULL;
}

static PyObject *iter_length_hint(PyObject *obj, PyObject *ignored)
{
    sorted_iter *self = (sorted_iter *)obj;
    (void)ignored;
    return PyLong_FromUnsignedLongLong(self->sorted != NULL ? self->stop - self->start : 0);
}

static PyMethodDef iter_methods[] = {
    {"__length_hint__", iter_length_hint, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot iter_slots[] = {
    {Py_tp_new, dhp_proxy_refuse_new}, {Py_tp_dealloc, iter_dealloc},
    {Py_tp_iter, PyObject_SelfIter},   {Py_tp_iternext, iter_next},
    {Py_tp_methods, iter_methods},     {0, NULL},
};

PyType_Spec dhp_sorted_iter_spec = {"dirtyheap._native.SortedDictIterator", sizeof(sorted_iter), 0,
                                    Py_TPFLAGS_DEFAULT, iter_slots};

/* --- plain copies: with Python's collector paused, no Python code runs -------------------------- */

static int fill_copy(dhp_proxy *self, dh_word word, PyObject *copy)
{
    dh_sorted_span span = {NULL, NULL, 0, 0};
    int rc;
    while ((rc = dh_sorted_span_at(self->core->heap, word, span.first + span.count, &span)) == 0)
        for (uint64_t i = 0; i < span.count; i++) {
            PyObject *key, *value;
            if (dhp_raws_from_pair(self->core, dh_load(&span.keys[i]), dh_load(&span.values[i]),
                                   &key, &value) < 0)
                return -1;
            int failed = PyDict_SetItem(copy, key, value);
            Py_DECREF(key);
            Py_DECREF(value);
            if (failed)
                return -1;
        }
    return rc != DH_E_ABSENT ? dhp_raise(self->core, rc) : 0;
}

PyObject *dhp_sorted_copy_raw(dhp_proxy *self)
{
    int was_enabled = dhp_gc_pause();
    dh_word word = dhp_word(self);
    PyObject *copy = word != 0 ? PyDict_New() : NULL;
    if (copy != NULL && fill_copy(self, word, copy) < 0)
        Py_CLEAR(copy);
    dhp_gc_resume(was_enabled);
    return copy;
}

PyObject *dhp_sorted_copy(dhp_proxy *self)
{
    dhp_core *core = self->core;
    uint64_t count_before = core->placeholders_count;
    return dhp_resolve_inside(core, count_before, dhp_sorted_copy_raw(self));
}

static PyObject *part_raw(dhp_core *core, dhp_dict_part part, dh_word key_word, dh_word value_word)
{
    PyObject *key, *value;
    if (part != DHP_ITEMS)
        return dhp_raw_from(core, part == DHP_KEYS ? key_word : value_word);
    if (dhp_raws_from_pair(core, key_word, value_word, &key, &value) < 0)
        return NULL;
    PyObject *pair = PyTuple_Pack(2, key, value);
    Py_DECREF(key);
    Py_DECREF(value);
    return pair;
}

static int fill_list(dhp_proxy *self, dh_word word, dhp_dict_part part, Py_ssize_t start,
                     Py_ssize_t step, PyObject *list)
{
    dh_sorted_span span = {NULL, NULL, 0, 0};
    Py_ssize_t count = PyList_Size(list);
    for (Py_ssize_t i = 0; i < count; i++) {
        uint64_t at = (uint64_t)(start + i * step);
        int rc =
            at - span.first < span.count ? 0 : dh_sorted_span_at(self->core->heap, word, at, &span);
        if (rc != 0)
            return dhp_raise(self->core, rc);
        PyObject *object = part_raw(self->core, part, dh_load(&span.keys[at - span.first]),
                                    dh_load(&span.values[at - span.first]));
        if (object == NULL || PyList_SetItem(list, i, object) < 0)
            return -1;
    }
    return 0;
}

PyObject *dhp_sorted_list(dhp_proxy *self, dhp_dict_part part, Py_ssize_t start, Py_ssize_t step,
                          Py_ssize_t count)
{
    uint64_t count_before = self->core->placeholders_count;
    int was_enabled = dhp_gc_pause();
    dh_word word = dhp_word(self);
    PyObject *list = word != 0 ? PyList_New(count) : NULL;
    if (list != NULL && fill_list(self, word, part, start, step, list) < 0)
        Py_CLEAR(list);
    dhp_gc_resume(was_enabled);
    return dhp_resolve_inside(self->core, count_before, list);
}
