/* dict_iter.c -- iterating over a Dict, and the plain copy that is made by iterating.
 *
 * An iterator keeps a place in the dict's order, worth nothing once the dict changed its size: the
 * version says so. Between two steps anything can happen, a rollback or a close included; the
 * dict's word is asked for at every step.
 */
#include "state.h"

typedef struct {
    PyObject_HEAD dhp_proxy *dict; /* owned; NULL: exhausted */
    dh_dict_pos position;
    uint64_t version;
    uint64_t left_count; /* for __length_hint__ */
    dhp_dict_part part;
    int is_reversed;
} dict_iter;

PyObject *dhp_dict_iter_new(dhp_proxy *dict, dhp_dict_part part, int is_reversed)
{
    uint64_t version, length;
    dh_word word = dhp_word(dict);
    if (word == 0)
        return NULL;
    int rc = dh_dict_version(dict->core->heap, word, &version);
    if (rc == 0)
        rc = dh_dict_length(dict->core->heap, word, &length);
    if (rc != 0) {
        dhp_raise(dict->core, rc);
        return NULL;
    }
    dict_iter *self = PyObject_New(dict_iter, dict->core->state->dict_iter_type);
    if (self == NULL)
        return NULL;
    self->dict = (dhp_proxy *)Py_NewRef((PyObject *)dict);
    self->position = (dh_dict_pos){0, 0};
    self->version = version;
    self->left_count = length;
    self->part = part;
    self->is_reversed = is_reversed;
    return (PyObject *)self;
}

static void iter_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    Py_XDECREF((PyObject *)((dict_iter *)obj)->dict);
    PyObject_Free(obj);
    Py_DECREF(type);
}

/* 1 and the entry's words, 0 at the end, -1 with an exception. */
static int iter_step(dict_iter *self, dh_word *key_out, dh_word *value_out)
{
    dhp_proxy *dict = self->dict;
    dh_word word = dhp_word(dict);
    if (word == 0)
        return -1;
    int rc = self->is_reversed ? dh_dict_step_back(dict->core->heap, word, self->version,
                                                   &self->position, key_out, value_out)
                               : dh_dict_step(dict->core->heap, word, self->version,
                                              &self->position, key_out, value_out);
    if (DH_LIKELY(rc == 0 || rc == 1))
        return rc;
    if (rc < 0)
        return dhp_raise(dict->core, rc);
    PyErr_SetString(PyExc_RuntimeError, "dictionary changed size during iteration");
    return -1;
}

static PyObject *iter_item(dhp_core *core, dh_word key_word, dh_word value_word)
{
    PyObject *key, *value;
    if (dhp_objects_from_pair(core, key_word, value_word, &key, &value) < 0)
        return NULL;
    return dhp_pair_object(key, value);
}

static PyObject *iter_next(PyObject *obj)
{
    dict_iter *self = (dict_iter *)obj;
    dh_word key, value;
    if (self->dict == NULL)
        return NULL;
    int rc = iter_step(self, &key, &value);
    if (DH_LIKELY(rc == 1)) {
        dhp_core *core = self->dict->core;
        self->left_count -= self->left_count > 0;
        return self->part == DHP_KEYS     ? dhp_key_object(core, key)
               : self->part == DHP_VALUES ? dhp_object_from(core, value)
                                          : iter_item(core, key, value);
    }
    if (rc == 0)
        Py_CLEAR(self->dict);
    return NULL;
}

static PyObject *iter_length_hint(PyObject *obj, PyObject *ignored)
{
    dict_iter *self = (dict_iter *)obj;
    (void)ignored;
    return PyLong_FromUnsignedLongLong(self->dict != NULL ? self->left_count : 0);
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

PyType_Spec dhp_dict_iter_spec = {"dirtyheap._native.DictIterator", sizeof(dict_iter), 0,
                                  Py_TPFLAGS_DEFAULT, iter_slots};

/* --- the plain copy --------------------------------------------------------------------------- */

/* With Python's collector paused. The keys are exact built-in objects and placeholders: hashing them
 * is C. */
static int fill_copy(dhp_proxy *self, dh_word word, PyObject *copy)
{
    dh_dict_pos position = {0, 0};
    dh_word key_word, value_word;
    int rc;
    while ((rc = dh_dict_next(self->core->heap, word, &position, &key_word, &value_word)) == 1) {
        PyObject *key, *value;
        if (dhp_raws_from_pair(self->core, key_word, value_word, &key, &value) < 0)
            return -1;
        int failed = PyDict_SetItem(copy, key, value);
        Py_DECREF(key);
        Py_DECREF(value);
        if (failed)
            return -1;
    }
    return rc < 0 ? dhp_raise(self->core, rc) : 0;
}

PyObject *dhp_dict_copy_raw(dhp_proxy *self)
{
    int was_enabled = dhp_gc_pause();
    dh_word word = dhp_word(self);
    PyObject *copy = word != 0 ? PyDict_New() : NULL;
    if (copy != NULL && fill_copy(self, word, copy) < 0)
        Py_CLEAR(copy);
    dhp_gc_resume(was_enabled);
    return copy;
}

PyObject *dhp_dict_copy(dhp_proxy *self)
{
    dhp_core *core = self->core;
    uint64_t count_before = core->placeholders_count;
    return dhp_resolve_inside(core, count_before, dhp_dict_copy_raw(self));
}
