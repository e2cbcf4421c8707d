/* array_type.c -- Array: the handle behind an ndarray whose memory is in the heap.
 *
 * Users meet ndarrays only. An ndarray made for an Array holds a memoryview, which holds the Array:
 * so the collector sees it, and its memory is pinned, for as long as any view of it is alive. The
 * Array in turn knows the ndarray weakly, so that reading it twice gives the same object. What a
 * description means is numpy's business (dirtyheap/arrays.py); nothing here imports numpy.
 */
#include "state.h"

typedef struct {
    dhp_proxy proxy;
    PyObject *shown; /* weak reference to the ndarray, or NULL */
} dhp_array;

/* A new reference; NULL without an exception: none is alive. */
static PyObject *array_shown(PyObject *obj)
{
    dhp_array *self = (dhp_array *)obj;
    PyObject *shown = self->shown != NULL ? PyWeakref_GetObject(self->shown) : NULL;
    return shown != NULL && shown != Py_None ? Py_NewRef(shown) : NULL;
}

static PyObject *array_shown_method(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    if (dhp_word((dhp_proxy *)self) == 0)
        return NULL;
    PyObject *shown = array_shown(self);
    return shown != NULL ? shown : Py_NewRef(Py_None);
}

PyDoc_STRVAR(show_doc, "show($self, ndarray, /)\n--\n\n"
                       "Let this ndarray be the one that shows the Array, unless another one that "
                       "is alive does.\n\nReturns the one that does.");
static PyObject *array_show(PyObject *obj, PyObject *ndarray)
{
    PyObject *reference = PyWeakref_NewRef(ndarray, NULL);
    if (reference == NULL)
        return NULL;
    PyObject *shown = array_shown(obj); /* another thread may have been faster */
    if (shown != NULL) {
        Py_DECREF(reference);
        return shown;
    }
    dhp_replace(&((dhp_array *)obj)->shown, reference);
    return Py_NewRef(ndarray);
}

PyObject *dhp_array_raw(dhp_core *core, dh_word word)
{
    PyObject *array = dhp_proxy_get(core, word);
    PyObject *shown = array != NULL ? array_shown(array) : NULL;
    if (shown == NULL) {
        core->placeholders_count += array != NULL;
        return array;
    }
    Py_DECREF(array);
    return shown;
}

/* --- numpy's part, in Python ------------------------------------------------------------------- */

static PyObject *call_arrays(dhp_state *state, const char *name, PyObject *obj)
{
    if (state->arrays == NULL)
        dhp_replace(&state->arrays, PyImport_ImportModule("dirtyheap.arrays"));
    return state->arrays ? PyObject_CallMethod(state->arrays, name, "O", obj) : NULL;
}

PyObject *dhp_array_show(PyObject *array)
{
    PyObject *shown = array_shown(array);
    return shown != NULL ? shown : call_arrays(((dhp_proxy *)array)->core->state, "show", array);
}

PyObject *dhp_array_copy(PyObject *array)
{
    return call_arrays(((dhp_proxy *)array)->core->state, "plain", array);
}

PyObject *dhp_ndarray_copy(dhp_state *state, PyObject *ndarray)
{
    return call_arrays(state, "plain_of", ndarray);
}

PyObject *dhp_ndarray_type(void)
{
    PyObject *numpy = PyDict_GetItemString(PyImport_GetModuleDict(), "numpy");
    PyObject *type = numpy != NULL ? PyObject_GetAttrString(numpy, "ndarray") : NULL;
    if (type == NULL)
        PyErr_Clear();
    return type;
}

/* Stands in the repr of a container: as the ndarray's own, or why it cannot be read. */
static PyObject *array_repr(PyObject *obj)
{
    PyObject *type, *error, *trace, *shown = dhp_array_show(obj);
    PyObject *text = shown != NULL ? PyObject_Repr(shown) : NULL;
    Py_XDECREF(shown);
    if (text != NULL || !PyErr_ExceptionMatches(PyExc_Exception))
        return text;
    PyErr_Fetch(&type, &error, &trace);
    text = PyUnicode_FromFormat("<unreadable: %S>", error != NULL ? error : type);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    return text;
}

/* --- parts ------------------------------------------------------------------------------------ */

static int array_read(dhp_proxy *self, dh_word *buffer_out, dh_word *description_out)
{
    dh_word array = dhp_word(self);
    if (array == 0)
        return -1;
    int rc = dh_array_read(self->core->heap, array, buffer_out, description_out);
    return rc == 0 ? 0 : dhp_raise(self->core, rc);
}

static PyObject *array_get_description(PyObject *obj, void *closure)
{
    dh_word buffer, description;
    (void)closure;
    if (array_read((dhp_proxy *)obj, &buffer, &description) < 0)
        return NULL;
    return dhp_object_from(((dhp_proxy *)obj)->core, description);
}

static PyObject *array_get_buffer(PyObject *obj, void *closure)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word buffer, array = dhp_word(self);
    (void)closure;
    if (array == 0)
        return NULL;
    int rc = dh_array_buffer(self->core->heap, array, &buffer);
    if (rc == 0)
        return dhp_proxy_get(self->core, buffer);
    dhp_raise(self->core, rc);
    return NULL;
}

static int array_getbuffer(PyObject *obj, Py_buffer *view, int flags)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word buffer, array = dhp_word(self);
    view->obj = NULL;
    if (array == 0)
        return -1;
    int rc = dh_array_buffer(self->core->heap, array, &buffer);
    return rc == 0 ? dhp_buffer_export(self, buffer, view, flags) : dhp_raise(self->core, rc);
}

/* --- life ------------------------------------------------------------------------------------- */

/* The Buffer behind a Buffer or an Array of this heap; 0 with an exception. */
static dh_word buffer_of(dhp_core *core, dhp_proxy *owner)
{
    dh_word buffer = dhp_word(owner);
    if (buffer == 0)
        return 0;
    if (owner->core != core) {
        PyErr_SetString(PyExc_ValueError, "the memory is that of another heap");
        return 0;
    }
    int rc = dh_is_ref_to(buffer, DH_T_ARRAY) ? dh_array_buffer(core->heap, buffer, &buffer) : 0;
    if (rc == 0)
        return buffer;
    dhp_raise(core, rc);
    return 0;
}

PyObject *dhp_array_new(dhp_core *core, PyObject *owner, PyObject *description)
{
    dh_word buffer, words, array;
    if (dhp_check_writable(core) < 0 || buffer_of(core, (dhp_proxy *)owner) == 0 ||
        dhp_word_from(core, description, &words) < 0)
        return NULL;
    if (dhp_check_writable(core) < 0 || (buffer = buffer_of(core, (dhp_proxy *)owner)) == 0)
        return NULL;
    int rc = dh_array_new(core->heap, buffer, words, &array);
    if (rc == 0)
        return dhp_proxy_get(core, array);
    dh_value_drop(core->heap, words);
    if (rc == DH_E_CORRUPT) /* of our caller's making, not of the file's */
        PyErr_SetString(PyExc_ValueError, dh_heap_error_text(core->heap));
    else
        dhp_raise(core, rc);
    return NULL;
}

static void array_dealloc(PyObject *obj)
{
    Py_CLEAR(((dhp_array *)obj)->shown);
    dhp_proxy_dealloc(obj);
}

static PyMethodDef array_methods[] = {
    {"__buffer__", dhp_buffer_dunder, METH_O, dhp_buffer_dunder_doc},
    {"show", array_show, METH_O, show_doc},
    {"shown", array_shown_method, METH_NOARGS,
     "shown($self, /)\n--\n\nReturn the ndarray that shows the Array, or None."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef array_getset[] = {
    {"description", array_get_description, NULL,
     "(dtype, shape, strides, offset), checked to lie inside the bytes. O(its size).", NULL},
    {"buffer", array_get_buffer, NULL, "The Buffer that holds the bytes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(array_doc,
             "The handle behind an ndarray in a heap; heap.array() gives the ndarray.\n\n"
             "Its own buffer protocol exports the bytes of the Buffer, without type "
             "and shape.");

static PyType_Slot array_slots[] = {
    {Py_tp_doc, (void *)array_doc},
    {Py_tp_dealloc, array_dealloc},
    {Py_tp_repr, array_repr},
    {Py_tp_methods, array_methods},
    {Py_tp_getset, array_getset},
    {Py_bf_getbuffer, array_getbuffer},
    {Py_bf_releasebuffer, dhp_buffer_release},
    {0, NULL},
};

PyType_Spec dhp_array_spec = {"dirtyheap._native.Array", sizeof(dhp_array), 0, Py_TPFLAGS_DEFAULT,
                              array_slots};
