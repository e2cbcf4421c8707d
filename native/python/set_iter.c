/* set_iter.c -- iterating over a Set, and the plain copy that is made by iterating.
 *
 * As dict_iter.c: a place in the order is worth nothing once the set changed its size, and between
 * two steps anything can happen.
 */
#include "state.h"

typedef struct {
    PyObject_HEAD dhp_proxy *set; /* owned; NULL: exhausted */
    dh_dict_pos position;
    uint64_t version;
    uint64_t left_count; /* for __length_hint__ */
} set_iter;

PyObject *dhp_set_iter_new(dhp_proxy *set)
{
    uint64_t version, length;
    dh_word word = dhp_word(set);
    if (word == 0)
        return NULL;
    int rc = dh_set_version(set->core->heap, word, &version);
    if (rc == 0)
        rc = dh_set_length(set->core->heap, word, &length);
    if (rc != 0) {
        dhp_raise(set->core, rc);
        return NULL;
    }
    set_iter *self = PyObject_New(set_iter, set->core->state->set_iter_type);
    if (self == NULL)
        return NULL;
    self->set = (dhp_proxy *)Py_NewRef((PyObject *)set);
    self->position = (dh_dict_pos){0, 0};
    self->version = version;
    self->left_count = length;
    return (PyObject *)self;
}

static void iter_dealloc(PyObject *obj)
{
    PyTypeObject *type = Py_TYPE(obj);
    Py_XDECREF((PyObject *)((set_iter *)obj)->set);
    PyObject_Free(obj);
    Py_DECREF(type);
}

/* 1 and the element's word, 0 at the end, -1 with an exception. */
static int iter_step(set_iter *self, dh_word *element_out)
{
    uint64_t version;
    dhp_proxy *set = self->set;
    dh_word word = dhp_word(set);
    if (word == 0)
        return -1;
    int rc = dh_set_version(set->core->heap, word, &version);
    if (DH_UNLIKELY(rc == 0 && version != self->version)) {
        PyErr_SetString(PyExc_RuntimeError, "Set changed size during iteration");
        return -1;
    }
    if (rc == 0)
        rc = dh_set_next(set->core->heap, word, &self->position, element_out);
    return rc < 0 ? dhp_raise(set->core, rc) : rc;
}

static PyObject *iter_next(PyObject *obj)
{
    set_iter *self = (set_iter *)obj;
    dh_word element;
    if (self->set == NULL)
        return NULL;
    int rc = iter_step(self, &element);
    if (DH_LIKELY(rc == 1)) {
        self->left_count -= self->left_count > 0;
        return dhp_object_from(self->set->core, element);
    }
    if (rc == 0)
        Py_CLEAR(self->set);
    return NULL;
}

static PyObject *iter_length_hint(PyObject *obj, PyObject *ignored)
{
    set_iter *self = (set_iter *)obj;
    (void)ignored;
    return PyLong_FromUnsignedLongLong(self->set != NULL ? self->left_count : 0);
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

PyType_Spec dhp_set_iter_spec = {"dirtyheap._native.SetIterator", sizeof(set_iter), 0,
                                 Py_TPFLAGS_DEFAULT, iter_slots};

/* --- the plain copy --------------------------------------------------------------------------- */

int dhp_set_put(dhp_core *core, PyObject *plain, dh_word word)
{
    PyObject *element = dhp_raw_from(core, word);
    if (element == NULL)
        return -1;
    int rc = PySet_Add(plain, element);
    Py_DECREF(element);
    if (rc < 0 && PyErr_ExceptionMatches(PyExc_TypeError)) { /* no hash: a damaged file */
        PyErr_Clear();
        dhp_raise(core, DH_E_CORRUPT);
    }
    return rc;
}

static int append(dhp_core *core, PyObject *plain, dh_word word)
{
    PyObject *element = dhp_raw_from(core, word);
    int rc = element != NULL ? PyList_Append(plain, element) : -1;
    Py_XDECREF(element);
    return rc;
}

/* All elements into a new plain object, with Python's collector paused. */
static PyObject *fill_plain(dhp_proxy *self, PyObject *plain,
                            int (*put)(dhp_core *, PyObject *, dh_word))
{
    dh_dict_pos position = {0, 0};
    dh_word word, set = plain != NULL ? dhp_word(self) : 0;
    int rc = set != 0 ? 1 : -1, was_enabled = dhp_gc_pause();
    while (rc == 1 && (rc = dh_set_next(self->core->heap, set, &position, &word)) == 1)
        rc = put(self->core, plain, word) == 0 ? 1 : -1;
    dhp_gc_resume(was_enabled);
    if (rc == 0)
        return plain;
    if (!PyErr_Occurred())
        dhp_raise(self->core, rc);
    Py_XDECREF(plain);
    return NULL;
}

PyObject *dhp_set_copy(dhp_proxy *self)
{
    uint64_t count_before = self->core->placeholders_count;
    PyObject *copy = fill_plain(self, PySet_New(NULL), dhp_set_put);
    return dhp_resolve_inside(self->core, count_before, copy);
}

PyObject *dhp_set_list_raw(dhp_proxy *self) { return fill_plain(self, PyList_New(0), append); }
