/* buffer_type.c -- Buffer: bytes in the arena that anybody may write, and the views on them.
 *
 * A view holds the Buffer object and counts as an export of its run, so that the memory is neither
 * reused nor unmapped while the view lives, whatever happens to the heap. Must never hand out an
 * address that is not counted.
 */
#include "state.h"

#include <stdlib.h>

/* One exported view; the heap is kept for the end, for the core may be closed by then. */
typedef struct {
    dh_heap *heap;
    dh_off off;
    uint64_t size;
} export_note;

/* --- the buffer protocol ---------------------------------------------------------------------- */

static int buffer_read(dhp_proxy *self, uint8_t **data_out, uint64_t *size_out)
{
    dh_word buffer = dhp_word(self);
    if (buffer == 0)
        return -1;
    int rc = dh_buffer_read(self->core->heap, buffer, data_out, size_out);
    return rc == 0 ? 0 : dhp_raise(self->core, rc);
}

static int export_begin(dhp_proxy *self, const uint8_t *data, uint64_t size, export_note **out)
{
    dh_heap *heap = self->core->heap;
    export_note *note = malloc(sizeof *note);
    if (note == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *note = (export_note){heap, (dh_off)(data - heap->arena.base), size};
    int rc = dh_export_begin(heap, note->off, size);
    if (rc != 0) {
        free(note);
        return dhp_raise(self->core, rc);
    }
    self->core->exports_count++;
    *out = note;
    return 0;
}

static void export_end(dhp_core *core, export_note *note)
{
    dh_export_end(note->heap, note->off, note->size);
    free(note);
    core->exports_count--;
}

int dhp_buffer_export(dhp_proxy *owner, dh_word buffer, Py_buffer *view, int flags)
{
    static uint8_t nothing[1];
    dhp_core *core = owner->core;
    export_note *note = NULL;
    uint8_t *data;
    uint64_t size;

    view->obj = NULL;
    int rc = dh_buffer_read(core->heap, buffer, &data, &size);
    if (rc != 0)
        return dhp_raise(core, rc);
    /* Whoever gets memory that may be written writes without asking. */
    int is_read_only = core->heap->is_read_only || core->heap->is_forked;
    if (!is_read_only && dhp_check_writable(core) < 0)
        return -1;
    if (size > 0 && export_begin(owner, data, size, &note) < 0)
        return -1;
    if (PyBuffer_FillInfo(view, (PyObject *)owner, size > 0 ? data : nothing, (Py_ssize_t)size,
                          is_read_only, flags) < 0) {
        if (note != NULL)
            export_end(core, note);
        return -1;
    }
    view->internal = note;
    return 0;
}

void dhp_buffer_release(PyObject *owner, Py_buffer *view)
{
    export_note *note = view->internal;
    view->internal = NULL;
    if (note != NULL)
        export_end(((dhp_proxy *)owner)->core, note);
}

static int buffer_getbuffer(PyObject *obj, Py_buffer *view, int flags)
{
    dhp_proxy *self = (dhp_proxy *)obj;
    dh_word buffer = dhp_word(self);
    if (buffer != 0)
        return dhp_buffer_export(self, buffer, view, flags);
    view->obj = NULL;
    return -1;
}

/* --- items and slices ------------------------------------------------------------------------- */

static Py_ssize_t buffer_length(PyObject *obj)
{
    uint8_t *data;
    uint64_t size;
    return buffer_read((dhp_proxy *)obj, &data, &size) < 0 ? -1 : (Py_ssize_t)size;
}

/* Everything else is what a memoryview of it does. */
static PyObject *buffer_view(PyObject *obj) { return PyMemoryView_FromObject(obj); }

static PyObject *buffer_item(PyObject *obj, Py_ssize_t index)
{
    uint8_t *data;
    uint64_t size;
    if (buffer_read((dhp_proxy *)obj, &data, &size) < 0)
        return NULL;
    if (index >= 0 && (uint64_t)index < size)
        return PyLong_FromLong(data[index]);
    PyErr_SetString(PyExc_IndexError, "buffer index out of range");
    return NULL;
}

/* Bytes for a slice, an int for an index. */
static PyObject *buffer_subscript(PyObject *obj, PyObject *item)
{
    PyObject *view = buffer_view(obj);
    PyObject *part = view ? PyObject_GetItem(view, item) : NULL;
    if (part != NULL && PyMemoryView_Check(part))
        dhp_replace(&part, PyBytes_FromObject(part));
    Py_XDECREF(view);
    return part;
}

static int buffer_ass_subscript(PyObject *obj, PyObject *item, PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "a buffer keeps its size: nothing can be deleted");
        return -1;
    }
    if (dhp_word_for_store((dhp_proxy *)obj) == 0)
        return -1;
    PyObject *view = buffer_view(obj);
    int rc = view != NULL ? PyObject_SetItem(view, item, value) : -1;
    Py_XDECREF(view);
    return rc;
}

static PyObject *buffer_richcompare(PyObject *obj, PyObject *other, int op)
{
    if ((op != Py_EQ && op != Py_NE) || !PyObject_CheckBuffer(other))
        Py_RETURN_NOTIMPLEMENTED;
    PyObject *mine = buffer_view(obj), *theirs = mine ? PyMemoryView_FromObject(other) : NULL;
    PyObject *result = theirs ? PyObject_RichCompare(mine, theirs, op) : NULL;
    Py_XDECREF(theirs);
    Py_XDECREF(mine);
    return result;
}

static PyObject *buffer_repr(PyObject *obj)
{
    Py_ssize_t size = buffer_length(obj);
    return size < 0 ? NULL : PyUnicode_FromFormat("<dirtyheap.Buffer of %zd bytes>", size);
}

static PyObject *buffer_get_nbytes(PyObject *obj, void *closure)
{
    (void)closure;
    Py_ssize_t size = buffer_length(obj);
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

static PyGetSetDef buffer_getset[] = {
    {"nbytes", buffer_get_nbytes, NULL, "Size in bytes; never changes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(tobytes_doc, "tobytes($self, /)\n--\n\nReturn the content as bytes. O(size).\n\n"
                          ">>> heap.buffer(b'bytes').tobytes()\n"
                          "b'bytes'");
static PyObject *buffer_tobytes(PyObject *self, PyObject *ignored)
{
    uint8_t *data;
    uint64_t size;
    (void)ignored;
    if (buffer_read((dhp_proxy *)self, &data, &size) < 0)
        return NULL;
    return PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
}

/* CPython 3.12 makes this from the slot (PEP 688); type checkers look for it everywhere. */
const char dhp_buffer_dunder_doc[] = "__buffer__($self, flags, /)\n--\n\nReturn a memoryview.";
PyObject *dhp_buffer_dunder(PyObject *self, PyObject *flags)
{
    (void)flags;
    return buffer_view(self);
}

static PyMethodDef buffer_methods[] = {
    {"__buffer__", dhp_buffer_dunder, METH_O, dhp_buffer_dunder_doc},
    {"tobytes", buffer_tobytes, METH_NOARGS, tobytes_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(buffer_doc,
             "Mutable bytes that live in a heap, on pages of their own.\n\n"
             "Made with heap.buffer(). memoryview, numpy.frombuffer, readinto and C code write "
             "straight into\n"
             "the heap's memory; the next commit has what they wrote. Its size never changes.\n\n"
             ">>> numbers = numpy.frombuffer(heap.root['data'], dtype='<f8')");

static int contains_bytes(dhp_proxy *self, const void *needle, size_t size)
{
    uint8_t *data;
    uint64_t length;
    dh_word word = dhp_word(self);
    if (word == 0)
        return -1;
    int rc = dh_buffer_read(self->core->heap, word, &data, &length);
    if (rc != 0)
        return dhp_raise(self->core, rc);
    return size == 0 || (length >= size && memmem(data, (size_t)length, needle, size) != NULL);
}

/* As in bytearray: an int is a byte, anything else a sequence of bytes. */
static int buffer_contains(PyObject *obj, PyObject *value)
{
    Py_buffer view;
    if (PyIndex_Check(value)) {
        Py_ssize_t number = PyNumber_AsSsize_t(value, PyExc_ValueError);
        if (number == -1 && PyErr_Occurred())
            return -1;
        uint8_t byte = (uint8_t)number;
        if (number == byte)
            return contains_bytes((dhp_proxy *)obj, &byte, 1);
        PyErr_SetString(PyExc_ValueError, "byte must be in range(0, 256)");
        return -1;
    }
    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0)
        return -1;
    int found = contains_bytes((dhp_proxy *)obj, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return found;
}

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, (void *)buffer_doc},
    {Py_tp_dealloc, dhp_proxy_dealloc},
    {Py_tp_methods, buffer_methods},
    {Py_tp_getset, buffer_getset},
    {Py_tp_repr, buffer_repr},
    {Py_tp_richcompare, buffer_richcompare},
    {Py_tp_iter, PySeqIter_New},
    {Py_mp_length, buffer_length},
    {Py_mp_subscript, buffer_subscript},
    {Py_mp_ass_subscript, buffer_ass_subscript},
    {Py_sq_length, buffer_length},
    {Py_sq_item, buffer_item},
    {Py_sq_contains, buffer_contains},
    {Py_bf_getbuffer, buffer_getbuffer},
    {Py_bf_releasebuffer, dhp_buffer_release},
    {0, NULL},
};

PyType_Spec dhp_buffer_spec = {"dirtyheap.Buffer", sizeof(dhp_proxy), 0, Py_TPFLAGS_DEFAULT,
                               buffer_slots};
