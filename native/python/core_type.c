/* core_type.c -- Core: the Python object that owns a heap of the core.
 *
 * The verbs are called through cffi with the address, without the GIL; where the core must stop
 * the world it calls back here and takes the GIL. Nothing here commits, scans or collects.
 */
#include "records.h"
#include "sorted_type.h"

#include <stdlib.h>

/* --- stopping the world ----------------------------------------------------------------------- */

/* A stop inside a stop is by the same thread, for it holds the GIL: only the outermost counts. */
static void world_stop(void *context)
{
    dhp_core *core = context;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (core->stops_depth++ == 0)
        core->gil = gil;
    else
        PyGILState_Release(gil);
}

static void world_resume(void *context)
{
    dhp_core *core = context;
    if (--core->stops_depth == 0)
        PyGILState_Release(core->gil);
}

/* --- life ------------------------------------------------------------------------------------- */

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"capacity_bytes", "tracker", "key0", "key1", NULL};
    unsigned long long capacity_bytes, key0, key1;
    dh_options options;
    int tracker;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KiKK:Core", names, &capacity_bytes, &tracker,
                                     &key0, &key1))
        return NULL;
    dhp_state *state = PyType_GetModuleState(type);
    dhp_core *self = state ? PyObject_New(dhp_core, type) : NULL;
    if (self == NULL)
        return NULL;
    self->heap = NULL;
    self->state = state;
    self->int_hashes = calloc(DHP_SMALL_INTS, sizeof *self->int_hashes);
    self->texts = calloc(DHP_KNOWN_TEXTS, sizeof *self->texts);
    self->texts_seen = calloc(DHP_KNOWN_TEXTS, sizeof *self->texts_seen);
    self->names = calloc(DHP_NAMES, sizeof *self->names);
    self->shapes = calloc(DHP_KNOWN_SHAPES, sizeof *self->shapes);
    self->exports_count = 0;
    self->stops_depth = 0;
    self->blocks = NULL;
    self->marks_count = 0;
    self->undone_mark = 0;
    self->layouts = NULL;
    self->undo_failed = 0;
    self->allow_pickle = 0;
    self->placeholders_count = 0;
    self->orphans = NULL;
    self->on_due = NULL;
    self->due_lock = PyThread_allocate_lock();
    self->weakrefs = NULL;
    options = (dh_options){capacity_bytes, tracker, {key0, key1}};
    int rc = ENOMEM;
    if (self->due_lock != NULL && self->int_hashes != NULL && self->texts != NULL &&
        self->texts_seen != NULL && self->names != NULL && self->shapes != NULL)
        rc = dh_heap_open(&options, &self->heap);
    if (rc != 0) {
        dhp_raise_open(state, rc);
        Py_DECREF(self);
        return NULL;
    }
    dh_world world = {world_stop, world_resume, self, dhp_due};
    dh_heap_set_world(self->heap, &world);
    dh_key_from_int(self->heap, 0, &self->int_key);
    return (PyObject *)self;
}

static void core_close(dhp_core *self)
{
    dh_heap *heap = self->heap;
    if (heap == NULL)
        return;
    dhp_blocks_drop(self);
    dhp_layouts_drop(self);
    self->heap = NULL;
    dh_heap_close(heap);
}

static void core_forget_keys(dhp_core *self)
{
    for (size_t i = 0; self->texts != NULL && i < DHP_KNOWN_TEXTS; i++)
        Py_XDECREF(self->texts[i].text);
    dhp_names_forget(self);
    dhp_shapes_forget(self);
    free(self->texts_seen);
    free(self->texts);
    free(self->int_hashes);
}

static void core_dealloc(PyObject *obj)
{
    dhp_core *self = (dhp_core *)obj;
    PyTypeObject *type = Py_TYPE(obj);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(obj);
    core_close(self);
    dhp_orphans_release(self);
    Py_XDECREF(self->on_due);
    if (self->due_lock != NULL)
        PyThread_free_lock(self->due_lock);
    core_forget_keys(self);
    PyObject_Free(obj);
    Py_DECREF(type);
}

PyDoc_STRVAR(
    close_doc,
    "close($self, /)\n--\n\n"
    "Stop tracking and give the memory back. What was not committed is lost.\n\n"
    "Containers raise HeapClosedError from now on. Memory with exported views stays mapped, and "
    "is\n"
    "saved nowhere, until the last view goes. Closing twice does nothing. O(mapped memory).");
static PyObject *core_close_method(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    core_close((dhp_core *)self);
    Py_RETURN_NONE;
}

/* --- making containers ------------------------------------------------------------------------ */

static int core_check_open(dhp_core *self)
{
    if (self->heap != NULL)
        return 0;
    return dhp_raise_named(self->state, "HeapClosedError", "the heap is closed");
}

dhp_proxy *dhp_container_new(dhp_core *core, dh_type type)
{
    dh_word word;
    if (dhp_check_writable(core) < 0)
        return NULL;
    int rc = type == DH_T_DICT     ? dh_dict_new(core->heap, &word)
             : type == DH_T_SET    ? dh_set_new(core->heap, &word)
             : type == DH_T_SORTED ? dh_sorted_new(core->heap, &word)
                                   : dh_list_new(core->heap, &word);
    if (rc != 0) {
        dhp_raise(core, rc);
        return NULL;
    }
    return (dhp_proxy *)dhp_proxy_get(core, word);
}

/* Copy a plain container of exactly this type in; its inner structure goes with it. */
static PyObject *copy_whole(dhp_core *core, PyObject *initial)
{
    dh_word word;
    if (dhp_check_writable(core) < 0 || dhp_word_from(core, initial, &word) < 0)
        return NULL;
    return dhp_proxy_get(core, word);
}

PyDoc_STRVAR(new_dict_doc, "new_dict($self, initial=None, /)\n--\n\n"
                           "Make a Dict that nothing in the heap refers to yet.\n\n"
                           "initial: a mapping or an iterable of pairs. Until it is stored "
                           "somewhere below the root, only\n"
                           "Python's reference keeps it. O(len(initial)).");
static PyObject *core_new_dict(PyObject *obj, PyObject *args)
{
    dhp_core *self = (dhp_core *)obj;
    PyObject *initial = Py_None;
    if (!PyArg_ParseTuple(args, "|O:new_dict", &initial))
        return NULL;
    if (PyDict_CheckExact(initial))
        return copy_whole(self, initial);
    dhp_proxy *made = dhp_container_new(self, DH_T_DICT);
    if (made != NULL && initial != Py_None && dhp_dict_update(made, initial, NULL) < 0)
        Py_CLEAR(made);
    return (PyObject *)made;
}

PyDoc_STRVAR(new_list_doc, "new_list($self, initial=None, /)\n--\n\n"
                           "Make a List that nothing in the heap refers to yet.\n\n"
                           "initial: an iterable. Until it is stored somewhere below the root, "
                           "only Python's reference keeps\n"
                           "it. O(len(initial)).");
static PyObject *core_new_list(PyObject *obj, PyObject *args)
{
    dhp_core *self = (dhp_core *)obj;
    PyObject *initial = Py_None;
    if (!PyArg_ParseTuple(args, "|O:new_list", &initial))
        return NULL;
    if (PyList_CheckExact(initial))
        return copy_whole(self, initial);
    dhp_proxy *made = dhp_container_new(self, DH_T_LIST);
    if (made != NULL && initial != Py_None && dhp_list_extend(made, initial) < 0)
        Py_CLEAR(made);
    return (PyObject *)made;
}

PyDoc_STRVAR(new_set_doc, "new_set($self, initial=None, /)\n--\n\n"
                          "Make a Set that nothing in the heap refers to yet.\n\n"
                          "initial: an iterable. Until it is stored somewhere below the root, only "
                          "Python's reference keeps\n"
                          "it. O(len(initial)).");
static PyObject *core_new_set(PyObject *obj, PyObject *args)
{
    dhp_core *self = (dhp_core *)obj;
    PyObject *initial = Py_None;
    if (!PyArg_ParseTuple(args, "|O:new_set", &initial))
        return NULL;
    if (Py_IS_TYPE(initial, &PySet_Type))
        return copy_whole(self, initial);
    dhp_proxy *made = dhp_container_new(self, DH_T_SET);
    if (made != NULL && initial != Py_None && dhp_set_update(made, &initial, 1) < 0)
        Py_CLEAR(made);
    return (PyObject *)made;
}

PyDoc_STRVAR(new_sorted_dict_doc,
             "new_sorted_dict($self, initial=None, /)\n--\n\n"
             "Make a SortedDict that nothing in the heap refers to yet.\n\n"
             "initial: a mapping or an iterable of pairs. Until it is stored somewhere below the "
             "root, only\n"
             "Python's reference keeps it. O(len(initial) log len(initial)).");
static PyObject *core_new_sorted_dict(PyObject *obj, PyObject *args)
{
    dhp_core *self = (dhp_core *)obj;
    PyObject *initial = Py_None;
    if (!PyArg_ParseTuple(args, "|O:new_sorted_dict", &initial) ||
        dhp_sorted_refuse_function(initial) < 0)
        return NULL;
    dhp_proxy *made = dhp_container_new(self, DH_T_SORTED);
    if (made != NULL && initial != Py_None && dhp_sorted_update(made, initial, NULL) < 0)
        Py_CLEAR(made);
    return (PyObject *)made;
}

PyDoc_STRVAR(new_deque_doc,
             "new_deque($self, initial=None, maxlen=None, /)\n--\n\n"
             "Make a Deque that nothing in the heap refers to yet.\n\n"
             "initial: an iterable. maxlen: the length that is never exceeded. Until "
             "it is stored somewhere\n"
             "below the root, only Python's reference keeps it. O(len(initial)).");
static PyObject *core_new_deque(PyObject *obj, PyObject *args)
{
    PyObject *initial = Py_None, *maxlen = Py_None;
    if (!PyArg_ParseTuple(args, "|OO:new_deque", &initial, &maxlen))
        return NULL;
    return dhp_deque_new((dhp_core *)obj, initial, maxlen);
}

static PyObject *buffer_of_size(dhp_core *self, Py_ssize_t size, const void *content)
{
    dh_word word;
    uint8_t *data;
    uint64_t size_now;

    if (dhp_check_writable(self) < 0)
        return NULL;
    int rc = dh_buffer_new(self->heap, (uint64_t)size, &word);
    if (rc == 0 && content != NULL && size > 0) {
        rc = dh_buffer_read(self->heap, word, &data, &size_now);
        if (rc == 0)
            memcpy(data, content, (size_t)size);
    }
    if (rc != 0) {
        dhp_raise(self, rc);
        return NULL;
    }
    return dhp_proxy_get(self, word);
}

PyDoc_STRVAR(
    new_buffer_doc,
    "new_buffer($self, initial, /)\n--\n\n"
    "Make a Buffer of that many zero bytes, or with the content of a bytes-like object.\n\n"
    "Its size never changes. It begins on a page of its own. O(size).\n\n"
    "Raises ValueError for a negative size, HeapFullError beyond the capacity.");
static PyObject *core_new_buffer(PyObject *obj, PyObject *initial)
{
    dhp_core *self = (dhp_core *)obj;
    if (PyObject_CheckBuffer(initial)) {
        Py_buffer view;
        if (PyObject_GetBuffer(initial, &view, PyBUF_SIMPLE) < 0)
            return NULL;
        PyObject *made = buffer_of_size(self, view.len, view.buf);
        PyBuffer_Release(&view);
        return made;
    }
    Py_ssize_t size = PyNumber_AsSsize_t(initial, PyExc_OverflowError);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "the size of a buffer cannot be negative");
        return NULL;
    }
    return buffer_of_size(self, size, NULL);
}

PyDoc_STRVAR(new_array_doc,
             "new_array($self, owner, description, /)\n--\n\n"
             "Make an Array over the bytes of a Buffer, or of the Buffer of another Array.\n\n"
             "description: (dtype, shape, strides, offset) as in native/src/array.h. Raises "
             "ValueError for one\nthat is unsound or reaches beyond the bytes.");
static PyObject *core_new_array(PyObject *obj, PyObject *args)
{
    PyObject *owner, *description;
    dhp_core *self = (dhp_core *)obj;
    if (!PyArg_ParseTuple(args, "O!O!:new_array", self->state->container_type, &owner,
                          &PyTuple_Type, &description))
        return NULL;
    return dhp_array_new(self, owner, description);
}

PyDoc_STRVAR(owns_doc,
             "owns($self, container, /)\n--\n\n"
             "Tell whether a container was made by this heap, which may be closed since.");
static PyObject *core_owns(PyObject *obj, PyObject *container)
{
    dhp_core *self = (dhp_core *)obj;
    return PyBool_FromLong(dhp_is_proxy(self->state, container) &&
                           ((dhp_proxy *)container)->core == self);
}

PyDoc_STRVAR(serial_doc,
             "serial($self, container, /)\n--\n\n"
             "The identity number of a container of this heap, the same in every commit "
             "that holds it;\n0 for anything else.");
static PyObject *core_serial(PyObject *obj, PyObject *container)
{
    dhp_core *self = (dhp_core *)obj;
    bool is_ours = dhp_is_proxy(self->state, container) && ((dhp_proxy *)container)->core == self;
    return PyLong_FromUnsignedLongLong(is_ours ? ((dhp_proxy *)container)->handle.serial : 0);
}

PyDoc_STRVAR(
    reference_doc,
    "reference($self, container, /)\n--\n\n"
    "The word that leads to a container of this heap, for verbs of the core; good while the "
    "container's object\nlives and nothing is rolled back. Raises TypeError for what is no "
    "container, ValueError for one of another heap.");
static PyObject *core_reference(PyObject *obj, PyObject *container)
{
    dhp_core *self = (dhp_core *)obj;
    if (!dhp_is_proxy(self->state, container)) {
        PyErr_Format(PyExc_TypeError,
                     "a container of this heap is expected (a Dict, List, record, an ndarray that "
                     "is in it, ...), not %R: plain values belong to the slot that holds them",
                     Py_TYPE(container));
        return NULL;
    }
    dh_word word = dhp_word((dhp_proxy *)container);
    if (word == 0)
        return NULL;
    if (((dhp_proxy *)container)->core != self) {
        PyErr_SetString(PyExc_ValueError, "the container is one of another heap: ask that one");
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(word);
}

PyDoc_STRVAR(stored_fields_doc,
             "stored_fields($self, record, /)\n--\n\n"
             "A dict of the fields that a record of this heap was stored with, whatever its class "
             "is now.");
static PyObject *core_stored_fields(PyObject *obj, PyObject *record)
{
    dhp_core *self = (dhp_core *)obj;
    if (!dhp_is_proxy(self->state, record) || ((dhp_proxy *)record)->core != self ||
        !dh_is_ref_to(((dhp_proxy *)record)->handle.word, DH_T_RECORD)) {
        PyErr_SetString(PyExc_TypeError, "a record of this heap is expected");
        return NULL;
    }
    return dhp_record_stored((dhp_proxy *)record);
}

PyDoc_STRVAR(take_mark_doc, "take_mark($self, /)\n--\n\n"
                            "A number above those of all transactions and savepoints so far.");
static PyObject *core_take_mark(PyObject *obj, PyObject *ignored)
{
    (void)ignored;
    return PyLong_FromUnsignedLongLong(++((dhp_core *)obj)->marks_count);
}

PyDoc_STRVAR(take_undone_doc, "take_undone($self, /)\n--\n\n"
                              "The mark of the first transaction undone since this was last asked, "
                              "or 0.");
static PyObject *core_take_undone(PyObject *obj, PyObject *ignored)
{
    dhp_core *self = (dhp_core *)obj;
    uint64_t undone_mark = self->undone_mark;
    (void)ignored;
    self->undone_mark = 0;
    return PyLong_FromUnsignedLongLong(undone_mark);
}

PyDoc_STRVAR(new_record_doc, "new_record($self, cls, /, *args, **kwargs)\n--\n\n"
                             "Make a record of this class that nothing in the heap refers to yet.");
static PyObject *core_new_record(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return dhp_record_new((dhp_core *)self, args, kwargs);
}

PyDoc_STRVAR(root_doc,
             "root($self, /)\n--\n\n"
             "Return the Dict at the top of the graph; the same object while one is alive.");
static PyObject *core_root(PyObject *obj, PyObject *ignored)
{
    dhp_core *self = (dhp_core *)obj;
    (void)ignored;
    if (core_check_open(self) < 0)
        return NULL;
    if (self->heap->root == 0) {
        dhp_raise_named(self->state, "HeapError", "the heap is not loaded yet");
        return NULL;
    }
    return dhp_proxy_get(self, self->heap->root);
}

PyDoc_STRVAR(block_doc,
             "block($self, owner, lock, check, commit, /)\n--\n\n"
             "Return a Block for one `with` statement, whose value is owner.\n\n"
             "It holds the lock (acquire and release) from its beginning, when check() is called "
             "under the lock, to its\nend. With a commit it is a transaction: undone when left by "
             "an exception, else commit() is called at the\nend of the outermost one. With None "
             "it only holds.");
static PyObject *core_block(PyObject *obj, PyObject *args)
{
    return dhp_block_new((dhp_core *)obj, args);
}

/* --- attributes ------------------------------------------------------------------------------- */

static PyObject *core_get_address(PyObject *obj, void *closure)
{
    dhp_core *self = (dhp_core *)obj;
    (void)closure;
    if (core_check_open(self) < 0)
        return NULL;
    return PyLong_FromVoidPtr(self->heap);
}

static PyObject *core_get_closed(PyObject *obj, void *closure)
{
    (void)closure;
    return PyBool_FromLong(((dhp_core *)obj)->heap == NULL);
}

static PyObject *core_get_exports(PyObject *obj, void *closure)
{
    (void)closure;
    return PyLong_FromSsize_t(((dhp_core *)obj)->exports_count);
}

static PyObject *core_get_read_only(PyObject *obj, void *closure)
{
    (void)closure;
    const dh_heap *heap = ((dhp_core *)obj)->heap;
    return PyBool_FromLong(heap != NULL && heap->is_read_only);
}

static int set_flag(char *flag, PyObject *value)
{
    int truth = value != NULL ? PyObject_IsTrue(value) : -1;
    if (value == NULL)
        PyErr_SetString(PyExc_AttributeError, "cannot delete this attribute");
    if (truth < 0)
        return -1;
    *flag = (char)truth;
    return 0;
}

static int core_set_read_only(PyObject *obj, PyObject *value, void *closure)
{
    (void)closure;
    char is_read_only;
    if (set_flag(&is_read_only, value) < 0 || core_check_open((dhp_core *)obj) < 0)
        return -1;
    dhi_heap_set_read_only(((dhp_core *)obj)->heap, is_read_only != 0);
    return 0;
}

static PyObject *core_get_allow_pickle(PyObject *obj, void *closure)
{
    (void)closure;
    return PyBool_FromLong(((dhp_core *)obj)->allow_pickle);
}

static int core_set_allow_pickle(PyObject *obj, PyObject *value, void *closure)
{
    (void)closure;
    return set_flag(&((dhp_core *)obj)->allow_pickle, value);
}

static PyObject *core_get_in_transaction(PyObject *obj, void *closure)
{
    (void)closure;
    return PyBool_FromLong(((dhp_core *)obj)->blocks != NULL);
}

static PyObject *core_get_undo_failed(PyObject *obj, void *closure)
{
    (void)closure;
    return PyBool_FromLong(((dhp_core *)obj)->undo_failed);
}

static PyObject *core_get_block_mark(PyObject *obj, void *closure)
{
    (void)closure;
    return PyLong_FromUnsignedLongLong(dhp_blocks_mark((dhp_core *)obj));
}

static PyGetSetDef core_getset[] = {
    {"address", core_get_address, NULL, "Address of the dh_heap, for ffi.cast; open heaps only.",
     NULL},
    {"closed", core_get_closed, NULL, "True after close().", NULL},
    {"exports_count", core_get_exports, NULL, "Views of buffers that are alive.", NULL},
    {"in_transaction", core_get_in_transaction, NULL, "A transaction is under way.", NULL},
    {"block_mark", core_get_block_mark, NULL, "The mark of the innermost transaction, or 0.", NULL},
    {"undo_failed", core_get_undo_failed, NULL,
     "A transaction could not be undone: what the heap shows is neither before nor after.", NULL},
    {"read_only", core_get_read_only, core_set_read_only,
     "While true, changing a container raises ReadOnlyError and views are read-only.", NULL},
    {"allow_pickle", core_get_allow_pickle, core_set_allow_pickle,
     "While false, reading a Pickled value raises HeapError.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(set_on_due_doc,
             "set_on_due($self, callable, /)\n--\n\n"
             "Call it, in a thread of its own, once a collection is due (dh_collect_due_at).");
PyDoc_STRVAR(wait_due_doc,
             "wait_due($self, /)\n--\n\n"
             "Wait for the end of a call of set_on_due's callable that is on its way.");

static PyMethodDef core_methods[] = {
    {"close", core_close_method, METH_NOARGS, close_doc},
    {"root", core_root, METH_NOARGS, root_doc},
    {"new_dict", core_new_dict, METH_VARARGS, new_dict_doc},
    {"new_list", core_new_list, METH_VARARGS, new_list_doc},
    {"new_set", core_new_set, METH_VARARGS, new_set_doc},
    {"new_sorted_dict", core_new_sorted_dict, METH_VARARGS, new_sorted_dict_doc},
    {"new_deque", core_new_deque, METH_VARARGS, new_deque_doc},
    {"block", core_block, METH_VARARGS, block_doc},
    {"new_buffer", core_new_buffer, METH_O, new_buffer_doc},
    {"owns", core_owns, METH_O, owns_doc},
    {"serial", core_serial, METH_O, serial_doc},
    {"reference", core_reference, METH_O, reference_doc},
    {"stored_fields", core_stored_fields, METH_O, stored_fields_doc},
    {"take_mark", core_take_mark, METH_NOARGS, take_mark_doc},
    {"take_undone", core_take_undone, METH_NOARGS, take_undone_doc},
    {"set_on_due", dhp_set_on_due, METH_O, set_on_due_doc},
    {"wait_due", dhp_wait_due, METH_NOARGS, wait_due_doc},
    {"new_array", core_new_array, METH_VARARGS, new_array_doc},
    {"new_record", (PyCFunction)(void (*)(void))core_new_record, METH_VARARGS | METH_KEYWORDS,
     new_record_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef core_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(dhp_core, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    core_doc,
    "Core(capacity_bytes, tracker, key0, key1)\n--\n\n"
    "One heap of the C core: its arena, its watch and its containers.\n\n"
    "capacity_bytes: address space to reserve. tracker: a DH_TRACKER_* code. key0, key1: the "
    "heap's\n"
    "secret hash key, 64 bits each. The heap is not loaded yet: dh_load_finish starts it.");

static PyType_Slot core_slots[] = {
    {Py_tp_doc, (void *)core_doc},
    {Py_tp_new, core_new},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_methods, core_methods},
    {Py_tp_getset, core_getset},
    {Py_tp_members, core_members},
    {0, NULL},
};

PyType_Spec dhp_core_spec = {"dirtyheap._native.Core", sizeof(dhp_core), 0, Py_TPFLAGS_DEFAULT,
                             core_slots};
